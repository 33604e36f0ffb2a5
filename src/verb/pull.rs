//! `pull`: an image from a registry, layer by layer.

use crate::db::{NewImage, Origin, Writer};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Digest, ImageId, Platform, Reference};
use crate::job::{Event, Job};
use crate::registry;
use crate::rootfs::Stack;
use crate::transfer;
use crate::verb::arrive::{Arrivals, is_to_be_had};

#[derive(Clone)]
pub struct Options {
    pub platform: Platform,
    pub registry: registry::Options,
}

#[derive(Clone, Debug)]
pub struct Pulled {
    pub image: ImageId,
    /// Of what the name points at there.
    pub digest: Digest,
    /// It was not here, or the name pointed elsewhere.
    pub fresh: bool,
}

/// What is here is not moved again. The name moves last, when all of it is on disk.
pub fn pull(engine: &Engine, name: &Reference, options: &Options, job: &Job) -> Result<Pulled> {
    let source = registry::source(name, &options.registry)?;
    let tag = name.tag().unwrap_or_default().to_owned();
    job.report(Event::Pulling { name: name.path().to_owned(), tag });
    let found = transfer::find(job, &*source, name, &options.platform)?;
    finish(engine, &*source, &found, job)
}

/// Every tag of the repository, one after the other. One that is no image, or none for the platform, is passed over with
/// a warning.
pub fn pull_all(engine: &Engine, name: &Reference, options: &Options, job: &Job) -> Result<Vec<Pulled>> {
    let source = registry::source(name, &options.registry)?;
    let tags = source.tags(job, name)?;
    let mut pulled = Vec::new();
    for tag in &tags {
        let name = name.clone().with_tag(tag)?;
        match pull(engine, &name, options, job) {
            Ok(one) => pulled.push(one),
            Err(error) if matches!(error.kind(), Kind::Unsupported | Kind::NotFound) => {
                job.warn(format!("`{}` is passed over: {error}", name.familiar()));
            }
            Err(error) => return Err(error).context(|| format!("pulling the tag `{tag}`")),
        }
    }
    match pulled.is_empty() {
        true => Err(Error::not_found(format!(
            "{} has no image for {} under the {} tags of `{}`",
            source.place(),
            options.platform,
            tags.len(),
            name.familiar_name()
        ))),
        false => Ok(pulled),
    }
}

/// The same for what was found at its registry before.
pub(super) fn pull_found(
    engine: &Engine,
    source: &dyn transfer::Source,
    found: &transfer::Found,
    job: &Job,
) -> Result<Pulled> {
    let tag = found.name.tag().unwrap_or_default().to_owned();
    job.report(Event::Pulling { name: found.name.path().to_owned(), tag });
    finish(engine, source, found, job)
}

fn finish(
    engine: &Engine,
    source: &dyn transfer::Source,
    found: &transfer::Found,
    job: &Job,
) -> Result<Pulled> {
    if is_here(engine, &found.image)? {
        for layer in found.layers() {
            job.report(Event::LayerDone { layer: layer.id(), how: crate::job::LayerOutcome::AlreadyExists });
        }
        note_blobs(engine, found)?;
    } else if let Err(error) = bring(engine, source, found, Origin::Pulled, job) {
        return engine.sweep_after(Err(error));
    }
    let fresh = keep(engine, &found.name, found)?;
    engine.sweep()?;
    job.report(Event::Pulled { name: found.name.familiar(), digest: found.digest.to_string(), fresh });
    Ok(Pulled { image: found.image, digest: found.digest, fresh })
}

