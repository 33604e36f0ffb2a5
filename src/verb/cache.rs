//! `cache ls`, `cache inspect`, `cache prune`: what builds remember, and what it would free to forget it.

use std::collections::{HashMap, HashSet};

use crate::db::{CacheRecord, Condemned, LayerNumber, LayerRow, Reader, RecordId, Time, Writer};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::verb::cache_kept::{self, Kept};
use crate::verb::image_prune::restore_reserve;

/// What the build cache holds, by BuildKit's names where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record of a step.
    Regular,
    CacheMount,
    GitCheckout,
    Http,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Regular, Kind::CacheMount, Kind::GitCheckout, Kind::Http];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Regular => "regular",
            Kind::CacheMount => "exec.cachemount",
            Kind::GitCheckout => "source.git.checkout",
            Kind::Http => "source.http",
        }
    }
}

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
    /// Only these; `None` is all, and records alone where nothing else is asked for.
    pub kinds: Option<Vec<Kind>>,
    /// Bytes that the cache alone may go on taking: the least recently used records go until it takes no more.
    pub keep_storage: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub records: Vec<RecordId>,
    /// Of what is no record: names.
    pub kept: Vec<String>,
    /// Bytes that become free.
    pub bytes: u64,
}

/// For a disk so full that nothing can be written: the reserve of the store is given up first.
pub fn prune(engine: &Engine, options: &Options) -> Result<Pruned> {
    engine.db.give_up_reserve()?;
    let all = cache_kept::list(engine)?;
    let (records, going, bytes) = engine.db.durable(|index| remove(index, &all, options))?;
    let (kept, freed) = cache_kept::remove(engine, going)?;
    crate::build::trim_lists(engine)?;
    engine.sweep()?;
    restore_reserve(engine);
    Ok(Pruned { records, kept, bytes: bytes + freed })
}

/// What [`prune`] would do.
pub fn prune_what_if(engine: &Engine, options: &Options) -> Result<Pruned> {
    let all = cache_kept::list(engine)?;
    let (records, going, bytes) = engine.db.what_if(|index| remove(index, &all, options))?;
    let freed: u64 = going.iter().map(|one| one.bytes).sum();
    Ok(Pruned { records, kept: going.iter().map(|one| one.name.clone()).collect(), bytes: bytes + freed })
}

/// The records that went, what else is to go, and the bytes that the records free.
fn remove<'k>(
    index: &Writer<'_>,
    kept: &'k [Kept],
    options: &Options,
) -> Result<(Vec<RecordId>, Vec<&'k Kept>, u64)> {
    let (records, going) = chosen(&remembered(index)?, kept, options);
    for record in &records {
        index.remove_cache_record(*record)?;
    }
    let gone: Condemned = index.condemn_unreferenced()?;
    Ok((records, going, gone.bytes()))
}

enum One<'r, 'k> {
    Record(&'r Remembered),
    Kept(&'k Kept),
}

/// Those to go, in the order in which they go: the least recently used first.
fn chosen<'k>(records: &[Remembered], kept: &'k [Kept], options: &Options) -> (Vec<RecordId>, Vec<&'k Kept>) {
    let mut users: HashMap<LayerNumber, usize> = HashMap::new();
    for layer in records.iter().filter(|one| !one.in_images).filter_map(|one| one.record.layer) {
        *users.entry(layer).or_default() += 1;
    }
    let mut counted = HashSet::new();
    let of_records: u64 = records
        .iter()
        .filter(|one| !one.in_images && one.record.layer.is_some_and(|layer| counted.insert(layer)))
        .map(|one| one.layer.as_ref().map_or(0, |layer| layer.size))
        .sum();
    let mut taken = of_records + kept.iter().map(|one| one.bytes).sum::<u64>();
    let mut all: Vec<((Time, RecordId), One<'_, 'k>)> = kept
        .iter()
        .map(|one| ((one.used_at, RecordId(0)), One::Kept(one)))
        .chain(records.iter().map(|one| ((one.record.last_used_at, one.record.id), One::Record(one))))
        .collect();
    all.sort_by_key(|(place, _)| *place);
    let more = options.all || options.unused_since.is_some() || options.keep_storage.is_some();
    let is_meant = |kind: Kind| match &options.kinds {
        Some(kinds) => kinds.contains(&kind),
        None => more || kind == Kind::Regular,
    };
    let (mut going, mut going_kept) = (Vec::new(), Vec::new());
    for ((used_at, _), one) in all {
        if options.keep_storage.is_some_and(|most| taken <= most) {
            break;
        }
        if options.unused_since.is_some_and(|since| used_at >= since) {
            continue;
        }
        match one {
            One::Kept(one) if is_meant(one.kind) && !one.in_use => {
                going_kept.push(one);
                taken = taken.saturating_sub(one.bytes);
            }
            One::Record(one)
                if is_meant(Kind::Regular)
                    && (options.all || (one.record.layer.is_some() && !one.in_images)) =>
            {
                going.push(one.record.id);
                let (Some(layer), false) = (one.record.layer, one.in_images) else { continue };
                let left = users.entry(layer).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    taken = taken.saturating_sub(one.layer.as_ref().map_or(0, |layer| layer.size));
                }
            }
            _ => {}
        }
    }
    (going, going_kept)
}
