//! `size=` for overlay2: a project of the file system for each snapshot that is limited (project quotas).

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use super::SnapshotId;
use super::folder::{filesystem_of, open_dir};
use crate::error::{Context as _, Error, Result};
use crate::sys::quota::{self, Usage};

/// In a limited snapshot's own directory: its limit in bytes, as a number.
const NOTE: &str = "size";
/// The kernel makes a directory whenever it mounts an overlay, and mounts a full one read-only.
const TO_MOUNT: u64 = 2 << 20;

/// What is made in `diff` and `work` below `home`, which are empty, takes no more than so many bytes together.
pub(super) fn limit(home: &Path, id: SnapshotId, bytes: u64) -> Result<()> {
    let doing = || format!("limiting snapshot {id} to {bytes} bytes");
    let (diff, work) = (open_dir(&home.join("diff"))?, open_dir(&home.join("work"))?);
    let project = free_project(diff.as_fd(), home).context(doing)?;
    quota::limit(diff.as_fd(), project, bytes).map_err(|cause| refused(home, cause)).context(doing)?;
    for dir in [&diff, &work] {
        quota::set_project(dir.as_fd(), project).context(doing)?;
    }
    fs::write(home.join(NOTE), bytes.to_string()).context(doing)
}

/// A limited one that is full can be mounted again, so that something in it can be deleted.
pub(super) fn make_room_to_mount(home: &Path) -> Result<()> {
    let doing = || format!("making room to mount {}", home.display());
    let bytes: u64 = match fs::read_to_string(home.join(NOTE)) {
        Ok(text) => text.parse().map_err(std::io::Error::other).context(doing)?,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause).context(doing),
    };
    let diff = open_dir(&home.join("diff"))?;
    let project = quota::project(diff.as_fd()).context(doing)?;
    let used = quota::usage(diff.as_fd(), project).context(doing)?.bytes;
    quota::limit(diff.as_fd(), project, bytes.max(used + TO_MOUNT)).context(doing)
}

/// The limit of a snapshot that goes, if it has one.
pub(super) fn lift(home: &Path) {
    if !home.join(NOTE).exists() {
        return;
    }
    let Ok(diff) = open_dir(&home.join("diff")) else { return };
    if let Ok(project @ 1..) = quota::project(diff.as_fd())
        && let Err(error) = quota::limit(diff.as_fd(), project, 0)
    {
        tracing::debug!(home = %home.display(), project, %error, "a limit that is left");
    }
}

/// A number that nobody on this file system uses: other stores and other programs may lie there.
fn free_project(dir: BorrowedFd<'_>, home: &Path) -> std::io::Result<u32> {
    let mut hasher = DefaultHasher::new();
    home.hash(&mut hasher);
    // The low numbers are those of people.
    let begin = u32::try_from(hasher.finish() & 0x3fff_ffff).expect("30 bits") | 0x4000_0000;
    for project in begin..begin.saturating_add(1000) {
        match quota::usage(dir, project) {
            Ok(usage) if usage != Usage::default() => {}
            // Setting it says what is wrong.
            Ok(_) | Err(_) => return Ok(project),
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
