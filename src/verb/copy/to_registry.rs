//! A copy on its way to a registry: what is there stays, what another repository of it has is mounted.

use super::bytes::Bytes;
use super::parcel::{Document, parsed};
use super::send::Receiver;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Document as Parsed, Reference};
use crate::job::{Job, LayerOutcome, Phase};
use crate::output::Beat;
use crate::registry::{Outgoing, Placed, Registry};
use crate::transfer::Source;

pub(super) struct ToRegistry<'r> {
    pub(super) registry: Registry,
    /// With a tag, without a digest.
    pub(super) name: &'r Reference,
    /// The repository that it comes from, where that is one of the same registry.
    pub(super) beside: Option<String>,
    /// Knows where blobs were seen, and is told.
    pub(super) engine: Option<&'r Engine>,
}

impl Receiver for ToRegistry<'_> {
    fn blob(&self, job: &Job, blob: &Descriptor, bytes: &Bytes<'_>) -> Result<LayerOutcome> {
        let (host, path) = (self.name.host(), self.name.path());
        let mut seen_in: Vec<String> = self.beside.iter().cloned().collect();
        if let Some(engine) = self.engine {
            seen_in.extend(engine.db.read(|index| index.blob_seen_in(&blob.digest, host))?);
        }
        let layer = blob.digest.short();
        let beat = Beat::new(job, &layer, Phase::Uploading, Some(blob.size));
        let progress = |done| beat.tell(done);
        let outgoing = Outgoing { progress: &progress, ..Outgoing::new(blob, &seen_in, bytes) };
        let placed = self.registry.push_blob(job, self.name, &outgoing)?;
        if let Some(engine) = self.engine {
            engine.db.write(|index| index.blob_seen(&blob.digest, host, path))?;
        }
        Ok(match placed {
            Placed::Uploaded => LayerOutcome::Pushed,
            Placed::Exists => LayerOutcome::AlreadyThere,
            Placed::Mounted(from) => LayerOutcome::Mounted(from),
        })
    }

    fn document(&self, job: &Job, document: &Document) -> Result<()> {
        self.put(job, document, &document.descriptor.digest.to_string()).map(drop)
    }

    fn referrer(&self, job: &Job, document: &Document, subject: &Digest, entry: &Descriptor) -> Result<()> {
        let noted = self.put(job, document, &document.descriptor.digest.to_string())?;
        let says_so = match parsed(document)? {
            Parsed::Image(manifest) => manifest.subject,
            Parsed::Index(index) => index.subject,
        };
        // A registry can only list what says itself what it refers to.
        if noted.is_some() && says_so.is_some_and(|says| says.digest == *subject) {
            return Ok(());
        }
        self.registry.tag_referrer(job, self.name, subject, entry)
    }

    fn tagged(&self, job: &Job, document: &Document, tag: &str) -> Result<()> {
        self.put(job, document, tag).map(drop)
    }

    fn finish(self: Box<Self>, job: &Job, top: &Document) -> Result<()> {
        self.put(job, top, &self.name.selector()).map(drop)
    }

    fn peer(&self) -> Option<&dyn Source> {
        Some(&self.registry)
    }
}

impl ToRegistry<'_> {
    fn put(&self, job: &Job, document: &Document, selector: &str) -> Result<Option<Digest>> {
        self.registry.push_manifest(job, self.name, selector, &document.descriptor, &document.raw)
    }
}
