//! Volumes, and which containers use them.

use std::collections::BTreeMap;

use super::ids::ContainerId;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Context as _, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    pub name: String,
    pub made_at: Time,
    pub labels: BTreeMap<String, String>,
    /// Made for a container, without a name of its own.
    pub anonymous: bool,
}

const COLUMNS: &str = "select name, made_at, labels, anonymous from volume";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(VolumeRow, String)> {
    let volume = VolumeRow {
        name: row.get(0)?,
        made_at: row.get(1)?,
        labels: BTreeMap::new(),
        anonymous: row.get(3)?,
    };
    Ok((volume, row.get(2)?))
}

fn with_labels((volume, labels): (VolumeRow, String)) -> Result<VolumeRow> {
    let labels = serde_json::from_str(&labels)
        .context(|| format!("reading the labels of volume `{}`", volume.name))?;
    Ok(VolumeRow { labels, ..volume })
}

impl Reader<'_> {
    pub fn volume(&self, name: &str) -> Result<Option<VolumeRow>> {
        self.one(&format!("{COLUMNS} where name = ?1"), (name,), row)?.map(with_labels).transpose()
    }

    pub fn volumes(&self) -> Result<Vec<VolumeRow>> {
        self.all(&format!("{COLUMNS} order by name"), (), row)?.into_iter().map(with_labels).collect()
    }

    /// The containers that use it.
    pub fn volume_users(&self, name: &str) -> Result<Vec<ContainerId>> {
        let sql = "select distinct container from container_volume where volume = ?1 order by container";
        self.all(sql, (name,), |row| row.get(0))
    }

    /// Names and places in the container.
    pub fn volumes_of(&self, container: &ContainerId) -> Result<Vec<(String, String)>> {
        let sql =
            "select volume, destination from container_volume where container = ?1 order by destination";
        self.all(sql, (container,), |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

impl Writer<'_> {
    /// Being there already is fine; false then.
    pub fn insert_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<bool> {
        let labels = serde_json::to_string(labels).context(|| "writing labels")?;
        let inserted = self.exec(
            "insert into volume (name, made_at, labels, anonymous) values (?1, ?2, ?3, ?4) on conflict do nothing",
            (name, Time::now(), labels, anonymous),
        )?;
        Ok(inserted == 1)
    }

    pub fn use_volume(&self, container: &ContainerId, volume: &str, destination: &str) -> Result<()> {
        self.exec(
            "insert into container_volume (container, volume, destination) values (?1, ?2, ?3)
             on conflict (container, destination) do update set volume = ?2",
            (container, volume, destination),
        )
        .map(drop)
    }

    /// One without a name of its own goes, with its files, where no other container than `of` uses it. Whether it went.
    pub fn remove_nameless_volume(&self, name: &str, of: Option<&ContainerId>) -> Result<bool> {
        let nameless = self.volume(name)?.is_some_and(|volume| volume.anonymous);
        if !nameless || self.volume_users(name)?.iter().any(|user| Some(user) != of) {
            return Ok(false);
        }
        self.exec("delete from container_volume where volume = ?1", (name,))?;
        self.exec("delete from volume where name = ?1", (name,))?;
        // In the transaction: whoever takes it up looks in his whether it is there.
        self.db.to_trash(&self.db.root().join("volumes").join(name)).map(|()| true)
    }
}
