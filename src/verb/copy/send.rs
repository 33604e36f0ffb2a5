//! From a source to a receiver: blobs, then what names them, then what refers to it, then the name.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::bytes::Bytes;
use super::parcel::{Blob, Document, Parcel};
use super::referrers::Referrer;
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Reference};
use crate::job::{Event, Job, LayerOutcome};
use crate::transfer::{self, Source};

/// Where a copy goes. What is given twice is kept once; nothing of it has a name before `finish`.
pub(super) trait Receiver: Sync {
    /// Takes several blobs at once.
    fn at_once(&self) -> bool {
        true
    }

    /// Reads the bytes only where it does not have them.
    fn blob(&self, job: &Job, blob: &Descriptor, bytes: &Bytes<'_>) -> Result<LayerOutcome>;

    /// One that has no name there.
    fn document(&self, job: &Job, document: &Document) -> Result<()>;

    /// One that refers to a manifest; `entry`: as lists of referrers show it.
    fn referrer(&self, job: &Job, document: &Document, subject: &Digest, entry: &Descriptor) -> Result<()>;

    /// One that stands under a tag of its own beside the image.
    fn tagged(&self, job: &Job, document: &Document, tag: &str) -> Result<()>;

    /// What was asked for gets its name.
    fn finish(self: Box<Self>, job: &Job, top: &Document) -> Result<()>;

    /// Who may keep us waiting; interrupted when the job is cancelled.
    fn peer(&self) -> Option<&dyn Source> {
        None
    }
}

/// What an `index.json` lists besides the image: what refers to it.
#[derive(Default)]
pub(super) struct Beside(Mutex<Vec<Descriptor>>);

impl Beside {
    pub(super) fn add(&self, entry: Descriptor) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// The whole list, the image first.
    pub(super) fn behind(self, image: Descriptor) -> Vec<Descriptor> {
        let beside = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(image).chain(beside).collect()
    }
}

pub(super) struct From<'f> {
    pub(super) source: &'f dyn Source,
    pub(super) name: &'f Reference,
}

pub(super) fn send(
    job: &Job,
    from: &From<'_>,
    parcel: &Parcel,
    referrers: &[Referrer],
    to: Box<dyn Receiver + '_>,
) -> Result<()> {
    let parcels = std::iter::once(parcel).chain(referrers.iter().map(|referrer| &referrer.parcel));
    let mut seen = BTreeSet::new();
    let blobs: Vec<&Blob> =
        parcels.flat_map(|parcel| &parcel.blobs).filter(|blob| seen.insert(blob.descriptor.digest)).collect();
    send_blobs(job, from, &blobs, &*to)?;
    let (top, below) = parcel.documents.split_last().expect("there is what was asked for");
    for document in below {
        job.check()?;
        to.document(job, document)?;
    }
    if !referrers.is_empty() {
        to.document(job, top)?;
    }
    for Referrer { subject, entry, tag, parcel } in referrers {
        job.check()?;
        let (own, below) = parcel.documents.split_last().expect("a referrer is one");
        below.iter().try_for_each(|document| to.document(job, document))?;
        match tag {
            Some(tag) => to.tagged(job, own, tag)?,
            None => to.referrer(job, own, subject, entry)?,
        }
    }
    to.finish(job, top)
}

fn send_blobs(job: &Job, from: &From<'_>, blobs: &[&Blob], to: &dyn Receiver) -> Result<()> {
    for Blob { descriptor, .. } in blobs.iter().filter(|blob| blob.is_layer) {
        let layer = descriptor.digest.short();
        job.report(Event::LayerStarted { layer, total: Some(descriptor.size) });
    }
    let mut all = job.clone();
    if !to.at_once() {
        all.budget.transfers = 1;
    }
    let stop = AtomicBool::new(false);
    // Stopped with the first that fails; the others may be in the middle of something long.
    let each = job.child();
    let cause: Mutex<Option<Error>> = Mutex::new(None);
    let one = |blob: &&Blob| {
        let Blob { descriptor, is_layer } = blob;
        let bytes = Bytes::of(&each, from.source, from.name, descriptor);
        let done = to.blob(&each, descriptor, &bytes);
        let layer = descriptor.digest.short();
        if *is_layer {
            let how = done.as_ref().map_or(LayerOutcome::Failed, Clone::clone);
            job.report(Event::LayerDone { layer: layer.clone(), how });
        }
        done.map(drop).context(|| format!("copying {layer}")).map_err(|error| {
            // That it was stopped for another's sake is no failure of its own.
            let mut cause = cause.lock().unwrap_or_else(PoisonError::into_inner);
            let stopped = each.cancel().is_set();
            each.cancel().set();
            match stopped {
                true => error,
                false => {
                    *cause = Some(error);
                    Error::cancelled()
                }
            }
        })
    };
    let work = || transfer::side_by_side(&all, blobs, &stop, one);
    let sent = transfer::guarded(job, from.source, || match to.peer() {
        Some(peer) => transfer::guarded(job, peer, work),
        None => work(),
    });
    match (sent, cause.into_inner().unwrap_or_else(PoisonError::into_inner)) {
        (Err(_), Some(cause)) if !job.cancel().is_set() => Err(cause),
        (sent, _) => sent,
    }
}
