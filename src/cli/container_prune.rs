//! `container prune`: all that do not run go.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use outcrop::container::Config;
use outcrop::db::ContainerRow;
use outcrop::error::{Context as _, Result};
use outcrop::job::Job;
use outcrop::verb::rm;

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
        if !self.force && !confirmed()? {
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

/// Without a terminal nobody is there to say no: scripts say `-f`.
fn confirmed() -> Result<bool> {
    let doing = || "asking whether to go on";
    write!(
        io::stdout(),
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    )
    .context(doing)?;
    io::stdout().flush().context(doing)?;
    if !io::stdin().is_terminal() {
        writeln!(io::stdout()).context(doing)?;
    }
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context(doing)?;
    Ok(answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes"))
}
