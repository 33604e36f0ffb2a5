//! `system check`: what processes that were killed have left lying. It harms nobody.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;

use super::check::Index;
use crate::db::{LayerNumber, SnapshotId, SnapshotState};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{DiffId, Digest};

pub(super) fn find(
    engine: &Engine,
    index: &Index,
    trees: &[SnapshotId],
    leftovers: &mut Vec<String>,
) -> Result<()> {
    snapshots(engine, index, trees, leftovers)?;
    recipes(engine, leftovers)?;
    rows(engine, leftovers)?;
    for stranger in engine.blobs.strangers()? {
        let name = stranger.file_name().unwrap_or_default().to_string_lossy();
        leftovers.push(format!("blobs/sha256/{name}: no row knows it"));
    }
    let held: HashSet<String> = engine
        .db
        .read(|reader| reader.intents("ingest"))?
        .into_iter()
        .filter_map(|intent| intent.detail)
        .collect();
    let coming: HashSet<String> =
        engine.db.read(|reader| reader.incoming())?.into_iter().filter_map(|intent| intent.detail).collect();
    for name in names(engine, "ingest")? {
        let name = name.to_string_lossy().into_owned();
        if coming.contains(&name) {
            continue;
        }
        if !held.contains(&name) || engine.db.lease_is_free(&name).unwrap_or(true) {
            leftovers.push(format!("ingest/{name}: nobody is writing it any more"));
        }
    }
    for name in names(engine, "trash")? {
        leftovers.push(format!("trash/{}: it was to be deleted", name.to_string_lossy()));
    }
    let volumes: HashSet<&str> = index.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let containers: HashSet<&str> = index.containers.iter().map(|container| container.id.as_str()).collect();
    for (dir, known) in [("volumes", volumes), ("containers", containers)] {
        for name in names(engine, dir)? {
            let name = name.to_string_lossy();
            if !known.contains(&*name) {
                leftovers.push(format!("{dir}/{name}: no row knows it"));
            }
        }
    }
    if engine.db.tags_log_is_ahead()? {
        leftovers.push("tags.log: its last lines were cut off before they happened".into());
    }
    Ok(())
}

fn snapshots(
    engine: &Engine,
    index: &Index,
    trees: &[SnapshotId],
    leftovers: &mut Vec<String>,
) -> Result<()> {
    let driver = engine.snapshots.driver().name();
    let known: HashSet<SnapshotId> = index.snapshots.iter().map(|row| row.id).collect();
    for tree in trees.iter().filter(|tree| !known.contains(tree)) {
        leftovers.push(format!("{driver}/{tree}: no row knows it"));
    }
    let mut kept: HashSet<SnapshotId> = index.containers.iter().map(|container| container.snapshot).collect();
    let (migrating, moved) = engine.db.read(|reader| Ok((reader.migrating_to()?, reader.moved()?)))?;
    kept.extend(moved.iter().map(|moved| moved.snapshot));
    if let Some(to) = migrating {
        leftovers.push(format!(
            "the store's move from {driver} to {to} is not finished: `outcrop system migrate --to {to}` goes on with it, `--to \
             {driver}` gives it up"
        ));
    }
    for row in &index.snapshots {
        let left = match row.state {
            SnapshotState::Sealed => false,
            SnapshotState::Removing => true,
            SnapshotState::Making | SnapshotState::Draft => {
                let free = match &row.lease {
                    Some(lease) => engine.db.lease_is_free(lease)?,
                    None => true,
                };
                free && !kept.contains(&row.id)
            }
        };
        if left {
            leftovers.push(format!("{}/{}: nobody is at work on it any more", row.driver, row.id));
        }
    }
    Ok(())
}

fn recipes(engine: &Engine, leftovers: &mut Vec<String>) -> Result<()> {
    let making = in_the_making(engine)?;
    for name in names(engine, "layers")? {
        let name = name.to_string_lossy().into_owned();
        let left = match name.strip_prefix("making-") {
            Some(number) => !making.iter().any(|(made, _)| made.to_string() == number),
            None => match Digest::from_hex(name.split('.').next().unwrap_or_default()).map(DiffId) {
                // It has its name before its layer has a row.
                Some(diff_id) => {
                    let about_to_be =
                        making.iter().any(|(_, made)| made.as_ref() == Some(&diff_id.to_string()));
                    !about_to_be && !engine.db.read(|reader| reader.layer_is_known(&diff_id))?
                }
                None => true,
            },
        };
        if left {
            leftovers.push(format!("layers/{name}: no row knows it"));
        }
    }
    Ok(())
}

/// Numbers of layers that a living process is at, and what they are going to be.
fn in_the_making(engine: &Engine) -> Result<Vec<(LayerNumber, Option<String>)>> {
    let mut numbers = Vec::new();
    for intent in engine.db.read(|reader| reader.intents("layer"))? {
        let held = match &intent.lease {
            Some(lease) => !engine.db.lease_is_free(lease)?,
            None => false,
        };
        numbers.extend(intent.number.filter(|_| held).map(|number| (LayerNumber(number), intent.detail)));
    }
    Ok(numbers)
}

fn rows(engine: &Engine, leftovers: &mut Vec<String>) -> Result<()> {
    let Ok(numbers) = engine.db.numbers_with_rows() else {
        // Said of the database.
        return Ok(());
    };
    for number in numbers {
        let known = engine.db.read(|reader| reader.layer(number))?.is_some();
        if !known && !in_the_making(engine)?.iter().any(|(made, _)| *made == number) {
            leftovers.push(format!("files.db: rows under number {number}, which no layer has"));
        }
    }
    Ok(())
}

fn names(engine: &Engine, dir: &str) -> Result<Vec<OsString>> {
    let path = engine.root.join(dir);
    let listing = || format!("listing {}", path.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).context(listing)? {
        names.push(entry.context(listing)?.file_name());
    }
    names.sort();
    Ok(names)
}
