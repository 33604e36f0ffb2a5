//! The images that a build stands on and copies from: here, or found at their registry. What is found there is brought when
//! its bytes are needed, and until then a cache may tell what it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::build::{self, Base};
use crate::cache::Imported;
use crate::context::{Private, Remote};
use crate::db::ImageRow;
use crate::dockerfile::{Dated, Resolver};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{Digest, ImageConfig, Platform, Reference, RunConfig};
use crate::job::Job;
use crate::registry;
use crate::rootfs::Stack;
use crate::transfer::{self, Found};
use crate::verb::build::Options;
use crate::verb::named_context::Contexts;
use crate::verb::variant::{self, Variant};
use crate::verb::{images, pull};

/// Each is looked up once.
pub(super) struct Bases<'b> {
    engine: &'b Engine,
    options: &'b Options,
    contexts: &'b Contexts<'b>,
    remote: &'b Remote<'b>,
    job: &'b Job,
    /// By name and platform.
    known: Mutex<HashMap<Name, Known>>,
    /// Held while one is pulled: two stages may need it.
    pulling: Mutex<()>,
    used: Mutex<Vec<Stack>>,
}

type Name = (String, String);

#[derive(Clone)]
enum Known {
    Here(Arc<Base>),
    /// At its registry: its manifest and its config alone.
    There(Arc<Found>),
}

impl Known {
    fn here(base: Base) -> Self {
        Known::Here(Arc::new(base))
    }
}

impl<'b> Bases<'b> {
    pub(super) fn new(
        engine: &'b Engine,
        options: &'b Options,
        contexts: &'b Contexts<'b>,
        remote: &'b Remote<'b>,
        job: &'b Job,
    ) -> Self {
        let (known, pulling, used) = Default::default();
        Bases { engine, options, contexts, remote, job, known, pulling, used }
    }

    /// The layers of all that were stood on or copied from, as far as registries have them.
    pub(super) fn stacks(&self) -> Vec<Stack> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Name, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, reference: &str, platform: &Platform) -> Result<Known> {
        let key = (reference.to_owned(), platform.to_string());
        let mut known = self.known();
        if let Some(base) = known.get(&key) {
            return Ok(base.clone());
        }
        let stands_for = self.contexts.image(reference, platform)?;
        let brought = stands_for.as_deref().is_some_and(is_id);
        let reference = stands_for.as_deref().unwrap_or(reference);
        // For another platform of this build it was asked for already.
        let sibling = known.iter().find(|((known, _), _)| known == reference).map(|(_, base)| base);
        let base = match self.options.pull && sibling.is_none() && !brought {
            true => self.find(&reference.parse()?, platform)?,
            false => match (images::find(self.engine, reference)?, sibling) {
                // By digest: the name goes with the image that was found first.
                (None, Some(Known::There(found))) => {
                    self.find(&by_digest(&found.name, &found.digest)?, platform)?
                }
                (None, _) => self.find(&reference.parse()?, platform)?,
                (Some(row), _) => self.of_platform(reference, row, platform)?,
            },
        };
        known.insert(key, base.clone());
        Ok(base)
    }

    /// The image of this name for a platform; `row` is the one that the name has here.
    fn of_platform(&self, reference: &str, row: ImageRow, platform: &Platform) -> Result<Known> {
        if variant::fits(&row, platform) {
            return self.here(&row).map(Known::here);
        }
        let Ok(name) = reference.parse::<Reference>() else {
            return self.here(&row).map(Known::here);
        };
        match variant::of(self.engine, &name, platform)? {
            Some(Variant::Here(row)) => self.here(&row).map(Known::here),
            // By digest: the name stays with the image that it is for.
            Some(Variant::Elsewhere(name)) => self.find(&name, platform),
            None => self.here(&row).map(Known::here),
        }
    }

    fn here(&self, row: &ImageRow) -> Result<Base> {
        let (config, _) = images::config(self.engine, &row.id)?;
        let stack = Stack::load(self.engine, row.chain.as_ref())?;
        Ok(Base { image: Some(row.id), config, stack })
    }

    /// At its registry. One that is here all the same gets the name at once.
    fn find(&self, name: &Reference, platform: &Platform) -> Result<Known> {
        let found = registry::source(name, &self.options.registry)
            .and_then(|source| transfer::find(self.job, &*source, name, platform))
            .map_err(|cause| not_to_be_had(name, cause))?;
        match pull::is_here(self.engine, &found.image)? {
            true => self.pulled(&found, self.job).map(Known::here),
            false => Ok(Known::There(Arc::new(found))),
        }
    }

    fn pulled(&self, found: &Found, job: &Job) -> Result<Base> {
        bring(self.engine, found, &self.options.registry, job)?;
        self.here(&images::row(self.engine, &found.image)?)
    }

    /// To stand on: by what is known of its layers, else pulled now.
    fn there(&self, found: &Arc<Found>, imported: Option<&Imported<'_>>, job: &Job) -> Result<Base> {
        let _turn = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        if pull::is_here(self.engine, &found.image)? {
            return self.here(&images::row(self.engine, &found.image)?);
        }
        let bringing = {
            let (found, registry) = (found.clone(), self.options.registry.clone());
            move |engine: &Engine, job: &Job| bring(engine, &found, &registry, job)
        };
        let stack = match imported {
            Some(imported) => imported.base(found, Arc::new(bringing))?,
            None => None,
        };
        match stack {
            Some(stack) => Ok(Base { image: Some(found.image), config: found.config.clone(), stack }),
            None => self.pulled(found, job),
        }
    }
}

