//! Into the store: the image, or of an index each of its images.

use crate::db::Origin;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Document, Index, MAX_MANIFEST, Platform, Reference};
use crate::job::Job;
use crate::transfer::{self, Source};
use crate::verb::pull;

pub(super) struct Taken<'t> {
    pub(super) source: &'t dyn Source,
    pub(super) name: &'t Reference,
    pub(super) origin: Origin,
    /// The manifest is the source's own, not made for the reading.
    pub(super) own: bool,
}

/// `all`: of an index all images; the name here means the one for `platform` all the same.
pub(super) fn take(
    engine: &Engine,
    taken: &Taken<'_>,
    to: &Reference,
    all: bool,
    platform: &Platform,
    job: &Job,
) -> Result<Descriptor> {
    if to.digest().is_some() {
        return Err(Error::invalid(format!(
            "`{}` holds a digest: nothing can be copied to it",
            to.familiar()
        ))
        .hint("name a tag; the digest comes with what is copied"));
    }
    engine.sweep_after(take_each(engine, taken, to, all, platform, job))
}

fn take_each(
    engine: &Engine,
    taken: &Taken<'_>,
    to: &Reference,
    all: bool,
    platform: &Platform,
    job: &Job,
) -> Result<Descriptor> {
    let Taken { source, name, origin, own } = *taken;
    let found = transfer::find(job, source, name, platform)?;
    if let (Some((top, raw)), true) = (&found.index, all) {
        engine.blobs.put(raw, Some(&top.media_type.to_string()))?;
        others(engine, taken, top, &Index::parse(raw)?, &found.manifest_descriptor, job)?;
    }
    pull::take(engine, source, &found, std::slice::from_ref(to), origin, own, job)?;
    Ok(match (&found.index, own) {
        (Some((index, _)), true) => index.clone(),
        _ => found.manifest_descriptor,
    })
}

/// What is no image, as attestations are not, is passed over.
fn others(
    engine: &Engine,
    taken: &Taken<'_>,
    top: &Descriptor,
    index: &Index,
    chosen: &Descriptor,
    job: &Job,
) -> Result<()> {
    let Taken { source, name, origin, own } = *taken;
    for entry in index.manifests.iter().filter(|entry| entry.digest != chosen.digest) {
        let is_image = !entry.is_attestation() && entry.size <= MAX_MANIFEST;
        let raw = match is_image {
            true => source.manifest(job, name, entry)?,
            false => Vec::new(),
        };
        let is_image = match Document::parse(&raw, Some(&entry.media_type)) {
            Ok(Document::Image(manifest)) => is_image && manifest.check_runnable().is_ok(),
            Ok(Document::Index(_)) | Err(_) => false,
        };
        if !is_image {
            job.warn(format!("{} in the index is no image, and is not copied", entry.digest.short()));
            continue;
        }
        let its = entry.platform.as_ref().map_or_else(Platform::host, |of| of.platform());
        let found = transfer::find(job, source, &name.clone().with_digest(entry.digest), &its)?;
        pull::take(engine, source, &found, &[], origin, own, job)?;
        engine.db.write(|index| index.link_blob(&top.digest, &entry.digest))?;
    }
    Ok(())
}
