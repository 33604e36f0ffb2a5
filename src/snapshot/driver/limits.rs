//! `size=` where directories are the file system's: a project for each snapshot that is limited (project quotas).

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use super::folder::{filesystem_of, open_dir};
use crate::error::{Context as _, Error, Result};
use crate::sys::quota::{self, Usage};

/// The kernel makes a directory whenever it mounts an overlay, and mounts a full one read-only.
const TO_MOUNT: u64 = 2 << 20;

/// What of a snapshot is limited, and the file that says so.
pub(super) struct Limited {
    /// It holds the bytes, as a number; there while there is a limit.
    pub(super) note: PathBuf,
    /// One project for all of them.
    pub(super) dirs: Vec<PathBuf>,
}

impl Limited {
    /// What `fill` makes in the directories, which are empty, is free; what is made after it takes no more than so many
    /// bytes together.
    pub(super) fn limit(&self, bytes: u64, fill: impl FnOnce() -> Result<()>) -> Result<()> {
        let doing = || format!("limiting {} to {bytes} bytes", self.dirs[0].display());
        let first = open_dir(&self.dirs[0])?;
        let project = free_project(first.as_fd(), &self.note).context(doing)?;
        let limit = |bytes| {
            let refused = |cause| refused(&self.dirs[0], cause);
            quota::limit(first.as_fd(), project, bytes).map_err(refused).context(doing)
        };
        // Tried before anything is made; there it would be without a limit.
        limit(bytes)?;
        limit(0)?;
        fs::write(&self.note, bytes.to_string()).context(doing)?;
        for dir in &self.dirs {
            quota::set_project(open_dir(dir)?.as_fd(), project).context(doing)?;
        }
        fill()?;
        let used = quota::usage(first.as_fd(), project).context(doing)?.bytes;
        limit(used + bytes)
    }

    /// A limited one that is full can be mounted as an overlay again, so that something in it can be deleted.
    pub(super) fn make_room_to_mount(&self) -> Result<()> {
        let doing = || format!("making room to mount {}", self.dirs[0].display());
        let bytes: u64 = match fs::read_to_string(&self.note) {
            Ok(text) => text.parse().map_err(std::io::Error::other).context(doing)?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(cause).context(doing),
        };
        let dir = open_dir(&self.dirs[0])?;
        let project = quota::project(dir.as_fd()).context(doing)?;
        let used = quota::usage(dir.as_fd(), project).context(doing)?.bytes;
        quota::limit(dir.as_fd(), project, bytes.max(used + TO_MOUNT)).context(doing)
    }

    /// The limit of a snapshot that goes, if it has one.
    pub(super) fn lift(&self) {
        if !self.note.exists() {
            return;
        }
        if let Ok(dir) = open_dir(&self.dirs[0])
            && let Ok(project @ 1..) = quota::project(dir.as_fd())
            && let Err(error) = quota::limit(dir.as_fd(), project, 0)
        {
            tracing::debug!(note = %self.note.display(), project, %error, "a limit that is left");
        }
    }

    /// Where the note does not go with what it is of.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.note) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(cause).context(|| format!("removing {}", self.note.display()))
            }
            _ => Ok(()),
        }
    }
}

/// A number that nobody on this file system uses: other stores and other programs may lie there.
fn free_project(dir: BorrowedFd<'_>, note: &Path) -> std::io::Result<u32> {
    let mut hasher = DefaultHasher::new();
    note.hash(&mut hasher);
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
