//! Full quotas have a group for every subvolume, limited or not, and let it stand when that goes. It cannot be removed before the
//! filesystem has taken back what was in the subvolume, which it does some time later: so it is noted, and goes with a later
//! removal.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::sys::btrfs::{self, Quotas};

/// A directory with an empty file for each, by its number.
pub(super) struct Groups(PathBuf);

impl Groups {
    /// Of the store's root; they are noted where the directory stands.
    pub(super) fn of(root: &Path) -> Self {
        Groups(root.join("btrfs/groups"))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// This subvolume is about to go.
    pub(super) fn note(&self, subvolume: BorrowedFd<'_>) -> io::Result<()> {
        if self.0.exists() && btrfs::quotas(subvolume)? == Quotas::Full {
            fs::write(self.0.join(btrfs::id(subvolume)?.to_string()), "")?;
        }
        Ok(())
    }

    /// Removes those that can go.
    pub(super) fn clean(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let Some(group) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match btrfs::forget_limit(on, group) {
                Err(error) if !is_gone(&error) => {
                    tracing::debug!(group, %error, "a quota group is left to a later removal");
                }
                _ => match fs::remove_file(entry.path()) {
                    // Another process was at it, too.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    removed => removed?,
                },
            }
        }
        Ok(())
    }
}

/// There is no such group, or nobody counts any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENOTCONN)
}
