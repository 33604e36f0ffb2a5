//! A copy on its way into a tar: an OCI layout, which with `manifest.json` is a Docker archive, too.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::bytes::Bytes;
use super::parcel::{Document, parsed};
use super::send::{Beside, Receiver};
use crate::archive::{self, DockerImage, LayoutTar};
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Document as Parsed, Reference};
use crate::job::{Job, LayerOutcome, Phase};
use crate::output::Beat;
use crate::transfer::Sink as _;

pub(super) struct ToArchive<'o> {
    tar: Mutex<LayoutTar<&'o mut (dyn Write + Send)>>,
    named: Named,
    beside: Beside,
}

pub(super) enum Named {
    /// What `index.json` calls it.
    Oci(Option<String>),
    Docker(Option<Reference>),
}

impl<'o> ToArchive<'o> {
    pub(super) fn new(out: &'o mut (dyn Write + Send), named: Named) -> Result<Self> {
        Ok(ToArchive { tar: Mutex::new(LayoutTar::new(out)?), named, beside: Beside::default() })
    }
}

impl Receiver for ToArchive<'_> {
    /// It is one stream.
    fn at_once(&self) -> bool {
        false
    }

    fn blob(&self, job: &Job, blob: &Descriptor, bytes: &Bytes<'_>) -> Result<LayerOutcome> {
        let layer = blob.digest.short();
        let beat = Beat::new(job, &layer, Phase::Downloading, Some(blob.size));
        let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        tar.blob(blob, &mut |out| bytes.write_to(out, &|done| beat.tell(done)))?;
        Ok(LayerOutcome::Copied)
    }

    fn document(&self, _: &Job, document: &Document) -> Result<()> {
        let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        tar.blob(&document.descriptor, &mut |out| {
            out.write_all(&document.raw).context(|| "writing a manifest")
        })
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
        let (entry, docker) = match self.named {
            Named::Oci(None) => (top.descriptor.clone(), Vec::new()),
            Named::Oci(Some(name)) => (archive::tagged(top.descriptor.clone(), &name), Vec::new()),
            Named::Docker(name) => {
                let Parsed::Image(manifest) = parsed(top)? else {
                    return Err(Error::internal("an index goes into a Docker archive"));
                };
                let entry = match &name {
                    Some(name) => archive::named(top.descriptor.clone(), name),
                    None => top.descriptor.clone(),
                };
                let image = DockerImage {
                    config: manifest.config.digest,
                    names: name.into_iter().collect(),
                    layers: manifest.layers.iter().map(|layer| layer.digest).collect(),
                };
                (entry, vec![image])
            }
        };
        let list = self.beside.behind(entry);
        self.tar.into_inner().unwrap_or_else(PoisonError::into_inner).finish(list, &docker).map(drop)
    }
}
