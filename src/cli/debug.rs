//! `debug`: a shell in what a failed step of a build left.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::debug::{self, Options};

use super::build::run_flags::secrets;
use super::progress::{Mode, Progress};
use super::{Context, Verb, foreground};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A failed step that `ps -a` lists, instead of the last one
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// A secret of the step, given again
    #[arg(long = "secret", value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    secrets: Vec<String>,
    /// What to run there instead of a shell
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["debug"];
    const ABOUT: &'static str = "Open a shell in what the last failed step of a build left";
    const EXAMPLE: &'static str =
        "outcrop debug\noutcrop debug -- cat config.log\noutcrop debug --container failed-12-4";
    const FAILURE: u8 = 125;

    fn run(self, context: &Context) -> Result<ExitCode> {
        let options = Options {
            container: self.container,
            secrets: secrets(&self.secrets)?,
            args: self.command,
            tty: false,
        };
        run(context, options)
    }
}

/// Interactive where standard input and output are a terminal.
pub(super) fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let progress = Progress::aside(Mode::Auto);
    let job = context.job(progress.report());
    let tty = io::stdin().is_terminal() && io::stdout().is_terminal();
    let debug = debug::debug(context.engine()?, &Options { tty, ..options }, &job)?;
    let held = debug.caches;
    let code = foreground::run(context, &debug.row, debug.attach, true, debug.more, &job);
    drop(held);
    code
}
