//! `system prune`: stopped containers, images that nothing uses, build cache.

use crate::db::{Condemned, ContainerId, ContainerRow, RecordId, Time};
use crate::engine::Engine;
use crate::error::Result;
use crate::job::Job;
use crate::verb::cache_kept;
use crate::verb::disk_usage::tree_bytes;
use crate::verb::image_prune::{self, restore_reserve};
use crate::verb::rm;
use crate::verb::rmi::Removed;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also images with names, unless a container uses them, and all of the build cache.
    pub all: bool,
    /// Also volumes without a name of their own that no container uses.
    pub volumes: bool,
    /// Only what was made before.
    pub until: Option<Time>,
}

#[derive(Clone, Debug, Default)]
pub struct Pruned {
    pub containers: Vec<ContainerId>,
    pub volumes: Vec<String>,
    pub images: Vec<Removed>,
    pub cache: Vec<RecordId>,
    /// What the build cache kept besides its records, by name.
    pub kept: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// Builds and events remembered after it.
const BUILDS_KEPT: u32 = 100;
const EVENTS_KEPT: u32 = 1000;

/// For a disk so full that nothing can be written: the reserve of the store is given up first.
pub fn system_prune(engine: &Engine, options: &Options, job: &Job) -> Result<Pruned> {
    engine.db.give_up_reserve()?;
    let mut pruned = Pruned::default();
    let old_enough = |row: &ContainerRow| Ok(options.until.is_none_or(|until| row.created_at < until));
    let containers = rm::prune(engine, &old_enough, job)?;
    pruned.reclaimed += containers.bytes;
    pruned.containers = containers.containers.into_iter().map(|row| row.id).collect();
    if options.volumes {
        volumes(engine, options, &mut pruned)?;
    }
    pruned.reclaimed += engine.db.drop_incoming(options.until.unwrap_or(Time(i64::MAX)))?;
    pruned.reclaimed += engine.db.durable(|index| index.condemn_unreferenced())?.bytes();
    let images = image_prune::Options { all: options.all, until: options.until, labels: Vec::new() };
    let images = image_prune::prune(engine, &images)?;
    pruned.images = images.removed;
    pruned.reclaimed += images.reclaimed;
    cache(engine, options, &mut pruned)?;
    let kept = cache_kept::list(engine)?;
    let unused = kept.iter().filter(|one| options.until.is_none_or(|until| one.used_at < until));
    let (names, bytes) = cache_kept::remove(engine, unused)?;
    pruned.reclaimed += bytes;
    pruned.kept = names;
    crate::build::trim_lists(engine)?;
    engine.db.write(|index| {
        index.trim_builds(BUILDS_KEPT)?;
        index.trim_events(EVENTS_KEPT)
    })?;
    // Trees and names that no row knows, whatever has left them.
    engine.snapshots.remove_strays()?;
    engine.db.remove_strays()?;
    engine.sweep()?;
    restore_reserve(engine);
    Ok(pruned)
}

fn volumes(engine: &Engine, options: &Options, pruned: &mut Pruned) -> Result<()> {
    for volume in engine.db.read(|index| index.volumes())? {
        let unused = engine.db.read(|index| index.volume_users(&volume.name))?.is_empty();
        if !volume.anonymous || !unused || options.until.is_some_and(|until| volume.made_at >= until) {
            continue;
        }
        let bytes = tree_bytes(&engine.root.join("volumes").join(&volume.name))?;
        // A container may have taken it up since.
        if engine.db.durable(|index| index.remove_nameless_volume(&volume.name, None))? {
            pruned.reclaimed += bytes;
            pruned.volumes.push(volume.name);
        }
    }
    Ok(())
}

/// Without `all` only records whose layers no image has: the others take no room, and make the next build fast.
fn cache(engine: &Engine, options: &Options, pruned: &mut Pruned) -> Result<()> {
    let before = engine.db.read(|index| index.cache_records())?;
    let gone: Condemned = engine.db.durable(|index| match (options.all, options.until) {
        (_, Some(until)) => index.condemn_cache(until),
        (true, None) => index.condemn_cache(Time(i64::MAX)),
        (false, None) => index.condemn_cache_alone(),
    })?;
    let after = engine.db.read(|index| index.cache_records())?;
    let left: std::collections::HashSet<RecordId> = after.into_iter().map(|record| record.id).collect();
    pruned.cache = before.into_iter().map(|record| record.id).filter(|id| !left.contains(id)).collect();
    pruned.reclaimed += gone.bytes();
    Ok(())
}
