//! A copy on its way into a directory: an OCI layout, which may hold others already, or a plain one.

use super::bytes::Bytes;
use super::parcel::Document;
use super::send::{Beside, Receiver};
use crate::archive::{self, LayoutDir, NewFlatDir};
use crate::error::{Context as _, Result};
use crate::image::{Descriptor, Digest};
use crate::job::{Job, LayerOutcome, Phase};
use crate::output::Beat;

pub(super) struct ToLayout {
    pub(super) layout: LayoutDir,
    /// What `index.json` calls it.
    pub(super) name: Option<String>,
    pub(super) beside: Beside,
}

impl Receiver for ToLayout {
    fn blob(&self, job: &Job, blob: &Descriptor, bytes: &Bytes<'_>) -> Result<LayerOutcome> {
        if self.layout.holds(blob)? {
            return Ok(LayerOutcome::AlreadyExists);
        }
        let layer = blob.digest.short();
        let beat = Beat::new(job, &layer, Phase::Downloading, Some(blob.size));
        self.layout.put(blob, &mut |out| bytes.write_to(out, &|done| beat.tell(done)))?;
        Ok(LayerOutcome::Copied)
    }

    fn document(&self, _: &Job, document: &Document) -> Result<()> {
        let write =
            &mut |out: &mut dyn std::io::Write| out.write_all(&document.raw).context(|| "writing a manifest");
        self.layout.put(&document.descriptor, write)
    }

    fn referrer(&self, job: &Job, document: &Document, _: &Digest, entry: &Descriptor) -> Result<()> {
        self.document(job, document)?;
        self.beside.add(entry.clone());
        Ok(())
    }

    fn tagged(&self, job: &Job, document: &Document, tag: &str) -> Result<()> {
        self.document(job, document)?;
        self.beside.add(archive::tagged(document.descriptor.clone(), tag));
        Ok(())
    }

    fn finish(self: Box<Self>, job: &Job, top: &Document) -> Result<()> {
        self.document(job, top)?;
        let entry = top.descriptor.clone();
        let entry = match &self.name {
            Some(name) => archive::tagged(entry, name),
            None => entry,
        };
        self.layout.finish(self.beside.behind(entry))
    }
}

pub(super) struct ToFlat {
    pub(super) dir: NewFlatDir,
}

impl Receiver for ToFlat {
    fn blob(&self, job: &Job, blob: &Descriptor, bytes: &Bytes<'_>) -> Result<LayerOutcome> {
        let layer = blob.digest.short();
        let beat = Beat::new(job, &layer, Phase::Downloading, Some(blob.size));
        self.dir.put(blob, &mut |out| bytes.write_to(out, &|done| beat.tell(done)))?;
        Ok(LayerOutcome::Copied)
    }

    fn document(&self, _: &Job, document: &Document) -> Result<()> {
        self.dir.document(&document.descriptor, &document.raw)
    }

    fn referrer(&self, job: &Job, document: &Document, _: &Digest, _: &Descriptor) -> Result<()> {
        self.document(job, document)
    }

    fn tagged(&self, job: &Job, document: &Document, _: &str) -> Result<()> {
        self.document(job, document)
    }

    fn finish(self: Box<Self>, _: &Job, top: &Document) -> Result<()> {
        self.dir.finish(&top.raw)
    }
}
