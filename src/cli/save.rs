//! `save`: images into an archive.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::output::Destination;
use outcrop::verb::save;

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The file to write, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["save", "image save"];
    const ABOUT: &'static str = "Write images to an archive";
    const EXAMPLE: &'static str =
        "outcrop save -o site.tar site:1.0\noutcrop save site:1.0 site:1.1 | zstd > site.tar.zst";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let to = self.output.map_or(Destination::Stream, Destination::File);
        if to == Destination::Stream && io::stdout().is_terminal() {
            return Err(Error::invalid("cowardly refusing to save to a terminal")
                .hint("use --output FILE, or send standard output elsewhere"));
        }
        let engine = context.engine()?;
        let progress = Progress::aside(Mode::Quiet);
        let job = context.job(progress.report());
        let stream = File::from(rustix::io::dup(io::stdout()).context(|| "opening standard output")?);
        to.write(Some(&stream), |out| save::save(engine, &self.images, out, &job))?;
        Ok(ExitCode::SUCCESS)
    }
}
