//! `tag`: one more name for an image.

use crate::db::Reader;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Digest, ImageId, Reference};
use crate::verb::images;

/// `source` is a name or an id. A name that pointed elsewhere moves; its log keeps where it was.
pub fn tag(engine: &Engine, source: &str, name: &Reference) -> Result<ImageId> {
    let name = plain(name)?;
    let image = images::resolve(engine, source)?.id;
    let target = engine.db.read(|index| manifest(index, source, &image))?;
    engine.barrier(|durable| durable.move_tag(&name, &image, target.as_ref(), "tag", Some(source)))?;
    engine.sweep()?;
    Ok(image)
}

/// The manifest that the source is known by: the new name is for the same.
fn manifest(index: &Reader<'_>, source: &str, image: &ImageId) -> Result<Option<Digest>> {
    let Ok(name) = source.parse::<Reference>() else { return Ok(None) };
    if let Some(digest) = name.digest() {
        return Ok(index.find_blob(digest)?.map(|row| row.digest));
    }
    Ok(index.tag(&name.to_string())?.filter(|tag| tag.image == *image).and_then(|tag| tag.target))
}

/// The name as the index has it. `Invalid` where it holds a digest: that says what an image is, not what it is called.
pub(super) fn plain(name: &Reference) -> Result<String> {
    match name.digest() {
        None => Ok(name.to_string()),
        Some(_) => Err(Error::invalid(format!("`{}` holds a digest and cannot be a tag", name.familiar()))
            .hint("leave out what stands behind the `@`")),
    }
}
