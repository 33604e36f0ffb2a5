//! `rm` and `container prune`: containers go, with their writable layers.

use crate::container::{self, RemoveOptions};
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::error::{Kind, Result};
use crate::job::Job;

/// Each by itself: what became of it, in the order in which they are named. With force, being gone is fine.
pub fn rm(engine: &Engine, names: &[String], options: RemoveOptions) -> Result<Vec<(String, Result<()>)>> {
    // Those whose outcrop was killed do not run.
    engine.sweep()?;
    let one = |name: &String| match container::resolve(engine, name) {
        Err(error) if options.force && error.kind() == Kind::NotFound => Ok(()),
        found => container::remove(engine, &found?, options),
    };
    let removed = names.iter().map(|name| (name.clone(), one(name))).collect();
    engine.sweep()?;
    Ok(removed)
}

#[derive(Debug, Default)]
pub struct Pruned {
    pub containers: Vec<ContainerRow>,
    /// Bytes that they had written.
    pub bytes: u64,
}

/// All that do not run and that `which` is true for.
pub fn prune(engine: &Engine, which: &dyn Fn(&ContainerRow) -> Result<bool>, job: &Job) -> Result<Pruned> {
    engine.sweep()?;
    let mut pruned = Pruned::default();
    for row in engine.db.read(|index| index.containers())? {
        job.check()?;
        if !container::is_idle(engine, &row)? || !which(&row)? {
            continue;
        }
        let bytes = container::changed_bytes(engine, &row, job)?;
        match container::remove(engine, &row, RemoveOptions::default()) {
            // It was started meanwhile.
            Err(error) if error.kind() == Kind::Conflict => continue,
            removed => removed?,
        }
        pruned.bytes += bytes;
        pruned.containers.push(row);
    }
    engine.sweep()?;
    Ok(pruned)
}
