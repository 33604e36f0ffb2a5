//! `cache ls`, `cache inspect`, `cache prune`: what builds remember, and what it would free to forget it.

use std::collections::{HashMap, HashSet};

use crate::db::{CacheRecord, Condemned, LayerNumber, LayerRow, Reader, RecordId, Time, Writer};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::verb::image_prune::restore_reserve;

/// A record, and what hangs on it.
#[derive(Clone, Debug)]
pub struct Remembered {
    pub record: CacheRecord,
    pub layer: Option<LayerRow>,
    /// An image has the layer too.
    pub in_images: bool,
    /// Other records with the layer.
    pub shared_with: Vec<RecordId>,
    /// Bytes that removing this record alone makes free.
    pub frees: u64,
}

/// The latest used first.
pub fn list(engine: &Engine) -> Result<Vec<Remembered>> {
    let mut all = engine.db.read(remembered)?;
    all.sort_by_key(|one| std::cmp::Reverse((one.record.last_used_at, one.record.id)));
    Ok(all)
}

/// By number, or by the beginning of its key, six digits at least; `None` where there is none.
pub fn find(engine: &Engine, name: &str) -> Result<Option<Remembered>> {
    let all = list(engine)?;
    if let Some(number) = name.parse().ok().map(RecordId)
        && let Some(one) = all.iter().find(|one| one.record.id == number)
    {
        return Ok(Some(one.clone()));
    }
    let mut fitting =
        all.into_iter().filter(|one| name.len() >= 6 && one.record.key.0.hex().starts_with(name));
    match (fitting.next(), fitting.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => {
            Err(Error::conflict(format!("several cache records have a key that begins with `{name}`"))
                .hint("name one by its number, as `outcrop cache ls` shows it"))
        }
    }
}

fn remembered(index: &Reader<'_>) -> Result<Vec<Remembered>> {
    let records = index.cache_records()?;
    let of_images = index.layers_of_images()?;
    let mut users: HashMap<LayerNumber, Vec<RecordId>> = HashMap::new();
    for record in &records {
        if let Some(layer) = record.layer {
            users.entry(layer).or_default().push(record.id);
        }
    }
    let mut all = Vec::new();
    for record in records {
        let layer = record.layer.map(|number| index.layer(number)).transpose()?.flatten();
        let in_images = record.layer.is_some_and(|layer| of_images.contains(&layer));
        let mut shared_with = record.layer.and_then(|layer| users.get(&layer).cloned()).unwrap_or_default();
        shared_with.retain(|id| *id != record.id);
        let alone = !in_images && shared_with.is_empty();
        let frees = layer.as_ref().filter(|_| alone).map_or(0, |layer| layer.size);
        all.push(Remembered { record, layer, in_images, shared_with, frees });
    }
    Ok(all)
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also records whose layers images have: removing them frees nothing by itself.
    pub all: bool,
    /// Only those not used since.
    pub unused_since: Option<Time>,
    /// Bytes that the cache alone may go on taking: the least recently used records go until it takes no more.
    pub keep_storage: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub records: Vec<RecordId>,
    /// Bytes that become free.
    pub bytes: u64,
}

/// For a disk so full that nothing can be written: the reserve of the store is given up first.
pub fn prune(engine: &Engine, options: &Options) -> Result<Pruned> {
    engine.db.give_up_reserve()?;
    let pruned = engine.db.durable(|index| remove(index, options))?;
    crate::build::trim_lists(engine)?;
    engine.sweep()?;
    restore_reserve(engine);
    Ok(pruned)
}

/// What [`prune`] would do.
pub fn prune_what_if(engine: &Engine, options: &Options) -> Result<Pruned> {
    engine.db.what_if(|index| remove(index, options))
}

fn remove(index: &Writer<'_>, options: &Options) -> Result<Pruned> {
    let records = chosen(remembered(index)?, options);
    for record in &records {
        index.remove_cache_record(*record)?;
    }
    let gone: Condemned = index.condemn_unreferenced()?;
    Ok(Pruned { records, bytes: gone.bytes() })
}

/// Those to go, in the order in which they go: the least recently used first.
fn chosen(mut all: Vec<Remembered>, options: &Options) -> Vec<RecordId> {
    all.sort_by_key(|one| (one.record.last_used_at, one.record.id));
    let mut users: HashMap<LayerNumber, usize> = HashMap::new();
    for layer in all.iter().filter(|one| !one.in_images).filter_map(|one| one.record.layer) {
        *users.entry(layer).or_default() += 1;
    }
    let mut counted = HashSet::new();
    let mut taken: u64 = all
        .iter()
        .filter(|one| !one.in_images && one.record.layer.is_some_and(|layer| counted.insert(layer)))
        .map(|one| one.layer.as_ref().map_or(0, |layer| layer.size))
        .sum();
    let mut going = Vec::new();
    for one in &all {
        let fits = options.unused_since.is_none_or(|since| one.record.last_used_at < since)
            && (options.all || (one.record.layer.is_some() && !one.in_images));
        if !fits || options.keep_storage.is_some_and(|most| taken <= most) {
            continue;
        }
        going.push(one.record.id);
        let (Some(layer), false) = (one.record.layer, one.in_images) else { continue };
        let left = users.entry(layer).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            taken = taken.saturating_sub(one.layer.as_ref().map_or(0, |layer| layer.size));
        }
    }
    going
}
