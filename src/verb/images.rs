//! From what a person writes to an image: a name, a name with a digest, an id or the beginning of one.

use crate::db::ImageRow;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{ImageConfig, ImageId, MAX_CONFIG, Reference};

/// The image that `text` names here. `NotFound` when there is none, `Invalid` when the beginning of an id fits several.
pub fn resolve(engine: &Engine, text: &str) -> Result<ImageRow> {
    find(engine, text)?.ok_or_else(|| Error::not_found(format!("No such image: {text}")))
}

/// `None` when there is none.
pub fn find(engine: &Engine, text: &str) -> Result<Option<ImageRow>> {
    engine.db.read(|index| {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(name) = text.parse::<Reference>() {
            let tagged = match (name.tag(), name.digest()) {
                (_, Some(digest)) => index.images_of_digest(&name.name(), digest)?.first().copied(),
                (Some(_), None) => index.tag(&name.to_string())?.map(|tag| tag.image),
                (None, None) => None,
            };
            if let Some(id) = tagged {
                return index.image(&id);
            }
        }
        let is_hex =
            !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Ok(None);
        }
        let mut found = index.images_by_prefix(hex)?;
        if found.len() > 1 {
            return Err(Error::invalid(format!("`{text}` is the beginning of {} image ids", found.len()))
                .hint("write more of its digits"));
        }
        Ok(found.pop())
    })
}

/// The config of an image that is here, and its bytes.
pub fn config(engine: &Engine, id: &ImageId) -> Result<(ImageConfig, Vec<u8>)> {
    let say = || format!("reading the config of image {}", id.short());
    let bytes = engine.blobs.read_all(id.digest(), MAX_CONFIG).context(say)?;
    Ok((ImageConfig::parse(&bytes).context(say)?, bytes))
}
