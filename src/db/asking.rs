//! Turns to ask the disk for something, and notes of who was killed in one.
//!
//! The kernel tells a descriptor of a write that failed once (fsync(2), syncfs(2)), and later ones perhaps not at all. So
//! whoever is about to be told says so before, and whoever comes after one that died acts as if he had been told.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::lease::{lock, open_lock_file, try_lock};
use crate::error::{Context as _, Result};

/// First byte of the file: nobody asks, or somebody does, or died while he did.
const ASKED: &[u8] = b"-";
const ASKING: &[u8] = b"?";

/// One asks at a time.
pub(super) struct Asking {
    /// Locked. Says in which boot somebody is asking.
    file: File,
    note: Vec<u8>,
}

impl Asking {
    pub(super) fn turn(path: &Path, boot: &str) -> Result<Asking> {
        // Another open file than any other thread's: locks are theirs.
        let file = open_lock_file(path)?;
        if !try_lock(&file)? {
            tracing::debug!(path = %path.display(), "another process is writing to the disk");
            lock(&file, FlockOperation::LockExclusive)?;
        }
        let asking = Asking { file, note: [ASKING, boot.as_bytes(), b"\n"].concat() };
        // A full disk says so now, and not when somebody is about to be told.
        if asking.file.metadata().context(|| "looking at a lock file")?.len() == 0 {
            asking.end()?;
        }
        Ok(asking)
    }

    /// Somebody died while he asked in this boot, or was told of something and could not mend it.
    pub(super) fn was_left(&self) -> Result<bool> {
        let mut found = self.note.clone();
        let count = self.file.read_at(&mut found, 0).context(|| "reading a lock file")?;
        Ok(count == self.note.len() && found == self.note)
    }

    pub(super) fn begin(&self) -> Result<()> {
        self.note_begin().context(|| "writing a lock file")
    }

    pub(super) fn end(&self) -> Result<()> {
        self.note_end().context(|| "writing a lock file")
    }

    /// One system call, as `note_end`.
    pub(super) fn note_begin(&self) -> rustix::io::Result<()> {
        self.write(&self.note)
    }

    pub(super) fn note_end(&self) -> rustix::io::Result<()> {
        self.write(ASKED)
    }

    /// Else the note stands, and whoever comes next mends it.
    pub(super) fn end_if(&self, is_well: bool) {
        if is_well && let Err(error) = self.end() {
            tracing::warn!(%error, "left as if the disk were still asked");
        }
    }

    fn write(&self, note: &[u8]) -> rustix::io::Result<()> {
        match rustix::io::pwrite(&self.file, note, 0)? {
            count if count == note.len() => Ok(()),
            _ => Err(Errno::NOSPC),
        }
    }
}

impl AsFd for Asking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether somebody asks, or died while he did.
pub(super) fn somebody_asks(path: &Path) -> bool {
    fs::read(path).is_ok_and(|note| note.starts_with(ASKING))
}
