//! A store on its way to another storage driver: what is noted on the way, the moment of the switch, and that nobody works
//! with the old driver then.
//!
//! Trees of both drivers stand side by side as rows of `snapshot`. Writable layers that stand already have an intent
//! `moved` (number: the new snapshot; detail: the container and when it was last started): a container that was started
//! since has to be moved again.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::Db;
use super::ids::{ContainerId, SnapshotId};
use super::lease::{lock, open_lock_file};
use super::time::Time;
use super::transaction::{Durable, Reader, Writer};
use crate::error::{Error, Result};

/// Whoever holds one shared works with the store's driver; whoever holds it alone may switch to another.
#[derive(Debug)]
pub struct DriverLock(File);

/// Held for a moment by everybody who comes, and by whoever waits to be alone: so that he is, some time.
const GATE: &str = "driver-gate";
const DRIVER: &str = "driver";

impl DriverLock {
    fn open(locks: &Path, name: &str) -> Result<Self> {
        open_lock_file(&locks.join(name)).map(DriverLock)
    }
}

impl Drop for DriverLock {
    fn drop(&mut self) {
        // By name: a child between fork and exec still has a copy of the descriptor.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Nobody has the store's driver open but whoever has this.
#[derive(Debug)]
pub struct DriverAlone {
    _driver: DriverLock,
    /// Let go last: who waits at the gate comes in when all is done.
    _gate: DriverLock,
}

/// A container whose writable layer stands with another driver too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub container: ContainerId,
    pub snapshot: SnapshotId,
    /// As the container's row said before its layer was read.
    pub started_at: Option<Time>,
}

impl Db {
    /// While it lives, the store's driver stays what it is. Waits where somebody is switching it, or about to.
    pub fn keep_driver(&self) -> Result<DriverLock> {
        let gate = DriverLock::open(&self.0.locks, GATE)?;
        lock(&gate.0, FlockOperation::LockShared)?;
        let driver = DriverLock::open(&self.0.locks, DRIVER)?;
        lock(&driver.0, FlockOperation::LockShared)?;
        Ok(driver)
    }

    /// Lets nobody in, and waits for those who are. `wait` is called between two looks; its error ends the waiting.
    pub fn driver_alone(&self, wait: &mut dyn FnMut() -> Result<()>) -> Result<DriverAlone> {
        let gate = DriverLock::open(&self.0.locks, GATE)?;
        lock(&gate.0, FlockOperation::LockExclusive)?;
        let driver = DriverLock::open(&self.0.locks, DRIVER)?;
        while !lock(&driver.0, FlockOperation::NonBlockingLockExclusive)? {
            wait()?;
        }
        Ok(DriverAlone { _driver: driver, _gate: gate })
    }

    /// Sees all as it is now, and nothing of what was removed before.
    pub fn enter_anew(&self) -> Result<()> {
        self.enter_epoch()
    }
}

fn options_key(driver: &str) -> String {
    format!("driver_options:{driver}")
}

impl Reader<'_> {
    /// The driver that an unfinished migration leads to.
    pub fn migrating_to(&self) -> Result<Option<String>> {
        self.one("select value from meta where key = 'migrating_to'", (), |row| row.get(0))
    }

    /// What a driver was told that a migration leads to, or came from, `NAME=VALUE` each.
    pub fn options_of(&self, driver: &str) -> Result<Vec<String>> {
        let lines: Option<String> =
            self.one("select value from meta where key = ?1", (options_key(driver),), |row| row.get(0))?;
        Ok(lines.unwrap_or_default().lines().map(str::to_owned).collect())
    }