/// Why an image that something else needs is missing, and where it may come from. `what`: `image`, `base image`.
pub(super) fn not_to_be_had(what: &str, name: &Reference, cause: Error) -> Error {
    let error = Error::new(
        cause.kind(),
        format!("the {what} `{}` is not here and cannot be pulled", name.familiar()),
    );
    let hint = match name.path().strip_prefix("library/") {
        Some(distribution @ ("debian" | "ubuntu")) => {
            let suite = name.tag().filter(|tag| *tag != "latest").unwrap_or("bookworm");
            format!(
                "without a registry `outcrop bootstrap {distribution}:{suite}` makes it from the distribution's packages"
            )
        }
        _ => "`outcrop images` lists what is here; `outcrop import` and `outcrop bootstrap` make base images without a registry".to_owned(),
    };
    error.hint(hint).because(cause)
}

/// An image from elsewhere than its registry: no name moves.
pub(super) fn bring_from(
    engine: &Engine,
    source: &dyn transfer::Source,
    name: &Reference,
    platform: &Platform,
    job: &Job,
) -> Result<ImageId> {
    let found = transfer::find(job, source, name, platform)?;
    if !is_here(engine, &found.image)?
        && let Err(error) = bring(engine, source, &found, Origin::Pulled, job)
    {
        return engine.sweep_after(Err(error));
    }
    engine.barrier(|_| Ok(()))?;
    Ok(found.image)
}

/// All of it, and nothing takes it away.
pub(super) fn is_here(engine: &Engine, image: &ImageId) -> Result<bool> {
    let known = engine.db.read(|index| index.image(image))?;
    Ok(known.is_some_and(|row| row.durable && !row.condemned))
}