/// All of it, and then its name.
fn bring(engine: &Engine, found: &Found, options: &registry::Options, job: &Job) -> Result<()> {
    let name = &found.name;
    registry::source(name, options)
        .and_then(|source| pull::pull_found(engine, &*source, found, job))
        .map(drop)
        .map_err(|cause| not_to_be_had(name, cause))
}

fn not_to_be_had(name: &Reference, cause: crate::error::Error) -> crate::error::Error {
    pull::not_to_be_had("base image", name, cause)
}

fn by_digest(name: &Reference, digest: &Digest) -> Result<Reference> {
    format!("{}@{digest}", name.name()).parse()
}

/// What another build or a layout brought here goes by its id.
fn is_id(name: &str) -> bool {
    name.starts_with("sha256:")
}

impl Resolver for Bases<'_> {
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig> {
        if self.contexts.is_directory(reference) {
            let config = RunConfig { working_dir: "/".into(), ..RunConfig::default() };
            return Ok(ImageConfig { config, ..ImageConfig::default() });
        }
        Ok(match self.get(reference, platform)? {
            Known::Here(base) => base.config.clone(),
            Known::There(found) => found.config.clone(),
        })
    }

    fn time(&self, of: &Dated) -> Result<Option<i64>> {
        match of {
            Dated::Context => Ok(self.options.context_time),
            Dated::Named(name) => self.contexts.time(name),
            Dated::Http(source) => {
                let private = Private::new(&self.engine.root)?;
                self.remote.fetched_time(source, &private, "file", self.job)
            }
            Dated::Git(source) => self.remote.commit_time(source, self.job).map(Some),
        }
    }
}

impl build::Images for Bases<'_> {
    fn image(
        &self,
        reference: &str,
        platform: &Platform,
        imported: Option<&Imported<'_>>,
        job: &Job,
    ) -> Result<Base> {
        let base = match self.get(reference, platform)? {
            Known::There(found) => self.there(&found, imported, job)?,
            Known::Here(base) => Base::clone(&base),
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|stack| stack.chain() != base.stack.chain());
        used.push(base.stack.clone());
        Ok(base)
    }

    fn directory(&self, reference: &str) -> Result<Option<build::Context<'_>>> {
        self.contexts.directory(reference)
    }
}
