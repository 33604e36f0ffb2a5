//! Transactions on the index. All look-ups are methods of [`Reader`], all changes methods of [`Writer`]; the files of
//! this room add theirs, one group of tables each.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::{MutexGuard, PoisonError};
use std::thread;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use super::Db;
use super::asking::Asking;
use super::files::{fold_log, fold_refused_log, log_size};
use super::tag_log::TagMove;
use crate::error::{Context as _, Error, Result};

/// Bytes of the index's log from which on a transaction that waits for the disk folds it in, and one that does not.
const LONG_LOG: u64 = 256 << 10;
const LONGEST_LOG: u64 = 4 << 20;

/// One consistent look at the index.
pub struct Reader<'c> {
    pub(super) connection: &'c Connection,
    pub(super) db: &'c Db,
}

/// Changes, all or none of which come to be. A `Writer` is a `Reader` too.
pub struct Writer<'c> {
    reader: Reader<'c>,
    /// Numbers handed out come near those that are known to be free after a power cut.
    pub(super) numbers_low: Cell<bool>,
}

/// Changes that are on disk when the transaction has ended; the only place where tags move.
pub struct Durable<'c> {
    writer: Writer<'c>,
    /// Lines for tags.log, written before the transaction commits.
    pub(super) moves: RefCell<Vec<TagMove>>,
}

impl<'c> Deref for Writer<'c> {
    type Target = Reader<'c>;
    fn deref(&self) -> &Reader<'c> {
        &self.reader
    }
}
impl<'c> Deref for Durable<'c> {
    type Target = Writer<'c>;
    fn deref(&self) -> &Writer<'c> {
        &self.writer
    }
}

/// The closures must not begin another transaction on the same store: they are given all they need.
impl Db {
    /// Looks.
    pub fn read<T>(&self, look: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        let turn = Turn::take(self)?;
        run(&turn.connection, "BEGIN", |connection| look(&Reader { connection, db: self }))
    }

