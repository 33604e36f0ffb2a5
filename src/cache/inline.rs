//! A cache inside of an image's config: the records of its own layers. Where their bytes are the image's manifest says.

use std::collections::HashMap;

use super::document::{Document, Layer as Described, Record};
use crate::db::KeyKind;
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{CacheKey, ChainId, DiffId, ImageConfig, Manifest};
use crate::rootfs::Stack;

/// Among the config's other members.
const MEMBER: &str = "outcrop.cache.v1";

/// The config with what these steps came to, as far as it is in `stack`. `latest`: no time of it is later.
pub fn inline(
    engine: &Engine,
    steps: &[CacheKey],
    config: &ImageConfig,
    stack: &Stack,
    latest: Option<i64>,
) -> Result<ImageConfig> {
    let mut layers: Vec<Described> = Vec::new();
    let mut below: Option<ChainId> = None;
    for layer in stack.layers() {
        let leans = engine.db.read(|index| index.layer(layer.number))?.is_some_and(|row| row.leans);
        layers.push(Described {
            diff_id: layer.diff_id,
            content_id: layer.content_id,
            leans,
            on: below.filter(|_| leans),
            size: layer.size,
            rows: None,
            archive: None,
        });
        below = Some(ChainId::on(below.as_ref(), &layer.diff_id));
    }
    let place: HashMap<_, usize> =
        stack.layers().iter().enumerate().map(|(n, layer)| (layer.number, n)).collect();
    let mut records: Vec<Record> = Vec::new();
    for key in steps {
        let Some(record) = engine.db.read(|index| index.cached(KeyKind::Chain, key))? else { continue };
        let layer = match record.layer.map(|number| place.get(&number)) {
            None => None,
            Some(Some(place)) => Some(*place),
            // Of another stage.
            Some(None) => continue,
        };
        records.extend(Record::of(record, layer).map(|record| Record {
            made_at: latest.map_or(record.made_at, |latest| record.made_at.min(latest)),
            ..record
        }));
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
