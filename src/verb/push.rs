//! `push`: images to a registry, by their names here.
//!
//! An image that came with a manifest goes with it, byte for byte: its digest is the same wherever it is. One that was built
//! here gets its manifest now, the same one every time.

use crate::db::{Origin, TagRow};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Compression, Descriptor, Index, MAX_CONFIG, Manifest, MediaType, Reference};
use crate::job::{Event, Job};
use crate::output::{Form, Piece, Target};
use crate::registry::{self, Registry};
use crate::verb::kept::{self, Part, Shipment};

#[derive(Clone, Debug)]
pub struct Options {
    pub registry: registry::Options,
    /// Of all layers; `None`: as they are, and gzip for what is not compressed yet.
    pub compression: Option<Compression>,
    /// As the library counts; `None`: ours.
    pub level: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Pushed {
    pub name: Reference,
    /// The manifest, or the index.
    pub descriptor: Descriptor,
}

/// The image of this name, to the registry that the name says.
pub fn push(engine: &Engine, name: &Reference, options: &Options, job: &Job) -> Result<Pushed> {
    refuse_digest(name)?;
    let tag = engine.db.read(|index| index.tag(&name.to_string()))?;
    let tag = tag.ok_or_else(|| {
        Error::not_found(format!("An image does not exist locally with the tag: {}", name.familiar()))
            .hint("`outcrop images` lists what is here; `outcrop tag` gives an image a name to push it under")
    })?;
    let pushed = push_each(engine, name, &[tag], options, job)?;
    Ok(pushed.into_iter().next().expect("there is one for each tag"))
}

/// All tags of a repository.
pub fn push_all(
    engine: &Engine,
    repository: &Reference,
    options: &Options,
    job: &Job,
) -> Result<Vec<Pushed>> {
    refuse_digest(repository)?;
    let of_repository =
        |tag: &TagRow| tag.name.parse::<Reference>().is_ok_and(|name| name.name() == repository.name());
    let mut tags = engine.db.read(|index| index.tags())?;
    tags.retain(of_repository);
    if tags.is_empty() {
        return Err(Error::not_found(format!(
            "An image does not exist locally with the name: {}",
            repository.familiar_name()
        )));
    }
    push_each(engine, repository, &tags, options, job)
}

fn refuse_digest(name: &Reference) -> Result<()> {
    match name.digest() {
        None => Ok(()),
        Some(_) => {
            Err(Error::invalid(format!("`{}` holds a digest: nothing can be pushed to it", name.familiar()))
                .hint("push a tag; the manifest that it has gets its digest there by itself"))
        }
    }
}

fn push_each(
    engine: &Engine,
    repository: &Reference,
    tags: &[TagRow],
    options: &Options,
    job: &Job,
) -> Result<Vec<Pushed>> {
    let registry = Registry::of(repository, &options.registry)?;
    job.report(Event::Pushing { repository: repository.name() });
    let mut pushed = Vec::new();
    for tag in tags {
        let name: Reference = tag.name.parse()?;
        let target = Target {
            engine,
            registry: &registry,
            options: &options.registry,
            name: &name,
            elsewhere: None,
            job,
        };
        let descriptor = engine.sweep_after(push_one(&target, tag, options))?;
        job.report(Event::Pushed {
            tag: name.tag().unwrap_or_default().to_owned(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
        });
        pushed.push(Pushed { name, descriptor });
    }
    Ok(pushed)
}

fn push_one(target: &Target<'_>, tag: &TagRow, options: &Options) -> Result<Descriptor> {
    let mut shipment = load(target, tag)?;
    let mut sent = Vec::new();
    for part in &mut shipment.parts {
        sent.push(push_part(target, part, options)?);
    }
    let (top, raw) = match shipment.index {
        None => {
            let part = shipment.parts.into_iter().next().expect("an image without an index is one");
            (sent.remove(0), part.raw.expect("it was just pushed"))
        }
        Some((index, raw)) => {
            for (part, manifest) in std::iter::zip(&shipment.parts, &sent) {
                let raw = part.raw.as_ref().expect("it was just pushed");
                target.manifest(&manifest.digest.to_string(), manifest, raw)?;
            }
            renewed(index, raw, &shipment.parts, &sent)
        }
    };
    let selector = target.name.tag().unwrap_or_default();
    target.manifest(selector, &top, &raw)?;
    keep(target, tag, &top, &raw, &sent)?;
    Ok(top)
}

/// Layers and config; the manifest is what is left to send.
fn push_part(target: &Target<'_>, part: &mut Part, options: &Options) -> Result<Descriptor> {
    let form = form(part, options.compression, options.level);
    let exact = form.is_none();
    let plain = Form::plain(is_oci(&part.manifest));
    let pieces: Vec<Piece<'_>> = (0..part.stack.layers().len())
        .map(|n| Piece { stack: &part.stack, n, exactly: part.manifest.layers.get(n).filter(|_| exact) })
        .collect();
    let layers = target.layers(&pieces, form.as_ref().unwrap_or(&plain))?;
    let config = target.engine.blobs.read_all(part.image.id.digest(), MAX_CONFIG)?;
    if let Some(form) = form {
        part.manifest.layers = layers;
        part.manifest.config.media_type = form.config();
        part.manifest.media_type = Some(form.manifest());
        part.raw = Some(part.manifest.to_bytes());
    }
    target.bytes(&part.manifest.config, &config)?;
    let raw = part.raw.as_ref().expect("made above, or as it came");
    let descriptor = Descriptor::of(part.manifest.media_type(), raw);
    let engine = target.engine;
    engine.blobs.put(raw, Some(&descriptor.media_type.to_string()))?;
    engine.db.write(|index| {
        index.link_blob(&descriptor.digest, part.image.id.digest())?;
        for layer in &part.manifest.layers {
            index.link_blob(&descriptor.digest, &layer.digest)?;
        }
        Ok(())
    })?;
    Ok(descriptor)
}

/// How the layers are to be; `None`: as the manifest has them.
pub(super) fn form(part: &Part, wanted: Option<Compression>, level: Option<u32>) -> Option<Form> {
    let compressions = || part.manifest.layers.iter().map(|layer| layer.media_type.compression());
    let made = part.raw.is_none();
    // The store's own manifests name plain archives, which nobody wants to move.
    let own = !matches!(part.image.origin, Origin::Pulled | Origin::Loaded)
        && compressions().any(|one| one == Some(Compression::None));
    let asked = match wanted {
        Some(wanted) => level.is_some() || compressions().any(|one| one != Some(wanted)),
        None => false,
    };
    if !made && !own && !asked {
        return None;
    }
    let compression = wanted.unwrap_or(Compression::Gzip);
    Some(Form {
        compression,
        level,
        force: wanted.is_some(),
        oci: compression == Compression::Zstd || is_oci(&part.manifest),
    })
}

fn is_oci(manifest: &Manifest) -> bool {
    manifest.media_type() == MediaType::OciManifest
}

/// The index with its manifests as they are now.
pub(super) fn renewed(
    mut index: Index,
    raw: Vec<u8>,
    parts: &[Part],
    sent: &[Descriptor],
) -> (Descriptor, Vec<u8>) {
    let mut changed = false;
    for entry in &mut index.manifests {
        let part = std::iter::zip(parts, sent).find(|(part, _)| part.known_as == Some(entry.digest));
        if let Some((_, now)) = part.filter(|(_, now)| now.digest != entry.digest) {
            (entry.media_type, entry.digest, entry.size) = (now.media_type.clone(), now.digest, now.size);
            changed = true;
        }
    }
    if changed && sent.iter().any(|manifest| manifest.media_type == MediaType::OciManifest) {
        index.media_type = Some(MediaType::OciIndex);
    }
    let raw = if changed { index.to_bytes() } else { raw };
    (Descriptor::of(index.media_type(), &raw), raw)
}

/// What is there is known here by its digest, and kept while the image is.
fn keep(
    target: &Target<'_>,
    tag: &TagRow,
    top: &Descriptor,
    raw: &[u8],
    manifests: &[Descriptor],
) -> Result<()> {
    let engine = target.engine;
    engine.blobs.put(raw, Some(&top.media_type.to_string()))?;
    engine.barrier(|durable| {
        for manifest in manifests.iter().filter(|manifest| manifest.digest != top.digest) {
            durable.link_blob(&top.digest, &manifest.digest)?;
        }
        durable.add_repo_digest(&target.name.name(), &top.digest, &tag.image)
    })
}

/// An index goes whole or not at all: where images of it are not here and not there either, the one that is goes alone.
fn load(target: &Target<'_>, tag: &TagRow) -> Result<Shipment> {
    let mut shipment = kept::load(target.engine, &tag.image, tag.target)?;
    if shipment.missing.is_empty() {
        return Ok(shipment);
    }
    let own = Shipment::own(shipment.parts, &tag.image, target.engine)?;
    for digest in &shipment.missing {
        if !target.registry.has_manifest(target.job, target.name, digest)? {
            target.job.report(Event::Note(format!(
                "`{}` is the image for {} of an index; the others are not here, so it is pushed alone",
                target.name.familiar(),
                own.image.platform
            )));
            shipment.index = None;
            break;
        }
    }
    shipment.parts = vec![own];
    Ok(shipment)
}
