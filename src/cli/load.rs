//! `load`: images from an archive.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::image::Platform;
use outcrop::verb::load;

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The archive, or the directory of an OCI layout, in place of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Which image of an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Say nothing but what was loaded
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["load", "image load"];
    const ABOUT: &'static str = "Read images from an archive";
    const EXAMPLE: &'static str = "outcrop load -i site.tar\noutcrop load < site.tar.zst";

    fn run(self, context: &Context) -> Result<ExitCode> {
        if self.input.is_none() && io::stdin().is_terminal() {
            return Err(Error::invalid("requested load from stdin, but stdin is empty")
                .hint("name an archive with --input FILE, or send one to standard input"));
        }
        let engine = context.engine()?;
        let lively = !self.quiet && io::stderr().is_terminal();
        let progress = Progress::aside(if lively { Mode::Auto } else { Mode::Quiet });
        let job = context.job(progress.report());
        let platform = self.platform.unwrap_or_else(Platform::host);
        let mut loaded = Vec::new();
        let told = &mut |image| loaded.push(image);
        let outcome = match &self.input {
            Some(path) => load::load_path(engine, path, &platform, told, &job)
                .context(|| format!("loading `{}`", path.display())),
            None => {
                let stdin = File::from(rustix::io::dup(io::stdin()).context(|| "opening standard input")?);
                load::load(engine, stdin, &platform, told, &job).context(|| "loading from standard input")
            }
        };
        drop(progress);
        let mut out = context.out();
        for image in loaded {
            match image.names.is_empty() {
                true => out.line(format!("Loaded image ID: {}", image.image))?,
                false => {
                    for name in image.names {
                        out.line(format!("Loaded image: {}", name.familiar()))?;
                    }
                }
            }
        }
        out.done()?;
        outcome.map(|()| ExitCode::SUCCESS)
    }
}
