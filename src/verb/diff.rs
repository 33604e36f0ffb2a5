//! `diff`: what a container has changed in its image's files.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;

use crate::container;
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::job::Job;
use crate::layer::{self, Kind, PackOptions, Row, RowSink};
use crate::sys::dir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Changed,
    Deleted,
}

/// Paths without a slash before them, in the order of their bytes. The root itself is not among them, and no mount point
/// that outcrop made.
pub fn diff(engine: &Engine, row: &ContainerRow, job: &Job) -> Result<BTreeMap<Vec<u8>, Change>> {
    let doing = || format!("comparing container {} with its image", row.id.short());
    container::recover_dead(engine, row)?;
    let compared = engine.snapshots.compare(row.snapshot).context(doing)?;
    let mut rows = Rows::default();
    let changes = compared.changes(false);
    let parent = changes.parent();
    layer::pack(job, changes, PackOptions::default(), &mut rows, &mut std::io::sink()).context(doing)?;
    let mut rows = rows.0;
    rows.remove(&b""[..]);
    leave_out(&mut rows, &container::mount_points(engine, &row.id)?.paths(), parent);

    let mut changed = BTreeMap::new();
    for (path, row) in &rows {
        let change = match (row.kind, exists(parent, path)) {
            (Kind::Whiteout, _) => Change::Deleted,
            (_, true) => Change::Changed,
            (_, false) => Change::Added,
        };
        changed.insert(path.clone(), change);
        if row.opaque {
            for name in names(parent, path).context(doing)? {
                let gone = [path, &b"/"[..], &name].concat();
                if !rows.contains_key(&gone) {
                    changed.insert(gone, Change::Deleted);
                }
            }
        }
    }
    Ok(changed)
}

/// The last row of each path.
#[derive(Default)]
struct Rows(BTreeMap<Vec<u8>, Row>);

impl RowSink for Rows {
    fn row(&mut self, row: Row) -> Result<()> {
        self.0.insert(row.path.clone(), row);
        Ok(())
    }
    fn forget(&mut self, path: &[u8]) -> Result<()> {
        self.0.retain(|known, _| known != path && !is_below(known, path));
        Ok(())
    }
}

fn is_below(path: &[u8], top: &[u8]) -> bool {
    top.is_empty() || path.strip_prefix(top).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Mount points of a container that runs, and the directories that are there for nothing else.
fn leave_out(rows: &mut BTreeMap<Vec<u8>, Row>, points: &[Vec<u8>], parent: Option<BorrowedFd<'_>>) {
    let mut above = BTreeSet::new();
    for point in points {
        rows.remove(point);
        let slashes = point.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        above.extend(slashes.map(|(at, _)| point[..at].to_vec()));
    }
    // The deepest first.
    for path in above.iter().rev() {
        let Some(row) = rows.get(path) else { continue };
        let in_use = rows
            .range(path.clone()..)
            .skip(1)
            .take_while(|(other, _)| other.starts_with(path))
            .any(|(other, _)| is_below(other, path));
        if !in_use && !row.opaque && is_as_below(row, parent) {
            rows.remove(path);
        }
    }
}

fn is_as_below(row: &Row, parent: Option<BorrowedFd<'_>>) -> bool {
    let Some(parent) = parent else { return false };
    let Ok(found) = dir::open_beneath(parent, &row.path, OFlags::PATH | OFlags::NOFOLLOW) else {
        return false;
    };
    rustix::fs::fstat(&found).is_ok_and(|stat| {
        (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (row.mode, row.uid, row.gid)
            && stat.st_mtime == row.mtime.div_euclid(1_000_000_000)
    })
}

/// Links are not followed.
fn exists(parent: Option<BorrowedFd<'_>>, path: &[u8]) -> bool {
    parent.is_some_and(|parent| dir::open_beneath(parent, path, OFlags::PATH | OFlags::NOFOLLOW).is_ok())
}

fn names(parent: Option<BorrowedFd<'_>>, path: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    let Some(parent) = parent else { return Ok(Vec::new()) };
    match dir::open_beneath(parent, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
        Ok(dir) => Ok(dir::names(dir.as_fd())?.into_iter().map(std::ffi::CString::into_bytes).collect()),
        // It took the place of something that was no directory, or of nothing.
        Err(_) => Ok(Vec::new()),
    }
}
