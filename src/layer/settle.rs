//! A layer's own tree that was written through a mount of what it stands on, made to say what its rows say: where the layer
//! hides all below a directory, the mount has left a whiteout for each name and marks further down; where it deletes what was
//! not there, none.

use std::collections::BTreeSet;

use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::fs;
use rustix::io::Errno;

use super::tree::{self, Parents};
use super::{Form, Kind, Row};
use crate::error::{Context as _, Result};

/// `tree` is mounted nowhere. Times of directories stay. What stands in no directory of the tree is left out.
pub fn settle(tree: BorrowedFd<'_>, form: Form, rows: impl IntoIterator<Item = Result<Row>>) -> Result<()> {
    let (mut opaque, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let row = row?;
        match row.kind {
            Kind::Whiteout => drop(deleted.insert(row.path)),
            _ if row.opaque => drop(opaque.insert(row.path)),
            _ => {}
        }
    }
    // A whole tree has no marks.
    if form == Form::Whole {
        return Ok(());
    }
    let mut parents = Parents::new(tree);
    for path in &deleted {
        let doing = || format!("making the whiteout of `{}`", path.escape_ascii());
        let (parent, name) = tree::split(path);
        match parents.dir(parent) {
            Ok(dir) if tree::stat(dir, name).context(doing)?.is_none() => {
                unmoved(dir, || tree::make_whiteout(form, dir, name)).context(doing)?;
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).context(doing),
        }
    }
    for path in &opaque {
        let doing = || format!("marking `{}` as opaque", path.escape_ascii());
        match parents.dir(path) {
            Ok(dir) => {
                tree::set_opaque(form, dir, true).context(doing)?;
                drop_needless(form, dir, &mut path.clone(), &opaque, &deleted).context(doing)?;
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).context(doing),
        }
    }
    Ok(())
}

/// Whiteouts and marks that the mark of a directory makes needless.
fn drop_needless(
    form: Form,
    dir: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    opaque: &BTreeSet<Vec<u8>>,
    deleted: &BTreeSet<Vec<u8>>,
) -> rustix::io::Result<()> {
    for (name, kind) in tree::list(dir)? {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        if tree::is_whiteout(form, dir, &name, kind)? {
            if !deleted.contains(path) {
                unmoved(dir, || tree::remove_whiteout(form, dir, &name))?;
            }
        } else if kind == fs::FileType::Directory {
            let below = tree::open_dir(dir, &name)?;
            if !opaque.contains(path) {
                match tree::set_opaque(form, below.as_fd(), false) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
            drop_needless(form, below.as_fd(), path, opaque, deleted)?;
        }
        path.truncate(length);
    }
    Ok(())
}

/// Changes what stands in a directory, and not its time.
fn unmoved(dir: BorrowedFd<'_>, change: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let stat = fs::fstat(dir)?;
    change()?;
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    fs::futimens(
        dir,
        &tree::modified(stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)),
    )
}
