//! `pull`: an image from a registry.

use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::image::{Platform, Reference};
use outcrop::verb::pull::{self, Options};

use super::progress::{Mode, Progress};
use super::registry::TransferArgs;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Pull all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// What the image is to run on
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Layers at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    max_concurrent: u16,
    #[command(flatten)]
    transfer: TransferArgs,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["pull", "image pull"];
    const ABOUT: &'static str = "Download an image from a registry";
    const EXAMPLE: &'static str = "outcrop pull debian:bookworm\noutcrop pull --platform linux/arm64 registry.example.com/app\noutcrop pull --all-tags registry.example.com/app";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let (name, selected) = Reference::parse_loose(&self.name)?;
        if self.all_tags && selected {
            return Err(Error::invalid("tag can't be used with --all-tags/-a")
                .hint("leave out what stands behind the name"));
        }
        let engine = context.engine()?;
        let mode = self.transfer.mode();
        if !selected && !self.all_tags {
            self.transfer.say_default_tag(context)?;
        }
        let progress = Progress::of(mode);
        let mut job = context.job(progress.report());
        job.budget.transfers = self.max_concurrent.into();
        let options = Options {
            platform: self.platform.unwrap_or_else(Platform::host),
            registry: self.transfer.registry.options(),
        };
        let pulled = match self.all_tags {
            true => pull::pull_all(engine, &name, &options, &job).map(drop),
            false => pull::pull(engine, &name, &options, &job).map(drop),
        };
        pulled.context(|| format!("pulling `{}`", name.familiar()))?;
        drop(progress);
        let mut out = context.out();
        match (mode, self.all_tags) {
            (Mode::RawJson, _) => {}
            (_, true) => out.line(name.name())?,
            (_, false) => out.line(&name)?,
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
