//! `pull`: an image from a registry.

use std::process::ExitCode;

use outcrop::error::{Context as _, Result};
use outcrop::image::{Platform, Reference};
use outcrop::verb::pull::{self, Options};

use super::progress::{Mode, Progress};
use super::registry::TransferArgs;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// What the image is to run on
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    transfer: TransferArgs,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["pull", "image pull"];
    const ABOUT: &'static str = "Download an image from a registry";
    const EXAMPLE: &'static str =
        "outcrop pull debian:bookworm\noutcrop pull --platform linux/arm64 registry.example.com/app";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let (name, selected) = Reference::parse_loose(&self.name)?;
        let engine = context.engine()?;
        let mode = self.transfer.mode();
        if !selected {
            self.transfer.say_default_tag(context)?;
        }
        let progress = Progress::of(mode);
        let job = context.job(progress.report());
        let options = Options {
            platform: self.platform.unwrap_or_else(Platform::host),
            registry: self.transfer.registry.options(),
        };
        pull::pull(engine, &name, &options, &job).context(|| format!("pulling `{}`", name.familiar()))?;
        drop(progress);
        let mut out = context.out();
        if mode != Mode::RawJson {
            out.line(&name)?;
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
