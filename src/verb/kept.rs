//! What an image is known by: the manifest that it came with, or a new one; the index, and which of its images are here.

use super::images;
use crate::db::{ImageRow, Origin};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{
    Descriptor, Digest, Document, ImageId, Index, MAX_CONFIG, MAX_MANIFEST, Manifest, MediaType, Reference,
};
use crate::rootfs::Stack;

/// One image of what a name leads to.
pub(super) struct Part {
    pub(super) image: ImageRow,
    pub(super) stack: Stack,
    pub(super) manifest: Manifest,
    /// As it came; `None`: it is to be made, and has no layers yet.
    pub(super) raw: Option<Vec<u8>>,
    /// What an index calls it.
    pub(super) known_as: Option<Digest>,
}

/// What a name leads to.
pub(super) struct Shipment {
    /// The image that the name means here.
    pub(super) image: ImageId,
    pub(super) index: Option<(Index, Vec<u8>)>,
    /// Those that are here; without an index one.
    pub(super) parts: Vec<Part>,
    /// Manifests of the index whose images are not here.
    pub(super) missing: Vec<Digest>,
}

impl Shipment {
    /// The one that the name means here, alone.
    pub(super) fn own(parts: Vec<Part>, image: &ImageId, engine: &Engine) -> Result<Part> {
        match parts.into_iter().find(|part| part.image.id == *image) {
            Some(own) => Ok(own),
            None => made(engine, image),
        }
    }
}

/// An image by the text that named it: with the manifest of its tag, and the tag, if the text is one.
pub(super) fn named(engine: &Engine, image: &ImageId, text: &str) -> Result<(Option<Reference>, Shipment)> {
    let name = text.parse::<Reference>().ok().filter(|name| name.digest().is_none());
    let tag = match &name {
        Some(name) => engine.db.read(|index| index.tag(&name.to_string()))?,
        None => None,
    };
    let tag = tag.filter(|tag| tag.image == *image);
    let name = name.filter(|_| tag.is_some());
    Ok((name, load(engine, image, tag.and_then(|tag| tag.target))?))
}

/// `target`: the manifest or index of the name.
pub(super) fn load(engine: &Engine, image: &ImageId, target: Option<Digest>) -> Result<Shipment> {
    let kept = match target {
        Some(digest) => document(engine, &digest)?,
        None => came_as(engine, image)?,
    };
    let (mut parts, mut missing, mut index) = (Vec::new(), Vec::new(), None);
    match kept {
        Some((Document::Image(manifest), raw)) => parts.extend(part(engine, *manifest, raw)?),
        Some((Document::Index(list), raw)) => {
            for entry in &list.manifests {
                let here = match document(engine, &entry.digest)? {
                    Some((Document::Image(manifest), raw)) => part(engine, *manifest, raw)?,
                    Some((Document::Index(_), _)) | None => None,
                };
                match here {
                    Some(part) => parts.push(part),
                    None => missing.push(entry.digest),
                }
            }
            index = Some((*list, raw));
        }
        None => {}
    }
    if index.is_none() {
        parts = vec![Shipment::own(parts, image, engine)?];
    }
    Ok(Shipment { image: *image, index, parts, missing })
}

/// What a pulled image is known by elsewhere, where its name here was given by its id.
fn came_as(engine: &Engine, image: &ImageId) -> Result<Option<(Document, Vec<u8>)>> {
    if !matches!(images::row(engine, image)?.origin, Origin::Pulled | Origin::Loaded) {
        return Ok(None);
    }
    for known in engine.db.read(|index| index.repo_digests_of(image))? {
        if let Some(found) = document(engine, &known.digest)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn document(engine: &Engine, digest: &Digest) -> Result<Option<(Document, Vec<u8>)>> {
    if !engine.blobs.contains(digest)? {
        return Ok(None);
    }
    let raw = engine.blobs.read_all(digest, MAX_MANIFEST)?;
    let document = Document::parse(&raw, None).context(|| format!("reading the manifest {digest}"))?;
    Ok(Some((document, raw)))
}

/// Of a manifest; `None` where its image is not here.
pub(super) fn part(engine: &Engine, manifest: Manifest, raw: Vec<u8>) -> Result<Option<Part>> {
    let id = ImageId(manifest.config.digest);
    let image = engine.db.read(|index| index.image(&id))?.filter(|image| !image.condemned);
    let Some(image) = image else { return Ok(None) };
    let stack = Stack::load(engine, image.chain.as_ref())?;
    let fits = stack.layers().len() == manifest.layers.len();
    let known_as = Some(Digest::of(&raw));
    Ok(fits.then_some(Part { image, stack, manifest, raw: Some(raw), known_as }))
}

/// Of an image that has no manifest yet.
fn made(engine: &Engine, id: &ImageId) -> Result<Part> {
    let image = images::row(engine, id)?;
    let stack = Stack::load(engine, image.chain.as_ref())?;
    let config = engine.blobs.read_all(id.digest(), MAX_CONFIG)?;
    let manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, &config), Vec::new());
    Ok(Part { image, stack, manifest, raw: None, known_as: None })
}
