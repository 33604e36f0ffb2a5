//! `tag`: one more name for an image.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{ImageId, Reference};
use crate::verb::images;

/// `source` is a name or an id. A name that pointed elsewhere moves; its log keeps where it was.
pub fn tag(engine: &Engine, source: &str, name: &Reference) -> Result<ImageId> {
    let name = plain(name)?;
    let image = images::resolve(engine, source)?.id;
    engine.barrier(|durable| durable.move_tag(&name, &image, None, "tag", Some(source)))?;
    engine.sweep()?;
    Ok(image)
}

/// The name as the index has it. `Invalid` where it holds a digest: that says what an image is, not what it is called.
pub(super) fn plain(name: &Reference) -> Result<String> {
    match name.digest() {
        None => Ok(name.to_string()),
        Some(_) => Err(Error::invalid(format!("`{}` holds a digest and cannot be a tag", name.familiar()))
            .hint("leave out what stands behind the `@`")),
    }
}
