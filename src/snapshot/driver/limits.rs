//! `size=` for drivers whose snapshots are plain directories: a project of the file system for each that is limited.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::SnapshotId;
use super::folder::{filesystem_of, open_dir};
use crate::error::{Context as _, Error, Result};
use crate::sys::quota;

/// What is made in these directories, which are empty and on one file system, takes no more than so many bytes together.
pub(super) fn limit(dirs: &[PathBuf], id: SnapshotId, bytes: u64) -> Result<()> {
    let Some(first) = dirs.first() else { return Ok(()) };
    let doing = || format!("limiting snapshot {id} to {bytes} bytes");
    let dir = open_dir(first)?;
    let project = free_project(dir.as_fd(), first, id).context(doing)?;
    quota::limit(dir.as_fd(), project, bytes).map_err(|cause| refused(first, cause)).context(doing)?;
    for path in dirs {
        quota::set_project(open_dir(path)?.as_fd(), project).context(doing)?;
    }
    Ok(())
}

/// The limit of a snapshot that goes, if it has one.
pub(super) fn lift(dir: &Path) {
    let Ok(open) = open_dir(dir) else { return };
    if let Ok(project @ 1..) = quota::project(open.as_fd())
        && let Err(error) = quota::limit(open.as_fd(), project, 0)
    {
        tracing::debug!(dir = %dir.display(), project, %error, "a limit that is left");
    }
}

/// A number that nobody on this file system uses: other stores and other programs may lie there.
fn free_project(dir: std::os::fd::BorrowedFd<'_>, path: &Path, id: SnapshotId) -> std::io::Result<u32> {
    let mut hasher = DefaultHasher::new();
    (path, id.0).hash(&mut hasher);
    // The low numbers are those of people.
    let begin = u32::try_from(hasher.finish() & 0x3fff_ffff).expect("30 bits") | 0x4000_0000;
    for project in begin..begin.saturating_add(1000) {
        match quota::is_used(dir, project) {
            Ok(true) => {}
            // Setting it says what is wrong.
            Ok(false) | Err(_) => return Ok(project),
        }
    }
    Err(std::io::Error::other("a thousand projects in a row are in use"))
}

fn refused(path: &Path, cause: std::io::Error) -> Error {
    let filesystem = filesystem_of(path).unwrap_or_else(|_| "it".into());
    Error::unsupported(format!("{filesystem} at {} limits no projects", path.display()))
        .hint("`--storage-opt size=` wants xfs or ext4 mounted with `prjquota`, or the driver btrfs, zfs or devicemapper")
        .because(cause)
}
