//! A layer known again, when all that is left of it is its recipe and a tree with its files.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use super::verify;
use crate::db::{Db, LayerNumber, LayerSlot, Lease, SnapshotId};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{ContentId, DiffId};
use crate::job::Job;
use crate::layer::{self, Scanned};
use crate::snapshot::driver::{Driver, Tree};

/// Its rows are written again, under a number that nothing publishes yet.
pub struct Reread {
    pub slot: LayerSlot,
    pub scanned: Scanned,
    pub content_id: ContentId,
    pub row_count: u64,
}

/// `None`: the tree has not the layer's files, or the recipe is not whole. `below` is what the layer stands on, merged.
pub fn reread(
    db: &Db,
    diff_id: &DiffId,
    driver: &dyn Driver,
    tree: SnapshotId,
    below: Option<BorrowedFd<'_>>,
    lease: &Lease,
    job: &Job,
) -> Result<Option<Reread>> {
    let (Some(mut recipe), Some(tree)) =
        (open(&db.root().join("layers").join(diff_id.hex()))?, there(driver.tree(tree))?)
    else {
        return Ok(None);
    };
    let slot = db.reserve_layer(lease)?;
    let mut rows = slot.rows()?;
    let (mut reader, mut writer) = std::io::pipe().context(|| "making a pipe")?;
    let (replayed, scanned) = std::thread::scope(|scope| {
        let replaying = scope.spawn(move || layer::replay(job, &mut recipe, tree.dir.as_fd(), &mut writer));
        let scanned = layer::scan(job, &mut reader, below, &mut rows);
        // Nobody reads on: whoever writes must not wait for it.
        drop(reader);
        let replayed = replaying.join();
        (replayed.unwrap_or_else(|_| Err(Error::internal("replaying a recipe panicked"))), scanned)
    });
    for error in [replayed.as_ref().err(), scanned.as_ref().err()].into_iter().flatten() {
        if error.kind() == Kind::Cancelled {
            return Err(Error::cancelled());
        }
    }
    let (Ok(_), Ok(scanned)) = (replayed, scanned) else { return Ok(None) };
    if scanned.diff_id != *diff_id {
        return Ok(None);
    }
    let row_count = rows.finish()?;
    let content_id = layer::content_id(db.rows(slot.number()))?;
    Ok(Some(Reread { slot, scanned, content_id, row_count }))
}

/// Whether the tree is what these layers show, bottom first, to the byte and with nothing besides.
pub fn shows(
    db: &Db,
    driver: &dyn Driver,
    snapshot: SnapshotId,
    stack: &[LayerNumber],
    job: &Job,
) -> Result<bool> {
    let Some(tree) = there(driver.tree(snapshot))? else { return Ok(false) };
    let found = verify::compare(db, stack, &File::from(tree.dir), tree.form, &|_| (), job)?;
    Ok(found.total == 0)
}

fn there(tree: Result<Tree>) -> Result<Option<Tree>> {
    match tree {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        tree => tree.map(Some),
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some).context(|| format!("opening {}", path.display())),
    }
}
