//! `diff`: what a container has changed.

use std::process::ExitCode;

use outcrop::container;
use outcrop::error::Result;
use outcrop::job::Job;
use outcrop::verb::diff::{self, Change};

use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["diff", "container diff"];
    const ABOUT: &'static str = "Show what a container has added (A), changed (C) and deleted (D)";
    const EXAMPLE: &'static str = "outcrop diff web";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        engine.sweep()?;
        let row = container::resolve(engine, &self.container)?;
        let mut out = context.out();
        for (path, change) in diff::diff(engine, &row, &Job::silent())? {
            let letter = match change {
                Change::Added => 'A',
                Change::Changed => 'C',
                Change::Deleted => 'D',
            };
            out.line(format_args!("{letter} /{}", String::from_utf8_lossy(&path)))?;
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
