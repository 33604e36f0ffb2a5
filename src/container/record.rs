//! What the index knows of a container, said again in its own directory, for whoever makes the index again.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::db::{ContainerId, ContainerRow, SnapshotId, Time};
use crate::error::{Context as _, Result};
use crate::image::ImageId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub image: ImageId,
    /// Of the store's driver.
    pub snapshot: SnapshotId,
    /// The same with the driver that the store is moved to, or was until a moment ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<SnapshotId>,
    pub auto_remove: bool,
    /// RFC 3339.
    pub created: String,
    /// JSON, as in the row.
    pub config: String,
    /// Names and places in the container.
    #[serde(default)]
    pub volumes: Vec<(String, String)>,
}

fn path(root: &Path, id: &ContainerId) -> PathBuf {
    root.join("containers").join(id.as_str()).join("config.json")
}

impl Record {
    pub(super) fn of(row: &ContainerRow, volumes: Vec<(String, String)>) -> Self {
        Record {
            name: row.name.clone(),
            image: row.image,
            snapshot: row.snapshot,
            moved: None,
            auto_remove: row.auto_remove,
            created: row.created_at.to_string(),
            config: row.config.clone(),
            volumes,
        }
    }

    /// Its directory stands. Killed meanwhile, it is as it was.
    pub(super) fn write(&self, root: &Path, id: &ContainerId) -> Result<()> {
        let path = path(root, id);
        let text = serde_json::to_vec(self).context(|| "writing a container's configuration")?;
        let draft = path.with_extension("making");
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .context(|| format!("writing {}", path.display()))
    }

    /// `None` where there is none, or none that can be read.
    pub fn read(root: &Path, id: &ContainerId) -> Result<Option<Record>> {
        let path = path(root, id);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause).context(|| format!("reading {}", path.display())),
        }
    }

    pub fn created_at(&self) -> Time {
        self.created.parse().unwrap_or_else(|_unreadable| Time::now())
    }
}
