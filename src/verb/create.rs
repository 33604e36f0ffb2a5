//! `create`: an image that is here, or pulled, gets a container.

use super::{images, pull};
use crate::container::{self, New};
use crate::db::{ContainerRow, ImageRow, Lease};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Platform, Reference};
use crate::job::{Event, Job};
use crate::registry;

#[derive(Clone)]
pub struct Options {
    pub image: String,
    pub new: New,
    pub pull: Pull,
    /// `None`: the host's, or whatever an image that is here is for.
    pub platform: Option<Platform>,
    pub registry: registry::Options,
}

/// When registries are asked. Closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// For what is not here.
    #[default]
    Missing,
    Always,
    Never,
}

/// The container stands and does not run. `starter`: see [`container::create`].
pub fn create(
    engine: &Engine,
    options: &Options,
    starter: Option<&Lease>,
    job: &Job,
) -> Result<ContainerRow> {
    let image = image(engine, options, job)?;
    let (config, _) = images::config(engine, &image.id)?;
    let mut new = options.new.clone();
    new.config.image.clone_from(&options.image);
    let row = container::create(engine, &image, &config.config, new, starter, job)?;
    engine.sweep()?;
    Ok(row)
}

fn image(engine: &Engine, options: &Options, job: &Job) -> Result<ImageRow> {
    let text = &options.image;
    if options.pull != Pull::Always
        && let Some(row) = images::find(engine, text)?
    {
        let other = options.platform.as_ref().filter(|wanted| wanted.to_string() != row.platform);
        match other {
            None => return Ok(row),
            Some(wanted) if options.pull == Pull::Never => {
                return Err(Error::not_found(format!(
                    "image with reference {text} was found but its platform ({}) does not match the specified platform ({wanted})",
                    row.platform
                )));
            }
            Some(_) => {}
        }
    }
    let name: Reference = text.parse()?;
    if options.pull == Pull::Never {
        return Err(Error::not_found(format!("No such image: {}", name.familiar()))
            .hint("`outcrop images` lists what is here; without `--pull never` registries are asked"));
    }
    if options.pull == Pull::Missing {
        job.report(Event::Note(format!("Unable to find image '{}' locally", name.familiar())));
    }
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let from = pull::Options { platform, registry: options.registry.clone() };
    let pulled =
        pull::pull(engine, &name, &from, job).map_err(|cause| pull::not_to_be_had("image", &name, cause))?;
    images::resolve(engine, &pulled.image.to_string())
}