    /// Changes, atomically and in order; but a power cut may undo the latest ones, all from some point on.
    pub fn write<T>(&self, change: impl FnOnce(&Writer<'_>) -> Result<T>) -> Result<T> {
        let mut turn = Turn::take(self)?;
        let (value, low) = run(&turn.connection, "BEGIN IMMEDIATE", |connection| {
            let writer = self.writer(connection);
            Ok((change(&writer)?, writer.numbers_low.get()))
        })?;
        if low {
            turn.durably(|connection| self.writer(connection).raise_safe_numbers())?;
        } else if turn.log_size() > LONGEST_LOG
            && let Err(error) = turn.shorten_log()
        {
            // What was changed need not be on disk yet.
            tracing::warn!(%error, "the index's log stays long");
        }
        Ok(value)
    }

    /// Changes that are on disk when it returns, with all that was changed before. For what takes names or references
    /// away; what gives a name to new bytes is [`Db::barrier`].
    pub fn durable<T>(&self, change: impl FnOnce(&Durable<'_>) -> Result<T>) -> Result<T> {
        Turn::take(self)?.durably(|connection| {
            let durable = Durable { writer: self.writer(connection), moves: RefCell::new(Vec::new()) };
            let value = change(&durable)?;
            durable.write_tag_log()?;
            Ok(value)
        })
    }

    /// The index's connection, in no transaction.
    pub(super) fn with_index<T>(&self, work: impl FnOnce(&Connection) -> T) -> Result<T> {
        Ok(work(&Turn::take(self)?.connection))
    }

    /// Makes the changes, looks at what they come to, and undoes them.
    pub fn what_if<T>(&self, change: impl FnOnce(&Writer<'_>) -> Result<T>) -> Result<T> {
        let turn = Turn::take(self)?;
        let mut outcome = Err(Error::cancelled());
        let undone = run(&turn.connection, "BEGIN IMMEDIATE", |connection| {
            outcome = change(&self.writer(connection));
            Err::<(), _>(Error::cancelled())
        });
        match undone {
            Err(error) if outcome.is_err() && error.kind() != crate::error::Kind::Cancelled => Err(error),
            _ => outcome,
        }
    }

    fn writer<'c>(&'c self, connection: &'c Connection) -> Writer<'c> {
        Writer { reader: Reader { connection, db: self }, numbers_low: Cell::new(false) }
    }
}

/// The connection, held. A thread that holds it already gets an error in place of a deadlock.
struct Turn<'d> {
    db: &'d Db,
    connection: MutexGuard<'d, Connection>,
}

impl<'d> Turn<'d> {
    fn take(db: &'d Db) -> Result<Self> {
        let me = thread::current().id();
        if *db.0.holder.lock().unwrap_or_else(PoisonError::into_inner) == Some(me) {
            return Err(Error::internal("a transaction was begun inside another one of the same store"));
        }
        let connection = db.0.index.lock().unwrap_or_else(PoisonError::into_inner);
        *db.0.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(me);
        Ok(Turn { db, connection })
    }

    /// SQLite waits for the disk at a commit only in this mode (sqlite.org/pragma.html, "synchronous").
    fn durably<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let asking = self.asking_of_log()?;
        let mode = |mode: &str| {
            self.connection
                .pragma_update(None, "synchronous", mode)
                .context(|| "setting how the store's index is written")
        };
        mode("FULL")?;
        let is_made = Cell::new(false);
        let outcome = run(&self.connection, "BEGIN IMMEDIATE", |connection| {
            work(connection).inspect(|_| is_made.set(true))
        });
        mode("NORMAL")?;
        asking.end_if(match &outcome {
            // It was the commit that failed.
            Err(_) if is_made.get() => is_well(fold_refused_log(&self.connection)),
            // The first process of several that opens the index reads all of its log: one of a thousand pages would be a third
            // of what a small command takes. Who waits for the disk anyway folds it into the file.
            _ => self.log_size() <= LONG_LOG || self.fold_log(),
        });
        outcome
    }

    /// A turn for what waits until the log is on disk. Whoever reads the log after a power cut stops at the first page that
    /// the disk refused, and that is told once: until it is mended nobody adds to it what must last.
    fn asking_of_log(&self) -> Result<Asking> {
        let asking = Asking::turn(&self.db.0.locks.join("log"), self.db.boot())?;
        if asking.was_left()? {
            fold_refused_log(&self.connection).context(|| "writing the store's index anew")?;
        }
        asking.begin()?;
        Ok(asking)
    }

    /// Bytes.
    fn log_size(&self) -> u64 {
        log_size(&self.db.0.root.join("outcrop.db"))
    }

    fn shorten_log(&mut self) -> Result<()> {
        let asking = self.asking_of_log()?;
        asking.end_if(self.fold_log());
        Ok(())
    }

    /// False: the disk refused something.
    fn fold_log(&mut self) -> bool {
        is_well(fold_log(&mut self.connection)) || is_well(fold_refused_log(&self.connection))
    }
}

fn is_well(folded: rusqlite::Result<()>) -> bool {
    folded.inspect_err(|error| tracing::warn!(%error, "the index's log stays as it is")).is_ok()
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.db.0.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// `work` in a transaction that is undone if it fails.
pub(super) fn run<T>(
    connection: &Connection,
    begin: &str,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    struct Rollback<'c>(&'c Connection);
    impl Drop for Rollback<'_> {
        fn drop(&mut self) {
            if !self.0.is_autocommit() {
                drop(self.0.execute_batch("ROLLBACK"));
            }
        }
    }
    let step =
        |sql: &str| connection.prepare_cached(sql).and_then(|mut statement| statement.execute(())).map(drop);
    step(begin).context(|| "starting a transaction on the store's index").map_err(|error| {
        match error.kind() {
            crate::error::Kind::Unavailable => {
                error.hint("another outcrop process has been writing for long; try again")
            }
            _ => error,
        }
    })?;
    let _rollback = Rollback(connection);
    let value = work(connection)?;
    step("COMMIT").context(|| "writing the store's index")?;
    Ok(value)
}

/// What the files of this room make their look-ups with.
impl Reader<'_> {
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let find = || self.connection.prepare_cached(sql)?.query_row(params, row).optional();
        find().context(|| "reading the store's index")
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let list =
            || self.connection.prepare_cached(sql)?.query_map(params, row)?.collect::<rusqlite::Result<_>>();
        list().context(|| "reading the store's index")
    }

    /// The one value of a query that always has one.
    pub(super) fn value<T: FromSql>(&self, sql: &str, params: impl Params) -> Result<T> {
        let get = || self.connection.prepare_cached(sql)?.query_row(params, |row| row.get(0));
        get().context(|| "reading the store's index")
    }
}

impl Writer<'_> {
    /// Returns how many rows it changed.
    pub(super) fn exec(&self, sql: &str, params: impl Params) -> Result<usize> {
        let exec = || self.connection.prepare_cached(sql)?.execute(params);
        exec().context(|| "changing the store's index")
    }

    pub(super) fn last_id(&self) -> u64 {
        u64::try_from(self.connection.last_insert_rowid()).expect("row ids count up from 1")
    }

    /// The next number of a sequence.
    pub(super) fn next_number(&self, sequence: &str) -> Result<u64> {
        let next = self.one(
            "update sequence set next = next + 1 where name = ?1 returning next - 1, safe",
            (sequence,),
            |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)),
        )?;
        let (number, safe) =
            next.ok_or_else(|| Error::corrupt(format!("the store's index has no sequence `{sequence}`")))?;
        // Those beyond would come back if the power were cut before the ceiling is raised: 64 is far off.
        if number + 64 > safe {
            self.numbers_low.set(true);
        }
        Ok(number)
    }

    fn raise_safe_numbers(&self) -> Result<()> {
        self.exec("update sequence set safe = next + 1024 where next + 64 > safe", ()).map(drop)
    }
}
