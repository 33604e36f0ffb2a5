//! Making the index again, from what lies beside it: a fresh pair of databases, filled by the caller, takes the place of
//! the old one, which is kept.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::Db;
use super::files::fold_whole_log;
use super::ids::{ContainerId, LayerNumber, SnapshotId};
use super::migrate::{FILES, INDEX};
use super::open::{alone, connect, create_pair};
use super::snapshot::{Keyed, SnapshotState};
use super::tag_log;
use super::time::Time;
use super::transaction::{Durable, Writer};
use crate::error::{Context as _, Error, Result};

/// An index in the making; nobody else has the store open while it lives. Dropped, the old one stays.
pub struct Rebuild {
    db: Db,
    /// Of the store; kept where the old index can still say it.
    uuid: String,
}

const NEW_INDEX: &str = "outcrop.db.new";
const NEW_FILES: &str = "files.db.new";

impl Rebuild {
    /// `Conflict` where other processes go on using the store.
    pub fn start(root: &Path) -> Result<Rebuild> {
        fs::create_dir_all(root.join("locks")).context(|| format!("making {}/locks", root.display()))?;
        let lock = alone(root)?;
        let uuid = old_value(root, "uuid").unwrap_or_else(super::open::new_uuid);
        for name in [NEW_INDEX, NEW_FILES] {
            for left in ["", "-wal", "-shm"] {
                remove(&root.join(format!("{name}{left}")))?;
            }
        }
        // Nobody is in an epoch of the old index.
        for entry in fs::read_dir(root.join("locks")).context(|| "listing the store's locks")? {
            let entry = entry.context(|| "listing the store's locks")?;
            if entry.file_name().to_string_lossy().starts_with("epoch-") {
                remove(&entry.path())?;
            }
        }
        create_pair(root, NEW_FILES, NEW_INDEX, &uuid)?;
        let index = connect(&root.join(NEW_INDEX))?;
        let db = Db::on(root, index, root.join(NEW_FILES), lock, false)?;
        Ok(Rebuild { db, uuid })
    }

    /// To be filled.
    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The driver that the old index named, where it can still say it.
    pub fn old_driver(&self) -> Option<String> {
        old_value(self.db.root(), "driver")
    }

    /// The new index takes the old one's place; that one is `outcrop.db.old` and `files.db.old` from now on. Nobody holds
    /// a clone of `db` any more.
    pub fn finish(self) -> Result<()> {
        let root = self.db.root().to_owned();
        let shared = Arc::try_unwrap(self.db.0)
            .map_err(|_still| Error::internal("the new index is still in use where it was to be finished"))?;
        let index = shared.index.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        fold(index)?;
        for slot in [shared.rows, shared.row_reader] {
            if let Some(rows) = slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
                fold(rows)?;
            }
        }
        for (new, name) in [(NEW_FILES, FILES.file), (NEW_INDEX, INDEX.file)] {
            File::open(root.join(new))
                .and_then(|file| file.sync_all())
                .context(|| format!("writing {new}"))?;
            for part in ["", "-wal", "-shm"] {
                keep_old(&root.join(format!("{name}{part}")), &root.join(format!("{name}.old{part}")))?;
            }
            // An old log beside a new database would be taken for its own.
            for name in [name, new] {
                remove(&root.join(format!("{name}-wal")))?;
                remove(&root.join(format!("{name}-shm")))?;
            }
            // Over the old one: at no moment is there none, which would be an empty store.
            fs::rename(root.join(new), root.join(name)).context(|| format!("naming {name}"))?;
        }
        File::open(&root).and_then(|dir| dir.sync_all()).context(|| format!("writing {}", root.display()))
    }
}

/// The write-ahead log goes into the file.
fn fold(connection: Connection) -> Result<()> {
    fold_whole_log(&connection).context(|| "writing the new index")?;
    connection.close().map_err(|(_, cause)| cause).context(|| "closing the new index")
}

