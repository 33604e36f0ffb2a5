//! Where a cache is read from: a directory or a registry, behind one face.

use std::io::Read as _;
use std::path::Path;

use super::document::{self, Document};
use super::inline;
use super::options::{From, Kind, Origin as Said};
use crate::archive::Layout;
use crate::error::{Context as _, Error, Result};
use crate::image::{self, Descriptor, ImageConfig, MAX_CONFIG, Manifest, Reference};
use crate::job::Job;
use crate::registry::{self, Registry};
use crate::transfer::Source;

pub(super) struct Origin {
    pub(super) source: Box<dyn Source>,
    pub(super) name: Reference,
    /// As it was asked for.
    pub(super) said: String,
    /// The name is one of a registry.
    pub(super) is_registry: bool,
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
            Ok(Origin { source: Box::new(layout(src)?), name, said, is_registry: false })
        }
        Said::Registry(name) => {
            let source = Box::new(Registry::of(name, options)?);
            Ok(Origin { source, name: name.clone(), said, is_registry: true })
        }
    }
}

/// What stands where a cache is to be written.
pub(super) fn of_target(kind: &Kind, options: &registry::Options) -> Result<Origin> {
    let kind = match kind {
        Kind::Local { dest, tag } => Said::Local { src: dest.clone(), tag: tag.clone(), digest: None },
        Kind::Registry(name) => Said::Registry(name.clone()),
        Kind::Inline => return Err(Error::internal("an inline cache stands nowhere")),
    };
    open(&From::of(kind), options)
}

fn layout(dir: &Path) -> Result<Layout> {
    Layout::open(dir)
}

impl Origin {
    /// The index, verified. Of an image with a variant for each platform, what all of them hold.
    pub(super) fn document(&self, job: &Job) -> Result<Document> {
        let (_, raw) = self.source.resolve(job, &self.name)?;
        let manifests = match image::Document::parse(&raw, None)? {
            image::Document::Image(manifest) => vec![*manifest],
            image::Document::Index(list) => list
                .manifests
                .iter()
                .filter(|entry| entry.media_type.is_manifest() && !entry.is_attestation())
                .map(|entry| {
                    let raw = self.source.manifest(job, &self.name, entry)?;
                    entry.verify(&raw)?;
                    Manifest::parse(&raw)
                })
                .collect::<Result<_>>()?,
        };
        let mut found: Option<Document> = None;
        for manifest in &manifests {
            let Some(document) = self.document_of(manifest, job)? else { continue };
            match &mut found {
                Some(found) => found.add(document),
                None => found = Some(document),
            }
        }
        found.ok_or_else(|| self.no_cache())
    }

    fn document_of(&self, manifest: &Manifest, job: &Job) -> Result<Option<Document>> {
        let config = &manifest.config;
        if config.media_type == Document::media_type() {
            return Document::parse(&self.small(config, document::MAX_INDEX, job)?).map(Some);
        }
        if !config.media_type.is_image_config() {
            return Ok(None);
        }
        let config = ImageConfig::parse(&self.small(config, MAX_CONFIG, job)?)?;
        inline::read(&config, manifest)
    }

    fn no_cache(&self) -> Error {
        Error::invalid(format!("`{}` is, and holds, no cache that outcrop wrote", self.said))
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
