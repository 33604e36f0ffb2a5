//! `export`: a container's files as a tar.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use outcrop::container;
use outcrop::error::{Context as _, Error, Result};
use outcrop::output::Destination;
use outcrop::verb::export;

use super::frame::WRITING;
use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where to write it; standard output where nothing is said
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["export", "container export"];
    const ABOUT: &'static str = "Write all files of a container as a tar";
    const EXAMPLE: &'static str = "outcrop export -o web.tar web";

    fn run(self, context: &Context) -> Result<ExitCode> {
        if self.output.is_none() && io::stdout().is_terminal() {
            return Err(Error::invalid("cowardly refusing to save to a terminal")
                .hint("use -o, or send the output elsewhere"));
        }
        let engine = context.engine()?;
        engine.sweep()?;
        let row = container::resolve(engine, &self.container)?;
        let progress = Progress::aside(Mode::Auto);
        let job = context.job(progress.report());
        match self.output {
            None => {
                let mut out = BufWriter::new(io::stdout());
                let written = export::export(engine, &row, &mut out, &job);
                let flush = |()| out.flush().context(|| "writing out what is left");
                written.and_then(flush).context(|| WRITING)?;
            }
            Some(path) => {
                Destination::File(path).write(None, |out| export::export(engine, &row, out, &job))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
