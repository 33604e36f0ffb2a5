//! Snapshots that are gone for everybody but ZFS: it keeps a dataset as long as a clone of it stands or somebody has it
//! mounted. An empty file `<root>/zfs/removed/<n>` says so of each; whatever is removed next tries them again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::super::SnapshotId;
use crate::error::{Context as _, Result};

pub(super) struct Removed(pub(super) PathBuf);

impl Removed {
    pub(super) fn add(&self, id: SnapshotId) -> Result<()> {
        let path = self.0.join(id.to_string());
        fs::write(&path, "").context(|| format!("writing {}", path.display()))
    }

    /// Its dataset is gone, too.
    pub(super) fn forget(&self, id: SnapshotId) -> Result<()> {
        let path = self.0.join(id.to_string());
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(cause).context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn all(&self) -> Result<BTreeSet<SnapshotId>> {
        let doing = || format!("listing {}", self.0.display());
        let mut all = BTreeSet::new();
        for entry in fs::read_dir(&self.0).context(doing)? {
            let name = entry.context(doing)?.file_name();
            all.extend(name.to_str().and_then(|name| name.parse().ok()).map(SnapshotId));
        }
        Ok(all)
    }
}

/// Which of the removed can go now, in this order: those that nothing which stays was made from. `datasets`: all that
/// stand, each with the one it is a clone of.
pub(super) fn can_go(
    datasets: &[(SnapshotId, Option<SnapshotId>)],
    removed: &BTreeSet<SnapshotId>,
) -> Vec<SnapshotId> {
    let mut needed: BTreeSet<SnapshotId> = BTreeSet::new();
    let mut going = Vec::new();
    // A clone is younger than what it was made from, and has the greater number.
    let mut datasets = datasets.to_vec();
    datasets.sort_by(|one, other| other.cmp(one));
    for (id, origin) in datasets {
        if removed.contains(&id) && !needed.contains(&id) {
            going.push(id);
        } else {
            needed.extend(origin);
        }
    }
    going
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_clone_was_made_from_stays() {
        let id = SnapshotId;
        let datasets =
            [(id(1), None), (id(2), Some(id(1))), (id(10), Some(id(2))), (id(3), Some(id(1))), (id(4), None)];
        let removed = |ids: &[u64]| ids.iter().copied().map(SnapshotId).collect();
        let going = |ids: &[u64]| can_go(&datasets, &removed(ids)).iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(going(&[1, 2]), [0; 0]);
        assert_eq!(going(&[1, 2, 10]), [10, 2]);
        assert_eq!(going(&[1, 2, 3, 10]), [10, 3, 2, 1]);
        assert_eq!(going(&[1, 3, 4, 99]), [4, 3]);
    }
}
