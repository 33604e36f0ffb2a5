//! files.db, opened when first needed: one connection that writes, one that reads.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::Db;
use super::migrate::{self, FILES};
use super::open::{be_patient, connect};
use crate::error::{Context as _, Error, Kind, Result};

/// Bytes of the write-ahead log from which on a barrier folds it in: who opens the file first reads all of it.
const LONG_LOG: u64 = 1 << 20;

/// Bytes free on the disk below which the log is kept as short as can be.
const SCARCE: u64 = 64 << 20;

/// Bytes of the write-ahead log of a database.
pub(super) fn log_size(database: &Path) -> u64 {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    std::fs::metadata(path).map_or(0, |log| log.len())
}

/// Folds the write-ahead log of a database into its file and empties it, unless somebody is in the way.
pub(super) fn fold_log(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let folded = fold_whole_log(connection);
    be_patient(connection)?;
    match folded {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(()),
        folded => folded,
    }
}

/// The same, waiting for whoever is in the way: nothing of the log is in use any more when it returns. What the disk refused of
/// it is told once (fsync(2)); memory has it yet, and it goes into the file.
pub(super) fn fold_refused_log(connection: &Connection) -> rusqlite::Result<()> {
    fold_whole_log(connection).or_else(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::SystemIoFailure) => fold_whole_log(connection),
        _ => Err(error),
    })
}

/// `DatabaseBusy`: for somebody in the way some of it stays.
pub(super) fn fold_whole_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| match row.get(0)? {
        false => Ok(()),
        true => {
            Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None))
        }
    })
}

/// A connection, held.
pub(super) struct RowConnection<'d> {
    db: &'d Db,
    slot: MutexGuard<'d, Option<Connection>>,
}

impl RowConnection<'_> {
    pub(super) fn connection(&self) -> &Connection {
        self.slot.as_ref().expect("opened before it is handed out")
    }

    /// Folds the write-ahead log into the file and empties it, unless a reader is in the way: another time will do.
    pub(super) fn fold_log(&mut self) -> Result<()> {
        let connection = self.slot.as_mut().expect("opened before it is handed out");
        fold_log(connection).context(|| format!("writing {}", self.db.0.rows_path.display()))
    }

    fn log_size(&self) -> u64 {
        log_size(&self.db.0.rows_path)
    }
}

impl Db {
    pub(super) fn row_writer(&self) -> Result<RowConnection<'_>> {
        self.row_connection(&self.0.rows)
    }

    pub(super) fn row_reader(&self) -> Result<RowConnection<'_>> {
        self.row_connection(&self.0.row_reader)
    }

    fn row_connection<'d>(&'d self, place: &'d Mutex<Option<Connection>>) -> Result<RowConnection<'d>> {
        let mut slot = place.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(self.connect_rows()?);
        }
        Ok(RowConnection { db: self, slot })
    }

    fn connect_rows(&self) -> Result<Connection> {
        let path = &self.0.rows_path;
        let again = |error: Error| error.hint("`outcrop system check --rebuild-index` makes it again");
        let connection = connect(path).map_err(|error| match error.kind() {
            Kind::Denied if !path.exists() => {
                again(Error::corrupt(format!("the store has no {}", path.display())))
            }
            _ => error,
        })?;
        if migrate::version(&connection, &FILES)? == migrate::Version::Older {
            return Err(again(Error::corrupt(format!("{} is older than the store", path.display()))));
        }
        let pair: String = connection
            .query_row("select pair from mark", (), |row| row.get(0))
            .context(|| format!("reading the database {}", path.display()))?;
        if self.0.pair != pair {
            return Err(again(Error::corrupt(format!("{} belongs to another index", path.display()))));
        }
        // A layer has up to millions of rows: keep the tree's inner pages at hand. The log is folded in every 2 MB, so that
        // on a full disk the reserve has room for what it holds.
        connection
            .execute_batch("PRAGMA wal_autocheckpoint = 500; PRAGMA cache_size = -16000;")
            .context(|| format!("opening the database {}", path.display()))?;
        Ok(connection)
    }

    /// All rows written so far are on disk when it returns.
    pub(super) fn sync_rows(&self) -> Result<()> {
        let mut rows = self.row_writer()?;
        let commit = |connection: &Connection| -> rusqlite::Result<()> {
            connection.pragma_update(None, "synchronous", "FULL")?;
            let written = connection.execute("update mark set value = value + 1", ());
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            written.map(drop)
        };
        commit(rows.connection()).context(|| "writing files.db")?;
        if rows.log_size() > LONG_LOG { rows.fold_log() } else { Ok(()) }
    }

    /// See [`fold_refused_log`]: of both databases. Whoever reads a log after a crash stops at what the disk refused, however much
    /// stands behind it.
    pub(super) fn fold_refused_logs(&self) -> Result<()> {
        self.with_index(fold_refused_log)?.context(|| "writing the store's index anew")?;
        fold_refused_log(self.row_writer()?.connection()).context(|| "writing files.db anew")
    }

    pub(super) fn disk_is_scarce(&self) -> Result<bool> {
        let disk = rustix::fs::statvfs(self.root()).context(|| "asking how full the disk is")?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) < SCARCE)
    }
}
