//! `pull`: an image from a registry.

use std::process::ExitCode;

use outcrop::error::{Context as _, Result};
use outcrop::image::{Platform, Reference};
use outcrop::verb::pull::{self, Options};

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// What the image is to run on
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How to show what happens
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    progress: Mode,
    /// Say nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: super::RegistryArgs,
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
        let mode = if self.quiet { Mode::Quiet } else { self.progress };
        if !selected && matches!(mode, Mode::Auto | Mode::Plain | Mode::Tty) {
            let mut out = context.out();
            out.line("Using default tag: latest")?;
            out.done()?;
        }
        let progress = Progress::of(mode);
        let job = context.job(progress.report());
        let options = Options {
            platform: self.platform.unwrap_or_else(Platform::host),
            registry: self.registry.options(),
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