    pub fn moved(&self) -> Result<Vec<Moved>> {
        let rows: Vec<(SnapshotId, String)> =
            self.all("select number, detail from intent where what = 'moved' order by id", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        rows.into_iter().map(|(snapshot, detail)| parse(snapshot, &detail)).collect()
    }
}

fn parse(snapshot: SnapshotId, detail: &str) -> Result<Moved> {
    let damaged =
        || Error::corrupt(format!("the store's index says `{detail}` of a container that is being moved"));
    let (container, started) = detail.split_once(' ').ok_or_else(damaged)?;
    let started_at = match started {
        "-" => None,
        number => Some(Time(number.parse().map_err(|_no_number| damaged())?)),
    };
    Ok(Moved { container: container.parse().map_err(|_no_id| damaged())?, snapshot, started_at })
}

impl Writer<'_> {
    /// A draft of the other driver holds what the container's writable layer holds; this keeps it in place of its lease.
    /// One from before goes.
    pub fn container_moved(&self, moved: &Moved) -> Result<()> {
        self.forget_moved(&moved.container)?;
        let started = moved.started_at.map_or_else(|| "-".to_owned(), |at| at.0.to_string());
        let detail = format!("{} {started}", moved.container);
        self.insert_intent("moved", Some(moved.snapshot.0), Some(&detail), None)?;
        self.exec("update snapshot set lease = null where id = ?1 and state = 'draft'", (moved.snapshot,))
            .map(drop)
    }

    /// What stands of the container with the other driver is to go.
    pub fn forget_moved(&self, container: &ContainerId) -> Result<()> {
        for moved in self.moved()?.into_iter().filter(|moved| moved.container == *container) {
            self.exec("delete from intent where what = 'moved' and number = ?1", (moved.snapshot,))?;
            self.remove_snapshot(moved.snapshot)?;
        }
        Ok(())
    }

    fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        self.exec(
            "insert into meta (key, value) values (?1, ?2) on conflict (key) do update set value = ?2",
            (key, value),
        )
        .map(drop)
    }

    /// Layers that only the build cache keeps and that have no tree of this driver, which keeps each layer by itself: their
    /// records go, and they with them. How many records they were.
    pub fn forget_layers_without_tree(&self, driver: &str) -> Result<usize> {
        let gone = self.exec(
            "delete from cache_record where layer is not null and not exists (
                 select 1 from snapshot where snapshot.layer = cache_record.layer and snapshot.driver = ?1)",
            (driver,),
        )?;
        self.condemn_unreferenced()?;
        Ok(gone)
    }
}

impl Durable<'_> {
    /// From now on trees of that driver stand for a reason.
    pub fn start_migration(&self, to: &str, options: &[String]) -> Result<()> {
        self.set_meta("migrating_to", to)?;
        self.set_meta(&options_key(to), &options.join("\n"))
    }

    /// All trees of other drivers than the store's go.
    pub fn end_migration(&self) -> Result<()> {
        for moved in self.moved()? {
            self.forget_moved(&moved.container)?;
        }
        self.exec(
            "update snapshot set state = 'removing', lease = null, layer = null, chain = null
             where state <> 'removing' and driver <> (select value from meta where key = 'driver')",
            (),
        )?;
        self.exec("delete from meta where key = 'migrating_to'", ()).map(drop)
    }

    /// The one moment: the store's driver is the one that the migration led to, its containers have the trees that were
    /// moved, and the old trees are to go. All of the new ones is on disk, and nobody works with the old ones.
    pub fn switch_driver(&self) -> Result<()> {
        let to = self.migrating_to()?.ok_or_else(|| Error::internal("no migration is under way"))?;
        let from = self.driver()?.ok_or_else(|| Error::internal("the store has no driver to switch from"))?;
        for moved in self.moved()? {
            self.exec(
                "update container set snapshot = ?2 where id = ?1",
                (&moved.container, moved.snapshot),
            )?;
            self.exec("delete from intent where what = 'moved' and number = ?1", (moved.snapshot,))?;
        }
        let left: Option<ContainerId> = self.one(
            "select container.id from container join snapshot on snapshot.id = container.snapshot
             where container.state <> 'removing' and snapshot.driver <> ?1",
            (&to,),
            |row| row.get(0),
        )?;
        if let Some(left) = left {
            return Err(Error::internal(format!(
                "container {} has no tree of the driver `{to}`",
                left.short()
            )));
        }
        // Whoever removes the old trees opens the old driver as it was told to work.
        self.set_meta(&options_key(&from), &self.driver_options()?.join("\n"))?;
        self.set_driver(&to, &self.options_of(&to)?)?;
        self.end_migration()
    }
}
