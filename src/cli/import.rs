//! `import`: a tar of a root filesystem becomes an image.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::process::ExitCode;

use outcrop::db::Origin;
use outcrop::engine::Engine;
use outcrop::error::{Context as _, Error, Kind, Result};
use outcrop::image::{Platform, Reference, RunConfig};
use outcrop::job::Job;
use outcrop::verb::change;
use outcrop::verb::import::{self, Options};

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Apply an instruction to the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, USER, VOLUME, WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// A comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What the files are for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// The tar, compressed or not: a file, an address, or `-` for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["import", "image import"];
    const ABOUT: &'static str = "Make an image from a tar of a root filesystem";
    const EXAMPLE: &'static str = "outcrop import rootfs.tar.gz base:1\n\
                                   outcrop export web | outcrop import -c 'CMD [\"sh\"]' - web:flat";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let options = Options {
            config: change::apply(RunConfig::default(), &self.changes)?,
            message: self.message.clone().unwrap_or_else(|| format!("Imported from {}", self.source)),
            platform: self.platform.clone().unwrap_or_else(Platform::host),
            origin: Origin::Imported,
            verb: "import",
            created_by: Some(format!("outcrop import {}", self.source)),
            name: self.name.as_deref().map(str::parse::<Reference>).transpose()?,
        };
        let progress = Progress::aside(Mode::Auto);
        let job = context.job(progress.report());
        let engine = context.engine()?;
        let image = self
            .archive(engine, &job)
            .and_then(|file| import::import(engine, file, &options, &job))
            .context(|| format!("importing `{}`", self.source))?;
        drop(progress);
        let mut out = context.out();
        out.line(image)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    /// A file that can be read from its beginning as often as it takes.
    fn archive(&self, engine: &Engine, job: &Job) -> Result<File> {
        if self.source == "-" {
            let mut file = engine.unnamed_file()?;
            copy(&mut std::io::stdin().lock(), &mut file, job)?;
            return Ok(file);
        }
        if self.source.contains("://") {
            let mut file = engine.unnamed_file()?;
            outcrop::registry::download(&self.source, &super::registry::options(), &mut file, job)?;
            return Ok(file);
        }
        let opening = || format!("opening `{}`", self.source);
        let mut file = File::open(&self.source).context(opening).map_err(|error| match error.kind() {
            Kind::NotFound => error.hint("name a tar, or `-` for one on standard input"),
            _ => error,
        })?;
        if file.metadata().context(opening)?.is_dir() {
            return Err(Error::invalid(format!("`{}` is a directory", self.source))
                .hint(format!("make a tar of it: `tar -C {} -c . | outcrop import -`", self.source)));
        }
        if file.stream_position().is_ok() {
            return Ok(file);
        }
        // A pipe with a name.
        let mut stored = engine.unnamed_file()?;
        copy(&mut file, &mut stored, job)?;
        Ok(stored)
    }
}

fn copy(from: &mut dyn Read, to: &mut File, job: &Job) -> Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        job.check()?;
        let read = match from.read(&mut buffer) {
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.context(|| "reading the archive")?,
        };
        if read == 0 {
            return Ok(());
        }
        std::io::Write::write_all(to, &buffer[..read]).context(|| "storing the archive")?;
    }
}
