//! What is copied: the documents that a name leads to, and the blobs that these name.

use std::collections::BTreeSet;

use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Document as Parsed, MAX_MANIFEST, MediaType, Platform, Reference};
use crate::job::Job;
use crate::transfer::Source;

/// Indexes may hold indexes; nobody nests deeper.
const MAX_DEPTH: usize = 4;

/// A manifest or an index, as it came.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) descriptor: Descriptor,
    pub(super) raw: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) descriptor: Descriptor,
    /// Shown to people.
    pub(super) is_layer: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Parcel {
    /// Children first, each once; the last is what was asked for.
    pub(super) documents: Vec<Document>,
    pub(super) blobs: Vec<Blob>,
}

#[derive(Clone, Copy)]
pub(super) enum Which<'p> {
    /// The index, with all it lists.
    All,
    /// The image for this platform alone.
    One(&'p Platform),
}

impl Parcel {
    pub(super) fn top(&self) -> &Document {
        self.documents.last().expect("there is what was asked for")
    }
}

/// Reads the documents; the blobs are left where they are.
pub(super) fn gather(job: &Job, source: &dyn Source, name: &Reference, which: Which<'_>) -> Result<Parcel> {
    let (descriptor, raw) = source.resolve(job, name)?;
    let mut gathering = Gathering::new(job, source, name);
    let top = match which {
        Which::All => Document { descriptor, raw },
        Which::One(platform) => gathering.select(Document { descriptor, raw }, platform)?,
    };
    gathering.take(top, 0)?;
    Ok(gathering.parcel)
}

/// Of a manifest at the source.
pub(super) fn gather_at(
    job: &Job,
    source: &dyn Source,
    name: &Reference,
    wanted: &Descriptor,
) -> Result<Parcel> {
    let mut gathering = Gathering::new(job, source, name);
    let top = gathering.fetch(wanted)?;
    gathering.take(top, 0)?;
    Ok(gathering.parcel)
}

struct Gathering<'g> {
    job: &'g Job,
    source: &'g dyn Source,
    name: &'g Reference,
    parcel: Parcel,
    seen: BTreeSet<Digest>,
}

impl<'g> Gathering<'g> {
    fn new(job: &'g Job, source: &'g dyn Source, name: &'g Reference) -> Self {
        let parcel = Parcel { documents: Vec::new(), blobs: Vec::new() };
        Gathering { job, source, name, parcel, seen: BTreeSet::new() }
    }

    fn fetch(&self, wanted: &Descriptor) -> Result<Document> {
        self.job.check()?;
        if wanted.size > MAX_MANIFEST {
            return Err(Error::invalid(format!("the manifest {} has {} bytes", wanted.digest, wanted.size)));
        }
        let raw = self.source.manifest(self.job, self.name, wanted)?;
        wanted.verify(&raw)?;
        Ok(Document { descriptor: wanted.clone(), raw })
    }

    fn select(&self, top: Document, platform: &Platform) -> Result<Document> {
        let mut at = top;
        for _ in 0..MAX_DEPTH {
            let list = match parsed(&at)? {
                Parsed::Image(_) => return Ok(at),
                Parsed::Index(list) => list,
            };
            let entry = list.select(platform)?;
            at = self.fetch(&Descriptor::new(entry.media_type.clone(), entry.digest, entry.size))?;
        }
        Err(Error::invalid(format!("indexes nested more than {MAX_DEPTH} deep")))
    }

    fn take(&mut self, mut document: Document, depth: usize) -> Result<()> {
        if !self.seen.insert(document.descriptor.digest) {
            return Ok(());
        }
        let parsed = parsed(&document)?;
        match &parsed {
            Parsed::Image(manifest) => {
                document.descriptor.media_type = manifest.media_type();
                self.blob(&manifest.config, false);
                manifest.layers.iter().for_each(|layer| self.blob(layer, true));
            }
            Parsed::Index(index) => {
                if depth == MAX_DEPTH {
                    return Err(Error::invalid(format!("indexes nested more than {MAX_DEPTH} deep")));
                }
                document.descriptor.media_type = index.media_type();
                if let Some(unread) = index.unread.first() {
                    return Err(unread
                        .refuse()
                        .hint("name a platform to take one of its other images alone"));
                }
                for entry in &index.manifests {
                    if entry.media_type.is_manifest() || entry.media_type.is_index() {
                        let child = self.fetch(entry).context(|| {
                            format!("looking at what the index {} lists", document.descriptor.digest.short())
                        })?;
                        self.take(child, depth + 1)?;
                    } else {
                        self.blob(entry, true);
                    }
                }
            }
        }
        self.parcel.documents.push(document);
        Ok(())
    }

    /// What licences keep from being pushed lies where its descriptor says.
    fn blob(&mut self, blob: &Descriptor, is_layer: bool) {
        let elsewhere = blob.media_type.is_foreign() && !blob.urls.is_empty();
        if !elsewhere && self.seen.insert(blob.digest) {
            self.parcel.blobs.push(Blob { descriptor: blob.clone(), is_layer });
        }
    }
}

pub(super) fn parsed(document: &Document) -> Result<Parsed> {
    let known =
        Some(&document.descriptor.media_type).filter(|kind| **kind != MediaType::Other(String::new()));
    Parsed::parse(&document.raw, known)
        .context(|| format!("reading the manifest {}", document.descriptor.digest))
}
