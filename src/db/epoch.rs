//! Epochs: what was there when a process began its work stays until it ends it, whatever others remove meanwhile.
//!
//! A process locks (shared) the file of the epoch in which it begins, and reads the index only after that. Who removes
//! something marks it with the current epoch and opens the next. Nobody who comes later sees what is marked; so
//! it can go when no epoch up to that one is locked.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::ids::Epoch;
use super::lease::{lock, open_lock_file, stands_at, try_lock};
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Context as _, Result};

/// While it lives, nothing goes that was visible when it was made.
#[derive(Debug)]
pub struct EpochGuard {
    epoch: Epoch,
    file: File,
}

impl EpochGuard {
    /// `current` reads the epoch from the index.
    pub(super) fn enter(locks: &Path, current: impl Fn() -> Result<Epoch>) -> Result<Self> {
        loop {
            let epoch = current()?;
            let path = file_of(locks, epoch);
            let file = open_lock_file(&path)?;
            lock(&file, FlockOperation::LockShared)?;
            // Whoever closes an epoch takes its file away.
            if stands_at(&file, &path)? {
                return Ok(EpochGuard { epoch, file });
            }
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for EpochGuard {
    fn drop(&mut self) {
        // By name: a child between fork and exec still has a copy of the descriptor.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn file_of(locks: &Path, epoch: Epoch) -> PathBuf {
    locks.join(format!("epoch-{epoch}"))
}

/// True, and its file gone, when nobody is in it.
fn close(locks: &Path, epoch: Epoch) -> Result<bool> {
    let path = file_of(locks, epoch);
    match File::open(&path) {
        Ok(file) => {
            if !try_lock(&file)? {
                return Ok(false);
            }
            if stands_at(&file, &path)? {
                fs::remove_file(&path).context(|| "removing a lock file")?;
            }
            Ok(true)
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(cause).context(|| format!("opening the lock file {}", path.display())),
    }
}

impl Reader<'_> {
    pub fn current_epoch(&self) -> Result<Epoch> {
        self.value("select max(n) from epoch", ())
    }

    /// The earliest epoch that somebody is in; the current one if nobody is in an earlier one. What was condemned
    /// before it can go.
    pub(super) fn earliest_epoch(&self, locks: &Path) -> Result<Epoch> {
        let epochs: Vec<Epoch> = self.all("select n from epoch order by n", (), |row| row.get(0))?;
        let current = epochs.last().copied().unwrap_or(Epoch(1));
        for epoch in epochs {
            if epoch == current || !close(locks, epoch)? {
                return Ok(epoch);
            }
        }
        Ok(current)
    }
}

impl Writer<'_> {
    /// Ends the current epoch: what is condemned in it is invisible to whoever begins now.
    pub(super) fn open_epoch(&self) -> Result<Epoch> {
        self.exec(
            "insert into epoch (n, opened_at) select ifnull(max(n), 0) + 1, ?1 from epoch",
            (Time::now(),),
        )?;
        self.current_epoch()
    }

    pub(super) fn forget_epochs_before(&self, epoch: Epoch) -> Result<()> {
        self.exec("delete from epoch where n < ?1", (epoch,)).map(drop)
    }
}
