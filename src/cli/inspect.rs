//! `inspect`: things of the store as JSON.

use std::process::ExitCode;

use outcrop::engine::Engine;
use outcrop::error::{Error, Result};
use outcrop::job::Job;
use outcrop::verb::inspect;
use serde_json::Value;

use super::format;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// With the sizes of containers
    #[arg(short, long)]
    size: bool,
    /// What to look for: image, container or volume
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["inspect"];
    const ABOUT: &'static str = "Show images, containers and volumes as JSON";
    const EXAMPLE: &'static str =
        "outcrop inspect site\noutcrop inspect --type image --format '{{.Config.Cmd}}' site";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let kinds: &[Kind] = match self.kind.as_deref() {
            None => &[container, image, volume],
            Some("container") => &[container],
            Some("image") => &[image],
            Some("volume") => &[volume],
            Some(other) => {
                return Err(Error::invalid(format!("\"{other}\" is not a valid value for --type"))
                    .hint("there are: image, container, volume"));
            }
        };
        let noun = self.kind.as_deref().unwrap_or("object");
        let engine = context.engine()?;
        format::inspect(context.out(), self.format.as_deref(), noun, &self.names, |name| {
            for kind in kinds {
                if let Some(object) = kind(engine, name, self.size)? {
                    return Ok(Some(object));
                }
            }
            Ok(None)
        })
    }
}

/// By name, with sizes or without.
type Kind = fn(&Engine, &str, bool) -> Result<Option<Value>>;

fn image(engine: &Engine, name: &str, _: bool) -> Result<Option<Value>> {
    inspect::image(engine, name)
}

fn container(engine: &Engine, name: &str, size: bool) -> Result<Option<Value>> {
    inspect::container(engine, name, size, &Job::silent())
}

fn volume(engine: &Engine, name: &str, _: bool) -> Result<Option<Value>> {
    inspect::volume(engine, name)
}

/// `image inspect`
#[derive(clap::Args)]
pub(super) struct ImageArgs {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl Verb for ImageArgs {
    const NAMES: &'static [&'static str] = &["image inspect"];
    const ABOUT: &'static str = "Show images as JSON";
    const EXAMPLE: &'static str = "outcrop image inspect site";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        let find = |name: &str| inspect::image(engine, name);
        format::inspect(context.out(), self.format.as_deref(), "image", &self.names, find)
    }
}

/// `container inspect`
#[derive(clap::Args)]
pub(super) struct ContainerArgs {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// With sizes
    #[arg(short, long)]
    size: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl Verb for ContainerArgs {
    const NAMES: &'static [&'static str] = &["container inspect"];
    const ABOUT: &'static str = "Show containers as JSON";
    const EXAMPLE: &'static str = "outcrop container inspect web";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        let find = |name: &str| inspect::container(engine, name, self.size, &Job::silent());
        format::inspect(context.out(), self.format.as_deref(), "container", &self.names, find)
    }
}
