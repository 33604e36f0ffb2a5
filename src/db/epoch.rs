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
            // Whoever closes an epoch takes its file away. And one that ended before we had the lock may be closed for good: nobody
            // looks at its file any more.
            let stands = stands_at(&file, &path)?;
            if stands && current()? == epoch {
                return Ok(EpochGuard { epoch, file });
            }
            drop(file);
            if stands {
                close(locks, epoch)?;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::db::testing::Dir;

    #[test]
    fn nobody_is_in_an_epoch_that_ended_while_he_came() {
        let dir = Dir::new();
        let now = Cell::new(Epoch(1));
        // Another process opens the next one between our look and our lock, finds nobody in the first, and forgets it.
        let look = || {
            let seen = now.get();
            if seen == Epoch(1) {
                now.set(Epoch(2));
                assert!(close(dir.path(), Epoch(1))?);
            }
            Ok(seen)
        };
        let guard = EpochGuard::enter(dir.path(), look).unwrap();
        assert_eq!(guard.epoch(), Epoch(2));
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["epoch-2"]);
        assert!(!close(dir.path(), Epoch(2)).unwrap());
    }
}
