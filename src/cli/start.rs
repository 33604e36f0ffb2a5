//! `start`: a container that was created, or has ended, runs again.

use std::process::ExitCode;

use outcrop::container::{self, Attach, Config, More};
use outcrop::error::{Error, Result};

use super::progress::{Mode, Progress};
use super::{Context, Verb, foreground};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Show its output, hand on signals, and end with its exit code
    #[arg(short, long)]
    attach: bool,
    /// Hand on standard input, where the container was created with it
    #[arg(short, long)]
    interactive: bool,
    /// Hand on signals to the container's first process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["start", "container start"];
    const ABOUT: &'static str = "Run a container that is there, in the foreground";
    const EXAMPLE: &'static str = "outcrop start -a web\noutcrop start -ai shell";
    const FAILURE: u8 = 125;

    fn run(self, context: &Context) -> Result<ExitCode> {
        if !self.attach && !self.interactive {
            return Err(Error::unsupported("this version runs containers in the foreground alone")
                .hint(format!("`outcrop start -a {}` does", self.container)));
        }
        let engine = context.engine()?;
        // Those whose outcrop was killed do not run.
        engine.sweep()?;
        let row = container::resolve(engine, &self.container)?;
        let config = Config::of(&row)?;
        let stdin = self.interactive && config.open_stdin;
        foreground::check_terminal(config.tty, stdin)?;
        let progress = Progress::aside(Mode::Auto);
        let job = context.job(progress.report());
        let attach = Attach { stdin, stdout: true, stderr: true };
        foreground::run(context, &row, attach, self.sig_proxy, More::default(), &job)
    }
}
