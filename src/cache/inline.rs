//! A cache inside of an image's config: the records of its own layers. Where their bytes are the image's manifest says.

use std::collections::HashMap;

use super::document::{Document, Layer as Described, Record};
use super::export::Noted;
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{DiffId, ImageConfig, Manifest};
use crate::rootfs::Stack;

/// Among the config's other members.
const MEMBER: &str = "outcrop.cache.v1";

/// The config with what these steps came to, as far as it is in `stack`. `latest`: no time of it is later.
pub fn inline(
    engine: &Engine,
    steps: &[Noted],
    config: &ImageConfig,
    stack: &Stack,
    latest: Option<i64>,
) -> Result<ImageConfig> {
    let layers: Vec<Described> = stack
        .layers()
        .iter()
        .map(|layer| Described {
            diff_id: layer.diff_id,
            content_id: layer.content_id,
            size: layer.size,
            rows: None,
            archive: None,
        })
        .collect();
    let place: HashMap<_, usize> =
        stack.layers().iter().enumerate().map(|(n, layer)| (layer.number, n)).collect();
    let mut records: Vec<Record> = Vec::new();
    for (kind, key) in steps {
        if records.iter().any(|known| known.kind == kind.as_str() && known.key == *key) {
            continue;
        }
        let Some(record) = engine.db.read(|index| index.cached(*kind, key))? else { continue };
        let Some(step) = record.step else { continue };
        let layer = match record.layer.map(|number| place.get(&number)) {
            None => None,
            Some(Some(place)) => Some(*place),
            // Of another stage.
            Some(None) => continue,
        };
        records.push(Record {
            kind: kind.as_str().to_owned(),
            key: record.key,
            key_text: record.key_text,
            step,
            reads: record.reads,
            instruction: record.instruction,
            layer,
            created: record.created,
            made_at: latest.map_or(record.made_at.0, |latest| record.made_at.0.min(latest)),
        });
    }
    let document = serde_json::to_value(Document::new(layers, records)).context(|| "writing a cache")?;
    let mut config = config.clone();
    config.other.insert(MEMBER.into(), document);
    Ok(config)
}

/// What an image's config holds of a cache, with the bytes that its manifest lists; `None`: nothing.
pub(super) fn read(config: &ImageConfig, manifest: &Manifest) -> Result<Option<Document>> {
    let Some(member) = config.other.get(MEMBER) else { return Ok(None) };
    let mut document = Document::parse(member.to_string().as_bytes())?;
    let archives: HashMap<DiffId, _> =
        std::iter::zip(&config.rootfs.diff_ids, &manifest.layers).map(|(id, layer)| (*id, layer)).collect();
    for layer in &mut document.layers {
        layer.archive = archives.get(&layer.diff_id).map(|archive| (*archive).clone());
    }
    Ok(Some(document))
}

/// What stood on a base that an earlier build made does not speak of it.
pub fn forget(config: &mut ImageConfig) {
    config.other.shift_remove(MEMBER);
}
