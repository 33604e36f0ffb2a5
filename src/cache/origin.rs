//! Where a cache is read from: a directory or a registry, behind one face.

use std::io::Read as _;
use std::path::Path;

use super::document::{self, Document};
use super::options::{From, Origin as Said};
use crate::archive::Layout;
use crate::error::{Context as _, Error, Result};
use crate::image::{self, Descriptor, Manifest, Reference};
use crate::job::Job;
use crate::registry::{self, Registry};
use crate::transfer::Source;

pub(super) struct Origin {
    pub(super) source: Box<dyn Source>,
    pub(super) name: Reference,
    /// As it was asked for.
    pub(super) said: String,
}

/// `NotFound` where there is no cache yet.
pub(super) fn open(from: &From, options: &registry::Options) -> Result<Origin> {
    let said = from.describe().to_owned();
    match &from.kind {
        Said::Local { src, tag, digest } => {
            let selector = match digest {
                Some(digest) => format!("@{digest}"),
                None => format!(":{tag}"),
            };
            let name = format!("localhost/cache{selector}").parse()?;
            Ok(Origin { source: Box::new(layout(src)?), name, said })
        }
        Said::Registry(name) => {
            Ok(Origin { source: Box::new(Registry::of(name, options)?), name: name.clone(), said })
        }
    }
}

fn layout(dir: &Path) -> Result<Layout> {
    Layout::open(dir)
}

impl Origin {
    /// The index, verified.
    pub(super) fn document(&self, job: &Job) -> Result<Document> {
        let (_, raw) = self.source.resolve(job, &self.name)?;
        let image::Document::Image(manifest) = image::Document::parse(&raw, None)? else {
            return Err(self.no_cache());
        };
        let Manifest { config, .. } = *manifest;
        if config.media_type != Document::media_type() {
            return Err(self.no_cache());
        }
        Document::parse(&self.small(&config, document::MAX_INDEX, job)?)
    }

    fn no_cache(&self) -> Error {
        Error::invalid(format!("`{}` is no cache that outcrop wrote", self.said))
    }

    /// A blob in memory, verified.
    pub(super) fn small(&self, wanted: &Descriptor, most: u64, job: &Job) -> Result<Vec<u8>> {
        if wanted.size > most {
            return Err(Error::invalid(format!("{} has {} bytes", wanted.digest, wanted.size)));
        }
        let mut raw = Vec::new();
        self.source
            .blob(job, &self.name, wanted, 0)?
            .take(most + 1)
            .read_to_end(&mut raw)
            .context(|| format!("reading {} from {}", wanted.digest.short(), self.source.place()))?;
        wanted.verify(&raw)?;
        Ok(raw)
    }
}
