//! Where a cache goes: blobs first, then the manifest, under its name.

use std::fs::File;
use std::io::Read;

use super::document;
use super::options::Kind;
use crate::archive::{LayoutDir, REF_NAME};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{Descriptor, MediaType, Reference};
use crate::job::Job;
use crate::registry::{Options, Outgoing, Registry};
use crate::sys::part::Part;
use crate::transfer::{Fill, Sink as _};

pub(super) enum Target<'t> {
    Local { layout: LayoutDir, tag: String },
    Registry { registry: Box<Registry>, name: Reference, engine: &'t Engine, job: &'t Job },
}

impl<'t> Target<'t> {
    /// `None`: it goes elsewhere.
    pub(super) fn open(
        engine: &'t Engine,
        kind: &Kind,
        options: &Options,
        job: &'t Job,
    ) -> Result<Option<Self>> {
        Ok(match kind {
            Kind::Local { dest, tag } => {
                Some(Target::Local { layout: LayoutDir::open(dest)?, tag: tag.clone() })
            }
            Kind::Registry(name) => {
                let registry = Box::new(Registry::of(name, options)?);
                Some(Target::Registry { registry, name: name.clone(), engine, job })
            }
            Kind::Inline => None,
        })
    }

    pub(super) fn has(&self, blob: &Descriptor) -> Result<bool> {
        match self {
            Target::Local { layout, .. } => Ok(layout.has(blob)),
            Target::Registry { registry, name, job, .. } => registry.has_blob(job, name, &blob.digest),
        }
    }

    /// A blob that `fill` writes.
    pub(super) fn blob(&mut self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        if self.has(blob)? {
            return Ok(());
        }
        match self {
            Target::Local { layout, .. } => layout.blob(blob, fill),
            Target::Registry { engine, .. } => {
                // An upload may have to begin again anywhere.
                let mut file = engine.unnamed_file()?;
                fill(&mut file)?;
                self.send(blob, &file)
            }
        }
    }

    /// A blob whose bytes are those of a file.
    pub(super) fn file(&mut self, blob: &Descriptor, file: &File) -> Result<()> {
        if self.has(blob)? { Ok(()) } else { self.send(blob, file) }
    }

    fn send(&mut self, blob: &Descriptor, file: &File) -> Result<()> {
        let open = |from: u64| Part::of(file, from, blob.size).context(|| "opening a file again");
        match self {
            Target::Local { layout, .. } => layout.blob(blob, &mut |out| {
                std::io::copy(&mut open(0)?, out).map(drop).context(|| "copying a blob")
            }),
            Target::Registry { registry, name, engine, job } => {
                let open = |from: u64| Ok(Box::new(open(from)?) as Box<dyn Read + Send>);
                let seen_in = engine.db.read(|index| index.blob_seen_in(&blob.digest, name.host()))?;
                let outgoing = Outgoing::new(blob, &seen_in, &open);
                registry.push_blob(job, name, &outgoing)?;
                engine.db.write(|index| index.blob_seen(&blob.digest, name.host(), name.path()))
            }
        }
    }

    pub(super) fn put(&mut self, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        self.blob(blob, &mut |out| out.write_all(bytes).context(|| "writing a document of a cache"))
    }

    /// The manifest, whose blobs are there.
    pub(super) fn finish(mut self, manifest: &[u8]) -> Result<()> {
        let mut entry = Descriptor::of(MediaType::OciManifest, manifest);
        if matches!(self, Target::Local { .. }) {
            self.put(&entry, manifest)?;
        }
        match self {
            Target::Local { layout, tag } => {
                entry.artifact_type = Some(document::CONFIG.into());
                entry.annotations.insert(REF_NAME.into(), tag);
                layout.finish(vec![entry])
            }
            Target::Registry { registry, name, job, .. } => {
                registry.push_manifest(job, &name, &name.selector(), &entry, manifest).map(drop)
            }
        }
    }
}
