//! `system migrate`: the whole store with another storage driver.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::migrate::{self, Migrated};

use super::format::size;
use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The other driver; what `--storage-opt` says is said to it. The one that the store has: gives up a migration that was
    /// not finished
    #[arg(long, value_name = "DRIVER")]
    to: String,
    /// Say what there is to make and what it takes, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Say nothing but what was done
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["system migrate"];
    const ABOUT: &'static str = "Move the whole store to another storage driver";
    const EXAMPLE: &'static str =
        "outcrop system migrate --to vfs\noutcrop system migrate --to btrfs --dry-run";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine_to_migrate()?;
        let options = context.storage_options()?;
        let progress = Progress::aside(if self.quiet { Mode::Quiet } else { Mode::Auto });
        let job = context.job(progress.report());
        let done = match self.dry_run {
            true => migrate::look(engine, &self.to, &options, &job)?,
            false => migrate::migrate(engine, &self.to, &options, &job)?,
        };
        drop(progress);
        let mut out = context.out();
        out.line(if self.dry_run { would(&done) } else { did(&done) })?;
        if done.left > 0 {
            out.line(format!(
                "{} of layers that only the build cache keeps: `{}` has no place for them, and those steps run again",
                done.left, done.to
            ))?;
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn did(done: &Migrated) -> String {
    match done.from == done.to {
        true => format!("The store stays with {}", done.to),
        false => format!("The store is with {} now: {}", done.to, made(done)),
    }
}

fn would(done: &Migrated) -> String {
    format!(
        "From {} to {}: {} to make, about {} while both stand; {} free",
        done.from,
        done.to,
        made(done),
        size(done.bytes),
        size(done.free)
    )
}

fn made(done: &Migrated) -> String {
    let count = |number: usize, noun: &str| match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    };
    format!("{} and {}", count(done.trees, "tree"), count(done.containers, "writable layer"))
}
