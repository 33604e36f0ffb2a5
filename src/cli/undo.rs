//! `undo`: takes back the last move of a name.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::undo;

use super::rollback::say;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["undo", "image undo"];
    const ABOUT: &'static str = "Take back the last move of a name: a rollback, a build, a tag, a removal";
    const EXAMPLE: &'static str = "outcrop undo site";

    fn run(self, context: &Context) -> Result<ExitCode> {
        say(context, &undo::undo(context.engine()?, &self.name.parse()?)?)
    }
}
