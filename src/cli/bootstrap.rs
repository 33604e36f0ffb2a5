//! `bootstrap`: a base image from a distribution's own packages.

use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::image::Platform;
use outcrop::verb::bootstrap::{self, Distribution, Options};

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where packages come from; the distribution's own servers unless given
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// What the image is called; DISTRIBUTION:SUITE unless given
    #[arg(long, value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// What the image is to run on
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How to show what happens
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    progress: Mode,
    /// As in debian:bookworm or ubuntu:noble
    #[arg(value_name = "DISTRIBUTION:SUITE")]
    what: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["bootstrap", "image bootstrap"];
    const ABOUT: &'static str = "Make a base image from a distribution's packages, without a registry";
    const EXAMPLE: &'static str = "outcrop bootstrap debian:bookworm\n\
                                   outcrop bootstrap --mirror http://mirror.example.com/debian debian:trixie";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let unknown = || {
            Error::invalid(format!("`{}` cannot be bootstrapped", self.what))
                .hint("write debian:SUITE or ubuntu:SUITE, as in debian:bookworm")
        };
        let (distribution, suite) = self.what.split_once(':').ok_or_else(unknown)?;
        let name = match self.name {
            Some(name) => name.parse()?,
            None => self.what.parse().map_err(|cause: Error| unknown().because(cause))?,
        };
        let options = Options {
            distribution: Distribution::find(distribution).ok_or_else(unknown)?,
            suite: suite.to_owned(),
            mirror: self.mirror.clone(),
            name,
            platform: self.platform.clone().unwrap_or_else(Platform::host),
            path: std::env::var_os("PATH").unwrap_or_default(),
        };
        let progress = Progress::aside(self.progress);
        let job = context.job(progress.report());
        let image = bootstrap::bootstrap(context.engine()?, &options, &job)
            .context(|| format!("bootstrapping `{}`", self.what))?;
        drop(progress);
        let mut out = context.out();
        out.line(image)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