/// An image that is here may have come with blobs of another manifest, or with none: those of this one are to be had there. Nothing
/// is written where that is known.
fn note_blobs(engine: &Engine, found: &transfer::Found) -> Result<()> {
    let (host, path) = (found.name.host(), found.name.path());
    let blobs = || found.layers().map(|layer| layer.descriptor).filter(|blob| !blob.media_type.is_foreign());
    let all_known = engine.db.read(|index| {
        for blob in blobs() {
            if !index.blob_seen_in(&blob.digest, host)?.iter().any(|known| known == path) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    match all_known {
        true => Ok(()),
        false => {
            engine.db.write(|index| blobs().try_for_each(|blob| index.blob_seen(&blob.digest, host, path)))
        }
    }
}

/// Whether the blobs of an image that is here are, too, or can be had. A plain archive is made again from its recipe.
fn has_blobs(engine: &Engine, found: &transfer::Found) -> Result<bool> {
    engine.db.read(|index| {
        for layer in found.layers() {
            let is_plain = layer.descriptor.digest == *layer.diff_id.digest();
            if !is_plain && !is_to_be_had(index, &layer)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// An image of an archive, or a copy of a registry's, under these names. `keep`: its manifest is the source's own, and stays.
pub(super) fn take(
    engine: &Engine,
    source: &dyn transfer::Source,
    found: &transfer::Found,
    names: &[Reference],
    origin: Origin,
    keep: bool,
    job: &Job,
) -> Result<()> {
    match (is_here(engine, &found.image)?, origin) {
        (true, Origin::Pulled) => note_blobs(engine, found)?,
        (true, _) if !keep || has_blobs(engine, found)? => {}
        _ => bring(engine, source, found, origin, job)?,
    }
    if keep {
        store_documents(engine, found)?;
    }
    engine.barrier(|durable| {
        if keep {
            link_documents(durable, found)?;
        }
        let verb = match origin {
            Origin::Pulled => {
                durable.add_repo_digest(&found.name.name(), &found.digest, &found.image)?;
                "copy"
            }
            _ => "load",
        };
        let target = Some(&found.digest).filter(|_| keep);
        for name in names {
            match name.digest() {
                None => drop(durable.move_tag(&name.to_string(), &found.image, target, verb, None)?),
                // What it was pulled by, and no tag.
                Some(digest) if Some(digest) == target => {
                    durable.add_repo_digest(&name.name(), digest, &found.image)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    })
}

/// Layers into blobs and unpacked, side by side where they can be; then each its place; then the image.
fn bring(
    engine: &Engine,
    source: &dyn transfer::Source,
    found: &transfer::Found,
    origin: Origin,
    job: &Job,
) -> Result<()> {
    let arrivals = Arrivals::begin(engine, origin, job)?;
    match engine.snapshots.writing_out(|| place_all(engine, source, found, origin, &arrivals, job)) {
        Ok(stack) => publish(engine, found, origin, &stack),
        Err(error) => {
            if let Err(problem) = arrivals.give_up() {
                tracing::warn!("left for later: {problem}");
            }
            Err(error)
        }
    }
}

fn place_all(
    engine: &Engine,
    source: &dyn transfer::Source,
    found: &transfer::Found,
    origin: Origin,
    arrivals: &Arrivals<'_>,
    job: &Job,
) -> Result<Stack> {
    let wants = |layer: &transfer::Layer<'_>| arrivals.wants(layer);
    found.fetch(job, source, wants, |layer, stream| arrivals.receive(layer, stream))?;
    let mut stack = Stack::default();
    for layer in found.layers() {
        job.check()?;
        let placed = arrivals.place(&layer, &stack)?;
        let (blob, form) = (&layer.descriptor.digest, arrivals.form(&layer)?);
        engine.db.write(|index| {
            // What may not be pushed lies where its descriptor says, and at no registry.
            if origin == Origin::Pulled && !layer.descriptor.media_type.is_foreign() {
                index.blob_seen(blob, found.name.host(), found.name.path())?;
            }
            index.arrived(blob)?;
            form.iter().try_for_each(|form| index.insert_blob_layer(form))
        })?;
        stack = stack.with(placed);
    }
    Ok(stack)
}

fn publish(engine: &Engine, found: &transfer::Found, origin: Origin, stack: &Stack) -> Result<()> {
    store(engine, &found.config_raw, "")?;
    engine.db.write(|index| {
        index.insert_image(&NewImage {
            id: found.image,
            parent: None,
            chain: stack.chain().copied(),
            platform: found.config.platform().to_string(),
            created: found.config.created.clone(),
            created_by: found.config.history.last().and_then(|last| last.created_by.clone()),
            origin,
            build: None,
        })
    })?;
    Ok(())
}

/// Manifests, and then the name, once everything is on disk. Whether the name moved.
fn keep(engine: &Engine, name: &Reference, found: &transfer::Found) -> Result<bool> {
    store_documents(engine, found)?;
    engine.barrier(|durable| {
        link_documents(durable, found)?;
        durable.add_repo_digest(&name.name(), &found.digest, &found.image)?;
        // Beside a digest a tag says nothing.
        match name.tag().filter(|_| name.digest().is_none()) {
            Some(tag) => {
                let plain = format!("{}:{tag}", name.name());
                durable.move_tag(&plain, &found.image, Some(&found.digest), "pull", None)
            }
            None => Ok(true),
        }
    })
}

fn store_documents(engine: &Engine, found: &transfer::Found) -> Result<()> {
    store(engine, &found.manifest_raw, &found.manifest_descriptor.media_type.to_string())?;
    match &found.index {
        Some((descriptor, raw)) => store(engine, raw, &descriptor.media_type.to_string()),
        None => Ok(()),
    }
}

/// While one is kept, what it names is.
fn link_documents(index: &Writer<'_>, found: &transfer::Found) -> Result<()> {
    let manifest = found.manifest_descriptor.digest;
    if found.index.is_some() {
        index.link_blob(&found.digest, &manifest)?;
    }
    index.link_blob(&manifest, found.image.digest())?;
    for layer in found.layers() {
        // The digest of a plain archive is its layer's: nothing keeps its bytes.
        if layer.descriptor.digest != *layer.diff_id.digest() {
            index.link_blob(&manifest, &layer.descriptor.digest)?;
        }
    }
    Ok(())
}

fn store(engine: &Engine, bytes: &[u8], media_type: &str) -> Result<()> {
    engine.blobs.put(bytes, Some(media_type).filter(|kind| !kind.is_empty())).map(drop)
}