/// A second name, or a copy where the filesystem has no second names. Nobody has the database open.
fn keep_old(from: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    match fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(cause).context(|| format!("putting {} aside", from.display()))
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(cause).context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What the old index says of itself, if it can still be read.
fn old_value(root: &Path, key: &str) -> Option<String> {
    let connection = connect(&root.join(INDEX.file)).ok()?;
    connection.query_row("select value from meta where key = ?1", (key,), |row| row.get(0)).ok()
}

impl Writer<'_> {
    /// Numbers are handed out from these on: above all that directories on disk have.
    pub fn number_from(&self, layer: LayerNumber, snapshot: SnapshotId) -> Result<()> {
        for (name, next) in [("layer", layer.0), ("snapshot", snapshot.0)] {
            self.exec(
                "update sequence set next = max(next, ?2), safe = max(safe, ?2 + 1024) where name = ?1",
                (name, next),
            )?;
        }
        Ok(())
    }

    /// A container that was made earlier than its row.
    pub fn container_created_at(&self, id: &ContainerId, at: Time) -> Result<()> {
        self.exec("update container set created_at = ?2 where id = ?1", (id, at)).map(drop)
    }

    /// A tree that stands on disk under this number, verified by the caller: sealed with what it holds, or a container's
    /// draft, whose container is inserted next, in the same transaction.
    pub fn adopt_snapshot(
        &self,
        id: SnapshotId,
        driver: &str,
        keyed: Option<Keyed>,
        parents: &[SnapshotId],
    ) -> Result<()> {
        let (layer, chain) = match keyed {
            Some(Keyed::Layer(layer)) => (Some(layer), None),
            Some(Keyed::Chain(chain)) => (None, Some(chain)),
            None => (None, None),
        };
        let state = if keyed.is_some() { SnapshotState::Sealed } else { SnapshotState::Draft };
        let pending = keyed.map(|_| self.db.boot());
        self.exec(
            "insert into snapshot (id, driver, state, layer, chain, made_at, pending_boot)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            // When it was sealed is not known any more.
            (id, driver, state, layer, chain, Time(0), pending),
        )?;
        for (n, parent) in parents.iter().enumerate() {
            self.exec(
                "insert into snapshot_parent (snapshot, n, parent) values (?1, ?2, ?3)",
                (id, n, parent),
            )?;
        }
        self.number_from(LayerNumber(1), SnapshotId(id.0 + 1))
    }
}

impl Durable<'_> {
    /// Takes the moves over from tags.log and sets the tags as they came out. Those whose image is not there are
    /// removed, on record; their names.
    pub fn adopt_tags(&self) -> Result<Vec<String>> {
        let path = self.db.root().join("tags.log");
        for entry in tag_log::read(self.db.root(), u64::MAX)? {
            self.exec(
                "insert into tag_log (seq, at, verb, name, from_image, to_image, target, detail)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                (
                    entry.seq,
                    entry.at,
                    entry.verb,
                    entry.name,
                    entry.from,
                    entry.to,
                    entry.target,
                    entry.detail,
                ),
            )?;
        }
        let text = match fs::read(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(cause).context(|| format!("reading {}", path.display()));
            }
            text => text.unwrap_or_default(),
        };
        // A line that was cut off is not counted: the next move ends it.
        let size = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.exec("update meta set value = ?1 where key = 'tags_log_size'", (size,))?;
        self.exec(
            "insert into tag (name, image, target, moved_at)
             select name, to_image, target, at from (
                 select name, to_image, target, at, max(seq) from tag_log group by name)
             where to_image in (select id from image)",
            (),
        )?;
        let lost: Vec<(String, crate::image::ImageId)> = self.all(
            "select name, to_image from (select name, to_image, max(seq) from tag_log group by name)
             where to_image is not null and name not in (select name from tag) order by name",
            (),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        for (name, image) in &lost {
            self.log_move(name, Some(*image), None, None, "rebuild", Some("its image was lost"))?;
        }
        Ok(lost.into_iter().map(|(name, _)| name).collect())
    }
}
