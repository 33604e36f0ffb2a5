//! The flags of `build` that say what becomes of a step that fails.

use std::io::IsTerminal as _;

use outcrop::db::Time;
use outcrop::error::Result;
use outcrop::verb::build::{FailedOptions, RunOptions};
use outcrop::verb::debug;

use super::super::Context;

#[derive(clap::Args)]
pub(super) struct FailedArgs {
    /// Open a shell in what a RUN left that fails, where there is a terminal
    #[arg(long, conflicts_with = "no_keep_failed")]
    debug: bool,
    /// Keep nothing of a RUN that fails
    #[arg(long)]
    no_keep_failed: bool,
    /// Take what the step left that failed last time for its result, and go on from there
    #[arg(long)]
    resume: bool,
}

impl FailedArgs {
    /// In what failed since, if something did.
    pub(super) fn debug(&self, context: &Context, since: Time, run: &RunOptions) -> Result<()> {
        if !self.debug || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        let Some(row) = debug::failed_since(context.engine()?, since)? else { return Ok(()) };
        let options = debug::Options {
            container: Some(row.name),
            secrets: run.secrets.clone(),
            ..debug::Options::default()
        };
        super::super::debug::run(context, options).map(drop)
    }

    pub(super) fn options(&self) -> FailedOptions {
        FailedOptions { keep: !self.no_keep_failed, resume: self.resume }
    }
}
