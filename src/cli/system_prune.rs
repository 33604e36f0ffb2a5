//! `system prune`: removes all that nothing uses.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::job::Job;
use outcrop::verb::system_prune::{self, Options};

use super::confirm::confirm;
use super::format::{Filters, size_exact};
use super::image_prune::{say_images, until};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Also images with names that no container uses, and all of the build cache
    #[arg(short, long)]
    all: bool,
    /// Also volumes without a name that no container uses
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: until=
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["system prune"];
    const ABOUT: &'static str = "Remove stopped containers, images that nothing uses and build cache";
    const EXAMPLE: &'static str = "outcrop system prune\noutcrop system prune -a -f";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let until = until(&Filters::parse(&self.filters, &["until"])?)?;
        if !self.force && !confirm(&self.warning())? {
            return Ok(ExitCode::SUCCESS);
        }
        let options = Options { all: self.all, volumes: self.volumes, until };
        let pruned = system_prune::system_prune(context.engine_to_prune()?, &options, &Job::silent())?;
        let mut out = context.out();
        for (title, gone) in [
            ("Deleted Containers:", pruned.containers.iter().map(ToString::to_string).collect::<Vec<_>>()),
            ("Deleted Volumes:", pruned.volumes.clone()),
        ] {
            if !gone.is_empty() {
                out.line(title)?;
                gone.iter().try_for_each(|name| out.line(name))?;
                out.line("")?;
            }
        }
        say_images(&mut out, &pruned.images)?;
        if !pruned.cache.is_empty() || !pruned.kept.is_empty() {
            out.line("Deleted build cache objects:")?;
            pruned.cache.iter().try_for_each(|record| out.line(record))?;
            pruned.kept.iter().try_for_each(|name| out.line(name))?;
            out.line("")?;
        }
        out.line(format_args!("Total reclaimed space: {}", size_exact(pruned.reclaimed)))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn warning(&self) -> String {
        let images = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        let cache = if self.all { "all build cache" } else { "unused build cache" };
        let volumes =
            if self.volumes { "  - all anonymous volumes not used by at least one container\n" } else { "" };
        format!(
            "WARNING! This will remove:\n  - all stopped containers\n{volumes}  - {images}\n  - {cache}\n"
        )
    }
}
