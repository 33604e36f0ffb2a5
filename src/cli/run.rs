//! `run`: a new container, in the foreground.

use std::process::ExitCode;

use outcrop::container::{Config, More};
use outcrop::error::Result;
use outcrop::verb::create;

use super::container::Flags;
use super::create::note;
use super::progress::{Mode, Progress};
use super::{Context, Verb, foreground};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    /// Hand on signals to the container's first process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["run", "container run"];
    const ABOUT: &'static str = "Create a container and run it in the foreground";
    const EXAMPLE: &'static str =
        "outcrop run --rm -it debian bash\noutcrop run --rm -v \"$PWD\":/src -w /src rust cargo test";
    const FAILURE: u8 = 125;

    fn run(self, context: &Context) -> Result<ExitCode> {
        let mut options = self.flags.options()?;
        options.new.config.storage_size = context.container_size()?;
        foreground::check_terminal(options.new.config.tty, options.new.config.attach.stdin)?;
        let progress = Progress::aside(if self.flags.quiet { Mode::Quiet } else { Mode::Auto });
        let job = context.job(progress.report());
        let engine = context.engine()?;
        let starter = engine.db.lease()?;
        let row = create::create(engine, &options, Some(&starter), &job)?;
        note(self.flags.cidfile.as_deref(), &row)?;
        let attach = Config::of(&row)?.attach;
        foreground::run(context, &row, attach, self.sig_proxy, More::default(), &job)
    }
}
