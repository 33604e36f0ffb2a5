//! The barrier: one point at the end of a build or a pull where all that was published becomes durable, and gets
//! its name. Bytes before names: names and sizes prove nothing after a crash.

use super::Db;
use super::ids::{LayerNumber, SnapshotId};
use super::transaction::{Durable, Reader, Writer};
use crate::error::{Context as _, Kind, Result};
use crate::image::{Digest, ImageId};

/// What was published since the boot, by any process, and is not known to be on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    pub layers: Vec<LayerNumber>,
    pub snapshots: Vec<SnapshotId>,
    pub images: Vec<ImageId>,
    pub blobs: Vec<Digest>,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.snapshots.is_empty() && self.images.is_empty() && self.blobs.is_empty()
    }
}

impl Db {
    /// The barrier writes out the store's filesystem, and what `elsewhere` gives writes out the trees that are pending and lie
    /// on others; neither is done when nothing is pending. Then one transaction, itself on disk when this returns, takes note of it
    /// and does `then`. What the disk refuses ends the boot (`disk.rs`).
    ///
    /// What others have published before is made durable along with ours: whatever `then` names may stand on it.
    pub fn barrier<T, W: FnOnce() -> Result<()>>(
        &self,
        elsewhere: impl FnOnce(&Pending) -> Result<Option<W>>,
        then: impl FnOnce(&Durable<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.read(|reader| reader.pending())?.is_empty() {
            return self.durable(|durable| {
                durable.boot_goes_on()?;
                then(durable)
            });
        }
        let turn = self.turn_to_ask()?;
        let pending = self.read(|reader| reader.pending())?;
        let elsewhere = elsewhere(&pending)?;
        let rows = match pending.layers.is_empty() {
            true => Ok(()),
            // Of one file: this leaves what the filesystem is about to tell untold.
            false => self.sync_rows().context(|| "writing the rows of layers to disk"),
        };
        match rows {
            // A full disk says so before anything is lost.
            Err(error) if error.kind() == Kind::Unavailable => return Err(error),
            rows => turn.ask(rows, elsewhere)?,
        }
        self.durable(|durable| {
            durable.is_durable(&pending)?;
            then(durable)
        })
    }
}

impl Reader<'_> {
    pub fn pending(&self) -> Result<Pending> {
        let boot = (self.db.boot(),);
        // A row that only says that a blob is about to get its name (`expect_blob`) is not pending: the name may come after
        // the disk was written.
        let blobs = "select digest from blob where pending_boot = ?1 and removing = 0";
        Ok(Pending {
            layers: self.all("select id from layer where pending_boot = ?1", boot, |row| row.get(0))?,
            snapshots: self.all("select id from snapshot where pending_boot = ?1", boot, |row| row.get(0))?,
            images: self.all("select id from image where pending_boot = ?1", boot, |row| row.get(0))?,
            blobs: self.all(blobs, boot, |row| row.get(0))?,
        })
    }

    /// What was published before the last boot, was never made durable, and is referred to: to be verified
    /// (`layer_is_whole` and its like) or replaced.
    pub fn suspects(&self) -> Result<Pending> {
        let boot = (self.db.boot(),);
        Ok(Pending {
            layers: self.all("select id from layer where pending_boot <> ?1", boot, |row| row.get(0))?,
            snapshots: self
                .all("select id from snapshot where pending_boot <> ?1", boot, |row| row.get(0))?,
            images: self.all("select id from image where pending_boot <> ?1", boot, |row| row.get(0))?,
            blobs: self.all("select digest from blob where pending_boot <> ?1", boot, |row| row.get(0))?,
        })
    }
}

impl Writer<'_> {
    fn is_durable(&self, pending: &Pending) -> Result<()> {
        for layer in &pending.layers {
            self.exec("update layer set pending_boot = null where id = ?1", (layer,))?;
        }
        for snapshot in &pending.snapshots {
            self.exec("update snapshot set pending_boot = null where id = ?1", (snapshot,))?;
        }
        for image in &pending.images {
            self.exec("update image set pending_boot = null where id = ?1", (image,))?;
        }
        for blob in &pending.blobs {
            self.exec("update blob set pending_boot = null where digest = ?1", (blob,))?;
        }
        Ok(())
    }

    /// These were verified, byte by byte: they count as published in this boot, and the next barrier makes them durable.
    pub fn are_whole(&self, verified: &Pending) -> Result<()> {
        let boot = self.db.boot();
        for layer in &verified.layers {
            self.exec("update layer set pending_boot = ?2 where id = ?1", (layer, boot))?;
        }
        for snapshot in &verified.snapshots {
            self.exec("update snapshot set pending_boot = ?2 where id = ?1", (snapshot, boot))?;
        }
        for image in &verified.images {
            self.exec("update image set pending_boot = ?2 where id = ?1", (image, boot))?;
        }
        for blob in &verified.blobs {
            self.exec("update blob set pending_boot = ?2 where digest = ?1", (blob, boot))?;
        }
        Ok(())
    }

    /// When a boot begins: what was not durable goes, unless a container stands on it or somebody works on it.
    pub(super) fn drop_suspects(&self, boot: &str) -> Result<()> {
        // Rows of copies of writable layers say nothing of whether their bytes are on disk.
        for moved in self.moved()? {
            self.forget_moved(&moved.container)?;
        }
        self.exec(
            "delete from cache_record where layer in (select id from layer where pending_boot <> ?1)",
            (boot,),
        )?;
        let images: Vec<ImageId> = self.all(
            "select id from image where pending_boot <> ?1 and condemned is null order by made_at desc",
            (boot,),
            |row| row.get(0),
        )?;
        for image in images {
            if self.image_is_unused(&image)? {
                self.exec("delete from repo_digest where image = ?1", (image,))?;
                self.condemn_row(&image)?;
            }
        }
        self.condemn_unreferenced()?;
        // Those of layers that are going, and those of layers that stay and get a tree again when one is needed.
        self.exec(
            "update snapshot set state = 'removing', layer = null, chain = null
             where state = 'sealed' and pending_boot <> ?1 and id not in (
                 select parent from snapshot_parent where snapshot in (
                     select snapshot from container union all select id from snapshot where lease is not null))",
            (boot,),
        )
        .map(drop)
    }
}
