//! Containers, each with its writable layer.

use super::ids::{ContainerId, SnapshotId, words};
use super::lease::Lease;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Error, Result};
use crate::image::{Digest, ImageId};

words! {
    ContainerState {
        Created = "created",
        /// Its supervisor holds a lease.
        Running = "running",
        Exited = "exited",
        /// Its tree and directory are going.
        Removing = "removing",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRow {
    pub id: ContainerId,
    pub name: String,
    pub image: ImageId,
    /// Its writable layer.
    pub snapshot: SnapshotId,
    pub state: ContainerState,
    pub exit_code: Option<i32>,
    pub lease: Option<String>,
    pub created_at: Time,
    pub started_at: Option<Time>,
    pub finished_at: Option<Time>,
    /// It goes when it ends.
    pub auto_remove: bool,
    /// JSON.
    pub config: String,
}

#[derive(Clone, Debug)]
pub struct NewContainer {
    pub id: ContainerId,
    pub name: String,
    pub image: ImageId,
    /// A draft; from now on the container holds it in place of its lease.
    pub snapshot: SnapshotId,
    pub auto_remove: bool,
    /// JSON.
    pub config: String,
}

/// Docker's words, which scripts look for.
pub fn name_is_taken(name: &str, by: &ContainerId) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{by}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
    .hint(format!("remove it (`outcrop rm {}`) or take another name", by.short()))
}

const COLUMNS: &str = "select id, name, image, snapshot, state, exit_code, lease, created_at, started_at, \
                       finished_at, auto_remove, config from container";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ContainerRow> {
    Ok(ContainerRow {
        id: row.get(0)?,
        name: row.get(1)?,
        image: row.get(2)?,
        snapshot: row.get(3)?,
        state: row.get(4)?,
        exit_code: row.get(5)?,
        lease: row.get(6)?,
        created_at: row.get(7)?,
        started_at: row.get(8)?,
        finished_at: row.get(9)?,
        auto_remove: row.get(10)?,
        config: row.get(11)?,
    })
}

impl Reader<'_> {
    pub fn container(&self, id: &ContainerId) -> Result<Option<ContainerRow>> {
        self.one(&format!("{COLUMNS} where id = ?1"), (id,), row)
    }

    pub fn container_by_name(&self, name: &str) -> Result<Option<ContainerRow>> {
        self.one(&format!("{COLUMNS} where name = ?1"), (name,), row)
    }

    pub fn containers_by_prefix(&self, hex: &str) -> Result<Vec<ContainerRow>> {
        if Digest::from_hex(&format!("{hex:0<64}")).is_none() {
            return Ok(Vec::new());
        }
        self.all(&format!("{COLUMNS} where id between ?1 and ?1 || 'g'"), (hex,), row)
    }

    /// The latest first.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.all(&format!("{COLUMNS} order by created_at desc, id"), (), row)
    }

    /// Those that stand on the image: one that is going holds nothing.
    pub fn containers_of(&self, image: &ImageId) -> Result<Vec<ContainerRow>> {
        let sql = format!("{COLUMNS} where image = ?1 and state <> 'removing' order by created_at");
        self.all(&sql, (image,), row)
    }
}

impl Writer<'_> {
    /// `Conflict` where the name is taken.
    pub fn insert_container(&self, new: &NewContainer) -> Result<()> {
        if let Some(other) = self.container_by_name(&new.name)? {
            return Err(name_is_taken(&new.name, &other.id));
        }
        self.exec(
            "insert into container (id, name, image, snapshot, state, created_at, auto_remove, config)
             values (?1, ?2, ?3, ?4, 'created', ?5, ?6, ?7)",
            (&new.id, &new.name, new.image, new.snapshot, Time::now(), new.auto_remove, &new.config),
        )?;
        self.exec("update snapshot set lease = null where id = ?1", (new.snapshot,))?;
        self.keep_image(&new.image)
    }

    /// About to be started by whoever holds the lease: if that one dies before, it stays as it is, or goes where it was to go
    /// with its end.
    pub fn container_is_starting(&self, id: &ContainerId, lease: &Lease) -> Result<()> {
        let changed = self.exec(
            "update container set lease = ?2 where id = ?1 and state = 'created'",
            (id, lease.name()),
        )?;
        self.one_container(changed, id, "started")
    }

    /// Running as long as the lease is held. `Conflict` where it runs or goes already.
    pub fn container_started(&self, id: &ContainerId, lease: &Lease) -> Result<()> {
        let changed = self.exec(
            "update container set state = 'running', lease = ?2, started_at = ?3, finished_at = null,
                 exit_code = null
             where id = ?1 and state in ('created', 'exited')",
            (id, lease.name(), Time::now()),
        )?;
        self.one_container(changed, id, "started")
    }

    pub fn container_exited(&self, id: &ContainerId, exit_code: i32) -> Result<()> {
        let changed = self.exec(
            "update container set state = 'exited', lease = null, exit_code = ?2, finished_at = ?3
             where id = ?1 and state in ('created', 'running')",
            (id, exit_code, Time::now()),
        )?;
        self.one_container(changed, id, "ended")
    }

    /// Its command could not be started: it is as it was when it was created, with the code of the attempt.
    pub fn container_refused(&self, id: &ContainerId, exit_code: i32) -> Result<()> {
        let changed = self.exec(
            "update container set state = 'created', lease = null, exit_code = ?2, started_at = null,
                 finished_at = null
             where id = ?1 and state = 'running'",
            (id, exit_code),
        )?;
        self.one_container(changed, id, "started")
    }

    pub fn rename_container(&self, id: &ContainerId, name: &str) -> Result<()> {
        if self.container_by_name(name)?.is_some_and(|other| other.id != *id) {
            return Err(Error::conflict(format!("the name `{name}` is in use")));
        }
        let changed = self.exec("update container set name = ?2 where id = ?1", (id, name))?;
        self.one_container(changed, id, "renamed")
    }

    /// Nobody may use it from now on; its name is free. `Db::sweep` removes its tree and directory, then the row.
    pub fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let changed = self.exec(
            "update container set state = 'removing', lease = null, name = 'removing-' || id
             where id = ?1 and state in ('created', 'exited', 'removing')",
            (id,),
        )?;
        self.exec("delete from container_volume where container = ?1", (id,))?;
        self.one_container(changed, id, "removed")
    }

    fn one_container(&self, changed: usize, id: &ContainerId, what: &str) -> Result<()> {
        if changed == 1 {
            return Ok(());
        }
        match self.container(id)? {
            None => Err(Error::not_found(format!("no container {}", id.short()))),
            Some(row) => Err(Error::conflict(format!(
                "container {} is {} and cannot be {what}",
                id.short(),
                row.state
            ))),
        }
    }
}
