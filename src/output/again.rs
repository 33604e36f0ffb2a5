//! The bytes of a blob that was dropped, fetched again from where it was seen.

use std::sync::{Mutex, PoisonError};

use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::image::{Compression, Descriptor, Digest, LayerId, Reference};
use crate::job::Job;
use crate::registry;
use crate::transfer;

/// The latest place first. False: it was seen nowhere; an error is that of the last place.
pub(crate) fn fetch_again(
    engine: &Engine,
    blob: &Descriptor,
    options: &registry::Options,
    job: &Job,
) -> Result<bool> {
    let mut last = None;
    for (host, repository) in engine.db.read(|index| index.blob_seen_at(&blob.digest))? {
        let name: Reference = format!("{host}/{repository}").parse()?;
        match from(engine, blob, &name, options, job) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => {
                if error.kind() == Kind::NotFound {
                    engine.db.write(|index| index.blob_not_seen(&blob.digest, &host, &repository))?;
                }
                last = Some(error);
            }
        }
    }
    last.map_or(Ok(false), Err)
}

/// The first of these forms of a layer that can be had again; else why the last one that was seen anywhere could not. Plain
/// ones are made, and not fetched.
pub(super) fn first_again(
    engine: &Engine,
    blobs: &[Descriptor],
    options: &registry::Options,
    job: &Job,
) -> Result<Result<Descriptor, Option<Error>>> {
    let mut lost = None;
    let is_plain = |blob: &&Descriptor| blob.media_type.compression() == Some(Compression::None);
    for blob in blobs.iter().filter(|blob| !is_plain(blob)) {
        match fetch_again(engine, blob, options, job) {
            Ok(true) => return Ok(Ok(blob.clone())),
            Ok(false) => {}
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => lost = Some(error),
        }
    }
    Ok(Err(lost))
}

/// That a layer goes as `made`, where the forms that are `known` could not be had again, unless it came out as one of them.
pub(super) fn warn_of_another(
    made: &Digest,
    known: &[Descriptor],
    lost: Option<&Error>,
    layer: &LayerId,
    job: &Job,
) {
    if let Some(lost) = lost.filter(|_| known.iter().all(|known| known.digest != *made)) {
        job.warn(format!(
            "the known form of layer {layer} cannot be fetched again; compressed anew it has another digest: {}",
            lost.one_line()
        ));
    }
}

fn from(
    engine: &Engine,
    blob: &Descriptor,
    name: &Reference,
    options: &registry::Options,
    job: &Job,
) -> Result<()> {
    // What was given is for another registry; of this one the files of the host say how it is spoken to.
    let options = registry::Options { credentials: None, insecure: false, ..options.clone() };
    let source = registry::source(name, &options)?;
    let held = Mutex::new(None);
    transfer::bring(job, &*source, name, std::slice::from_ref(blob), |blob, stream| {
        if let Some(lease) = engine.blobs.bring(blob, stream, job)?.by(stream, &engine.blobs) {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        }
        Ok(())
    })?;
    // The layer, whose form it is, refers to it.
    engine.db.write(|index| index.arrived(&blob.digest))
}

/// Why a blob that is needed as it was cannot be had.
pub(crate) fn is_gone(blob: &Descriptor, cause: Option<Error>) -> Error {
    let error = Error::not_found(format!(
        "the compressed form {} of it is gone, and compressing it again gives other bytes",
        blob.digest.short()
    ))
    .hint("pull the image again; or push with --compression, which makes another manifest");
    match cause {
        Some(cause) => error.because(cause),
        None => error,
    }
}
