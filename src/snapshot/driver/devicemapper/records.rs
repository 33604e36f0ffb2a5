//! What the driver writes down, each in a file that is replaced as a whole: `snapshots/<n>` of every snapshot,
//! `deleted/<n>` of those whose volume is still to go, `base`, `pool`.
//!
//! A record stands before its volume and goes after it, so whatever is in the pool is known here.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::SnapshotId;
use super::super::folder::open_dir;
use crate::error::{Context, Error, Result};
use crate::sys;
use crate::sys::durable::write_durably;

/// A volume of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its number in the pool.
    pub(super) device_id: u32,
    /// Bytes.
    pub(super) size: u64,
    /// It is whole when the pool has come to this transaction.
    pub(super) transaction_id: u64,
    /// Nobody writes to it any more. (Of the base: it has its filesystem.)
    #[serde(default)]
    pub(super) sealed: bool,
}

pub(super) struct Records {
    dir: PathBuf,
    snapshots: OwnedFd,
    deleted: OwnedFd,
}

impl Records {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let open = |name| {
            let path = dir.join(name);
            fs::create_dir_all(&path).context(|| format!("creating {}", path.display()))?;
            open_dir(&path)
        };
        Ok(Records { dir: dir.to_owned(), snapshots: open("snapshots")?, deleted: open("deleted")? })
    }

    /// `None`: there is no such snapshot.
    pub(super) fn find(&self, id: SnapshotId) -> Result<Option<Record>> {
        read(&self.path(id))
    }

    pub(super) fn get(&self, id: SnapshotId) -> Result<Record> {
        self.find(id)?.ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))
    }

    pub(super) fn path(&self, id: SnapshotId) -> PathBuf {
        self.dir.join("snapshots").join(id.to_string())
    }

    /// Durably.
    pub(super) fn write(&self, id: SnapshotId, record: &Record) -> Result<()> {
        write(&self.path(id), record)
    }

    /// Its volume is not there, and never was.
    pub(super) fn forget(&self, id: SnapshotId) -> Result<()> {
        unlink(&self.snapshots, id).context(|| format!("forgetting snapshot {id}"))
    }

    /// Takes away what a killed process was writing.
    pub(super) fn tidy(&self, id: SnapshotId) -> Result<()> {
        let new = self.path(id).with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("removing {}", new.display()))
            }
            _ => Ok(()),
        }
    }

    /// Durably: its volume is to go. Being condemned, or unknown, is `Ok`.
    pub(super) fn condemn(&self, id: SnapshotId) -> Result<()> {
        let (doing, name) = (|| format!("noting that snapshot {id} goes"), name(id));
        match rustix::fs::renameat(&self.snapshots, &name, &self.deleted, &name) {
            Ok(()) => rustix::fs::fsync(&self.deleted).and_then(|()| rustix::fs::fsync(&self.snapshots)),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
        .context(doing)
    }

    pub(super) fn condemned(&self) -> Result<Vec<(SnapshotId, Record)>> {
        self.all_in(&self.deleted, "deleted")
    }

    pub(super) fn is_condemned(&self, id: SnapshotId) -> bool {
        self.dir.join("deleted").join(id.to_string()).exists()
    }

    /// Its volume is gone.
    pub(super) fn finish(&self, id: SnapshotId) -> Result<()> {
        unlink(&self.deleted, id).context(|| format!("forgetting snapshot {id}"))
    }

    pub(super) fn all(&self) -> Result<Vec<(SnapshotId, Record)>> {
        self.all_in(&self.snapshots, "snapshots")
    }

    fn all_in(&self, dir: &OwnedFd, name: &str) -> Result<Vec<(SnapshotId, Record)>> {
        let path = self.dir.join(name);
        let known = |id: SnapshotId| Ok(read(&path.join(id.to_string()))?.map(|record| (id, record)));
        numbers(dir)
            .context(|| format!("listing {}", path.display()))?
            .into_iter()
            .filter_map(|id| known(id).transpose())
            .collect()
    }

    pub(super) fn list(&self) -> Result<Vec<SnapshotId>> {
        numbers(&self.snapshots).context(|| format!("listing the snapshots in {}", self.dir.display()))
    }

    /// `base`, `pool`
    pub(super) fn document<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        read(&self.dir.join(name))
    }

    /// Durably.
    pub(super) fn write_document<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        write(&self.dir.join(name), value)
    }

    pub(super) fn forget_document(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::remove_file(&path).context(|| format!("removing {}", path.display()))
    }
}

/// Also of what a killed process was writing.
fn numbers(dir: &OwnedFd) -> std::io::Result<Vec<SnapshotId>> {
    let names = sys::dir::names(dir.as_fd())?;
    let number = |name: &str| name.strip_suffix(".new").unwrap_or(name).parse().ok().map(SnapshotId);
    let mut numbers: Vec<SnapshotId> = names.iter().filter_map(|name| number(name.to_str().ok()?)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn name(id: SnapshotId) -> CString {
    CString::new(id.to_string()).expect("digits have no NUL")
}

fn unlink(dir: &OwnedFd, id: SnapshotId) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name(id), AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let doing = || format!("reading {}", path.display());
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).context(doing).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(doing),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let text = serde_json::to_vec(value).context(doing)?;
    write_durably(path, &path.with_extension("new"), &text).context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A power cut may take the row of it.
    #[test]
    fn what_a_killed_process_was_writing_is_listed_and_goes() {
        let dir = std::env::temp_dir().join(format!("outcrop-records-new-{}", std::process::id()));
        let records = Records::open(&dir).unwrap();
        fs::write(dir.join("snapshots/7.new"), "{").unwrap();
        assert_eq!(records.list().unwrap(), [SnapshotId(7)]);
        assert_eq!(records.all().unwrap(), []);
        records.tidy(SnapshotId(7)).unwrap();
        assert_eq!(records.list().unwrap(), []);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_record_is_there_until_its_volume_is_gone() {
        let dir = std::env::temp_dir().join(format!("outcrop-records-{}", std::process::id()));
        let records = Records::open(&dir).unwrap();
        let (id, record) =
            (SnapshotId(7), Record { device_id: 7, size: 1, transaction_id: 3, sealed: false });
        assert_eq!(records.find(id).unwrap(), None);
        records.write(id, &record).unwrap();
        let sealed = Record { sealed: true, ..record.clone() };
        records.write(id, &sealed).unwrap();
        let again = Records::open(&dir).unwrap();
        assert_eq!(again.all().unwrap(), [(id, sealed.clone())]);
        assert_eq!(again.list().unwrap(), [id]);
        for _ in 0..2 {
            again.condemn(id).unwrap();
            assert_eq!(again.list().unwrap(), []);
            assert_eq!(again.condemned().unwrap(), [(id, sealed.clone())]);
        }
        assert!(records.is_condemned(id));
        for _ in 0..2 {
            records.finish(id).unwrap();
        }
        assert_eq!(records.condemned().unwrap(), []);
        assert_eq!(records.get(id).unwrap_err().kind(), crate::error::Kind::NotFound);
        records.write_document("pool", &1).unwrap();
        assert_eq!(records.document::<u32>("pool").unwrap(), Some(1));
        fs::remove_dir_all(&dir).unwrap();
    }
}
