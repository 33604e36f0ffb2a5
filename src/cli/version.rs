//! `version`: which outcrop this is, and what it runs on.

use std::process::ExitCode;

use outcrop::error::Result;

use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["version"];
    const ABOUT: &'static str = "Show which outcrop this is";
    const EXAMPLE: &'static str = "outcrop version";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let mut out = context.out();
        out.line("Client: outcrop")?;
        out.line(format_args!(" Version:           {}", env!("CARGO_PKG_VERSION")))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
