//! The image of a name for another platform, by way of the index that the name points at.

use crate::db::ImageRow;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{Document, ImageId, MAX_MANIFEST, Manifest, Platform, Reference};

pub(super) enum Variant {
    Here(ImageRow),
    /// The index knows it, and it was never brought here: its name by digest.
    Elsewhere(Reference),
}

/// `None`: the name points at no index, or at one without this platform.
pub(super) fn of(engine: &Engine, name: &Reference, platform: &Platform) -> Result<Option<Variant>> {
    let tag = engine.db.read(|index| index.tag(&name.to_string()))?;
    let Some(target) = tag.and_then(|tag| tag.target) else { return Ok(None) };
    if !engine.blobs.contains(&target)? {
        return Ok(None);
    }
    let raw = engine.blobs.read_all(&target, MAX_MANIFEST)?;
    let Document::Index(list) = Document::parse(&raw, None)? else { return Ok(None) };
    let Ok(entry) = list.select(platform) else { return Ok(None) };
    if engine.blobs.contains(&entry.digest)? {
        let manifest = Manifest::parse(&engine.blobs.read_all(&entry.digest, MAX_MANIFEST)?)?;
        let image = engine.db.read(|index| index.image(&ImageId(manifest.config.digest)))?;
        if let Some(row) = image {
            return Ok(Some(Variant::Here(row)));
        }
    }
    Ok(Some(Variant::Elsewhere(format!("{}@{}", name.name(), entry.digest).parse()?)))
}

/// Whether the image is for this platform, as far as it says.
pub(super) fn fits(row: &ImageRow, platform: &Platform) -> bool {
    row.platform.parse::<Platform>().is_ok_and(|own| own.normal() == platform.normal())
}
