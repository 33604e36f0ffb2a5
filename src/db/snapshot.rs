//! Snapshots as rows: a driver's numbered trees. The row comes before the tree and goes after it.

use super::ids::{LayerNumber, SnapshotId, words};
use super::lease::Lease;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Error, Result};
use crate::image::ChainId;

words! {
    /// Life of a snapshot, in order; any may be left out but the first.
    SnapshotState {
        /// The row stands, the tree may not.
        Making = "making",
        /// The tree stands and changes.
        Draft = "draft",
        /// It changes no more.
        Sealed = "sealed",
        /// Nobody may use it; the tree is going.
        Removing = "removing",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    pub id: SnapshotId,
    pub driver: String,
    pub state: SnapshotState,
    /// What a sealed one of a Layered driver holds.
    pub layer: Option<LayerNumber>,
    /// What a sealed one of a Stacked driver holds.
    pub chain: Option<ChainId>,
    /// Who is at work on it; a container's writable layer has none, the container holds it.
    pub lease: Option<String>,
    /// Of a sealed one: when it was sealed; it did not change since. Long ago where nobody knows.
    pub made_at: Time,
}

/// What a sealed snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keyed {
    Layer(LayerNumber),
    Chain(ChainId),
}

/// How sealing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    Now,
    /// This one has held the same before; ours is to be removed.
    Already(SnapshotId),
}

const COLUMNS: &str = "select id, driver, state, layer, chain, lease, made_at from snapshot";

const KEYED: &str =
    "select id from snapshot where driver = ?2 and (pending_boot is null or pending_boot = ?3) and";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<SnapshotRow> {
    Ok(SnapshotRow {
        id: row.get(0)?,
        driver: row.get(1)?,
        state: row.get(2)?,
        layer: row.get(3)?,
        chain: row.get(4)?,
        lease: row.get(5)?,
        made_at: row.get(6)?,
    })
}

impl Reader<'_> {
    pub fn snapshot(&self, id: SnapshotId) -> Result<Option<SnapshotRow>> {
        self.one(&format!("{COLUMNS} where id = ?1"), (id,), row)
    }

    /// Nearest first.
    pub fn snapshot_parents(&self, id: SnapshotId) -> Result<Vec<SnapshotId>> {
        let sql = "select parent from snapshot_parent where snapshot = ?1 order by n";
        self.all(sql, (id,), |row| row.get(0))
    }

    /// What the parents of a snapshot of a Layered driver hold, nearest first.
    pub fn parent_layers(&self, id: SnapshotId) -> Result<Vec<(LayerNumber, SnapshotId)>> {
        let sql = "select layer, parent from snapshot_parent join snapshot on id = parent
                   where snapshot = ?1 and layer is not null order by n";
        self.all(sql, (id,), |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// The sealed snapshot that holds it, unless it may not have survived a crash.
    pub fn snapshot_of(&self, driver: &str, keyed: Keyed) -> Result<Option<SnapshotId>> {
        let id = |row: &rusqlite::Row<'_>| row.get(0);
        match keyed {
            Keyed::Layer(layer) => {
                self.one(&format!("{KEYED} layer = ?1"), (layer, driver, self.db.boot()), id)
            }
            Keyed::Chain(chain) => {
                self.one(&format!("{KEYED} chain = ?1"), (chain, driver, self.db.boot()), id)
            }
        }
    }

    pub fn snapshots(&self) -> Result<Vec<SnapshotRow>> {
        self.all(&format!("{COLUMNS} order by id"), (), row)
    }

    /// Those that are to go, the latest first, so that none goes before what stands on it.
    pub fn removing_snapshots(&self) -> Result<Vec<SnapshotRow>> {
        self.all(
            &format!("{COLUMNS} where state <> 'sealed' and state = 'removing' order by id desc"),
            (),
            row,
        )
    }
}

impl Writer<'_> {
    /// A new number, in state `making`, held by `lease`. Parents nearest first, all sealed.
    pub fn new_snapshot(&self, driver: &str, parents: &[SnapshotId], lease: &Lease) -> Result<SnapshotId> {
        let id = SnapshotId(self.next_number("snapshot")?);
        self.exec(
            "insert into snapshot (id, driver, state, lease, made_at) values (?1, ?2, 'making', ?3, ?4)",
            (id, driver, lease.name(), Time::now()),
        )?;
        for (n, parent) in parents.iter().enumerate() {
            let added = self.exec(
                "insert into snapshot_parent (snapshot, n, parent)
                 select ?1, ?2, id from snapshot where id = ?3 and state = 'sealed'",
                (id, n, parent),
            )?;
            if added == 0 {
                return Err(Error::conflict(format!("snapshot {parent} is not there to stand on")));
            }
        }
        Ok(id)
    }

    /// Its tree stands.
    pub fn snapshot_made(&self, id: SnapshotId) -> Result<()> {
        self.changed(
            id,
            self.exec("update snapshot set state = 'draft' where id = ?1 and state = 'making'", (id,))?,
        )
    }

    /// Read-only from now on, and kept by what it holds in place of its lease. `Keyed`'s row must stand already.
    pub fn seal_snapshot(&self, id: SnapshotId, keyed: Keyed) -> Result<Sealed> {
        self.boot_goes_on()?;
        let driver: String = self.value("select driver from snapshot where id = ?1", (id,))?;
        if let Some(other) = self.snapshot_of(&driver, keyed)? {
            if other == id {
                return Ok(Sealed::Now);
            }
            return Ok(Sealed::Already(other));
        }
        let (layer, chain) = match keyed {
            Keyed::Layer(layer) => (Some(layer), None),
            Keyed::Chain(chain) => (None, Some(chain)),
        };
        // One that may not have survived a crash stands aside.
        self.exec(
            "update snapshot set layer = null, chain = null, state = 'removing'
             where driver = ?1 and (layer = ?2 or chain = ?3)",
            (driver, layer, chain),
        )?;
        let sealed = self.exec(
            "update snapshot set state = 'sealed', lease = null, layer = ?2, chain = ?3, pending_boot = ?4, made_at = ?5
             where id = ?1 and state in ('making', 'draft')",
            (id, layer, chain, self.db.boot(), Time::now()),
        )?;
        self.changed(id, sealed)?;
        if layer.is_some() {
            // The tree of a layer alone needs none of what it was made on.
            self.exec("delete from snapshot_parent where snapshot = ?1", (id,))?;
        }
        Ok(Sealed::Now)
    }

    /// Nobody may use it from now on. Once its tree is gone: [`Writer::forget_snapshot`].
    pub fn remove_snapshot(&self, id: SnapshotId) -> Result<()> {
        self.exec(
            "update snapshot set state = 'removing', lease = null, layer = null, chain = null where id = ?1",
            (id,),
        )
        .map(drop)
    }

    /// Its tree is gone.
    pub fn forget_snapshot(&self, id: SnapshotId) -> Result<()> {
        self.exec("delete from snapshot where id = ?1 and state = 'removing'", (id,)).map(drop)
    }

    fn changed(&self, id: SnapshotId, rows: usize) -> Result<()> {
        match rows {
            1 => Ok(()),
            _ => Err(Error::conflict(format!("snapshot {id} is not what it was: somebody removed it"))),
        }
    }
}
