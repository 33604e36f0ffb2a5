//! `container prune`: all that do not run go.

use std::process::ExitCode;

use outcrop::container::Config;
use outcrop::db::ContainerRow;
use outcrop::error::Result;
use outcrop::job::Job;
use outcrop::verb::rm;

use super::confirm::confirm;
use super::format::{Filters, size};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: label=KEY[=VALUE]
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["container prune"];
    const ABOUT: &'static str = "Remove all containers that do not run";
    const EXAMPLE: &'static str = "outcrop container prune -f";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let filters = Filters::parse(&self.filter, &["label"])?;
        if !self.force && !confirm("WARNING! This will remove all stopped containers.")? {
            return Ok(ExitCode::SUCCESS);
        }
        let which = |row: &ContainerRow| {
            let config = Config::of(row)?;
            Ok(filters.labels(|key| config.labels.get(key).map(String::as_str)))
        };
        let pruned = rm::prune(context.engine()?, &which, &Job::silent())?;
        let mut out = context.out();
        if !pruned.containers.is_empty() {
            out.line("Deleted Containers:")?;
            for row in &pruned.containers {
                out.line(&row.id)?;
            }
            out.line("")?;
        }
        out.line(format_args!("Total reclaimed space: {}", size(pruned.bytes)))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
