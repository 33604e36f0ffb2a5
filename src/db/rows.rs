//! files.db: one row for each file of each layer. Rows are written under a number that nothing refers to yet, at most
//! 10,000 in a transaction, so that other processes never wait long; the layer's row in the index publishes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::vec;

use rusqlite::Connection;

use super::Db;
use super::ids::LayerNumber;
use super::lease::Lease;
use super::transaction::run;
use crate::error::{Context as _, Error, Result};
use crate::image::{DiffId, Digest};
use crate::layer::{Kind, Row, RowSink};

/// Rows in one transaction.
const CHUNK: usize = 10_000;
/// Bytes of paths, targets and attributes in one transaction: they have no bound of their own.
const CHUNK_BYTES: usize = 1 << 20;
/// Rows read at once.
const PAGE: u32 = 1_000;

/// A number for a layer in the making. Dropped before the layer is published, its rows go; if its process dies before
/// that, `Db::sweep` removes them.
pub struct LayerSlot {
    db: Db,
    number: LayerNumber,
}

impl Db {
    pub fn reserve_layer(&self, lease: &Lease) -> Result<LayerSlot> {
        let number = self.write(|writer| {
            let number = writer.next_number("layer")?;
            writer.intend("layer", Some(number), None, lease)?;
            Ok(LayerNumber(number))
        })?;
        Ok(LayerSlot { db: self.clone(), number })
    }
}

impl LayerSlot {
    pub fn number(&self) -> LayerNumber {
        self.number
    }

    /// Gives the layer's recipe, complete in the file `making`, its name; not durable before the barrier. Where the layer
    /// stands already and is durable, so is its recipe, and that one stays.
    pub fn keep_recipe(&self, making: &Path, diff_id: &DiffId) -> Result<()> {
        let naming = || format!("keeping the recipe of layer {}", diff_id.short());
        // Before it has its name, so that the sweep finds it by that.
        self.db.write(|writer| {
            writer
                .exec(
                    "update intent set detail = ?2 where what = 'layer' and number = ?1",
                    (self.number, diff_id.to_string()),
                )
                .map(drop)
        })?;
        self.db.write(|writer| {
            let path = self.db.root().join("layers").join(diff_id.hex());
            let durable: bool = writer.value(
                "select exists (select 1 from layer where diff_id = ?1 and pending_boot is null)",
                (diff_id,),
            )?;
            if durable && path.try_exists().context(naming)? {
                return std::fs::remove_file(making).context(naming);
            }
            std::fs::rename(making, path).context(naming)
        })
    }

    /// Writes the layer's rows, once.
    pub fn rows(&self) -> Result<RowWriter> {
        // A power cut may have lost the row that reserved this number and left some under it.
        self.db.remove_rows(self.number)?;
        Ok(RowWriter { db: self.db.clone(), number: self.number, rows: Vec::new(), bytes: 0, flushed: false })
    }

    /// Gives the rows up, unless they were published; what goes wrong is left to `sweep`.
    fn give_up(&self) -> Result<()> {
        if self.db.read(|reader| reader.layer(self.number))?.is_some() {
            return Ok(());
        }
        self.db.remove_unpublished(self.number)?;
        self.db.write(|writer| {
            // A recipe that has its name already is somebody else's, perhaps: the sweep finds out.
            writer.exec(
                "update intent set what = 'recipe', number = null, lease = null
                 where what = 'layer' and number = ?1 and detail is not null",
                (self.number,),
            )?;
            writer
                .exec("delete from intent where what in ('layer', 'rows') and number = ?1", (self.number,))
                .map(drop)
        })
    }
}

impl Drop for LayerSlot {
    fn drop(&mut self) {
        if let Err(error) = self.give_up() {
            tracing::debug!(number = self.number.0, %error, "rows of a layer given up are left to the next sweep");
        }
    }
}

/// Takes rows in any order; of several with one path, the last counts.
pub struct RowWriter {
    db: Db,
    number: LayerNumber,
    rows: Vec<Row>,
    bytes: usize,
    flushed: bool,
}

impl RowWriter {
    /// All rows are written; how many there are.
    pub fn finish(mut self) -> Result<u64> {
        self.flush()?;
        self.db.row_count(self.number)
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        // Stable: of equal paths the last stays last.
        self.rows.sort_by(|a, b| a.path.cmp(&b.path));
        let slot = self.db.row_writer()?;
        run(slot.connection(), "BEGIN IMMEDIATE", |connection| insert(connection, self.number, &self.rows))
            .context(|| "writing the rows of a layer")?;
        self.rows.clear();
        self.bytes = 0;
        self.flushed = true;
        Ok(())
    }
}

impl RowSink for RowWriter {
    fn row(&mut self, row: Row) -> Result<()> {
        self.bytes += row.path.len() + row.target.len();
        self.bytes += row.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.rows.push(row);
        if self.rows.len() >= CHUNK || self.bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn forget(&mut self, path: &[u8]) -> Result<()> {
        // The names below `a` begin with `a/`, and `0` is the byte after `/`.
        let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
        let all = path.is_empty();
        self.rows.retain(|row| !(all || row.path == path || (&from..&to).contains(&&row.path)));
        if !self.flushed {
            return Ok(());
        }
        let slot = self.db.row_writer()?;
        let delete = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
            slot.connection()
                .prepare_cached(sql)
                .and_then(|mut delete| delete.execute(params))
                .context(|| "removing rows of a layer in the making")
        };
        if all {
            delete("delete from file where layer = ?1", &[&self.number])?;
            return Ok(());
        }
        delete("delete from file where layer = ?1 and path = ?2", &[&self.number, &path])?;
        delete(
            "delete from file where layer = ?1 and path >= ?2 and path < ?3",
            &[&self.number, &from, &to],
        )?;
        Ok(())
    }
}

fn insert(connection: &Connection, number: LayerNumber, rows: &[Row]) -> Result<()> {
    let insert = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "insert or replace into file (layer, path, kind, mode, uid, gid, size, mtime, digest, target, link,
                 rdev_major, rdev_minor, flags, xattrs)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?;
        for row in rows {
            let device = matches!(row.kind, Kind::Char | Kind::Block);
            statement.execute(rusqlite::params![
                number,
                row.path,
                code(row.kind),
                row.mode,
                row.uid,
                row.gid,
                row.size,
                row.mtime,
                row.digest,
                Some(&row.target).filter(|target| !target.is_empty()),
                row.link,
                Some(row.rdev.0).filter(|_| device),
                Some(row.rdev.1).filter(|_| device),
                u8::from(row.opaque) | u8::from(row.implied) << 1,
                encode(&row.xattrs),
            ])?;
        }
        Ok(())
    };
    insert().context(|| "writing files.db")
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::File => 1,
        Kind::Dir => 2,
        Kind::Symlink => 3,
        Kind::Char => 4,
        Kind::Block => 5,
        Kind::Fifo => 6,
        Kind::Whiteout => 7,
    }
}

fn kind(code: u8) -> Option<Kind> {
    [Kind::File, Kind::Dir, Kind::Symlink, Kind::Char, Kind::Block, Kind::Fifo, Kind::Whiteout]
        .into_iter()
        .find(|kind| self::code(*kind) == code)
}

/// For each: length of the name, name, length of the value, value; lengths in 4 bytes, the lowest first.
fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Vec<u8>> {
    if xattrs.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(part);
    }
    Some(bytes)
}

fn decode(mut bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((part.to_vec(), rest.is_empty()))
    };
    let mut xattrs = BTreeMap::new();
    loop {
        let (name, _) = part()?;
        let (value, last) = part()?;
        xattrs.insert(name, value);
        if last {
            return Some(xattrs);
        }
    }
}

const COLUMNS: &str = "select path, kind, mode, uid, gid, size, mtime, digest, target, link, rdev_major, \
                       rdev_minor, flags, xattrs from file";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
    let xattrs = match row.get_ref(13)?.as_blob_or_null()? {
        None => Some(BTreeMap::new()),
        Some(bytes) => decode(bytes),
    };
    let (Some(kind), Some(xattrs)) = (kind(row.get(1)?), xattrs) else { return Ok(None) };
    let flags: u8 = row.get(12)?;
    Ok(Some(Row {
        path: row.get(0)?,
        kind,
        mode: row.get(2)?,
        uid: row.get(3)?,
        gid: row.get(4)?,
        size: row.get(5)?,
        mtime: row.get(6)?,
        digest: row.get::<_, Option<Digest>>(7)?,
        target: row.get::<_, Option<Vec<u8>>>(8)?.unwrap_or_default(),
        link: row.get(9)?,
        rdev: (row.get::<_, Option<u32>>(10)?.unwrap_or(0), row.get::<_, Option<u32>>(11)?.unwrap_or(0)),
        opaque: flags & 1 != 0,
        implied: flags & 2 != 0,
        xattrs,
    }))
}

/// What stands at a path of a stack, and in which of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub layer: LayerNumber,
    pub row: Row,
}

impl Db {
    /// The rows of a layer in the order of their paths' bytes, read as they are asked for.
    pub fn rows(&self, number: LayerNumber) -> Rows {
        Rows { db: self.clone(), number, page: Vec::new().into_iter(), last: None, ended: false }
    }

    pub fn row_count(&self, number: LayerNumber) -> Result<u64> {
        let slot = self.row_reader()?;
        let count = || {
            slot.connection()
                .prepare_cached("select count(*) from file where layer = ?1")?
                .query_row((number,), |row| row.get(0))
        };
        count().context(|| "reading files.db")
    }

    /// The row of one path in one layer.
    pub fn row(&self, number: LayerNumber, path: &[u8]) -> Result<Option<Row>> {
        let slot = self.row_reader()?;
        one_row(slot.connection(), number, path)
    }

    /// What a stack, top first, shows at a path: its links are not followed. `None`: nothing, or it is deleted.
    pub fn row_in_stack(&self, stack: &[LayerNumber], path: &[u8]) -> Result<Option<Found>> {
        let slot = self.row_reader()?;
        let above = parents_of(path);
        let mut implied = None;
        for layer in stack {
            match one_row(slot.connection(), *layer, path)? {
                Some(row) if row.kind == Kind::Whiteout => return Ok(implied),
                // A directory that this layer does not describe is as those below say.
                Some(row) if row.implied => {
                    implied.get_or_insert(Found { layer: *layer, row });
                }
                Some(row) => {
                    // A hidden directory stands again where something was put into it.
                    return Ok(Some(Found { layer: *layer, row }));
                }
                None => {}
            }
            for parent in &above {
                let Some(row) = one_row(slot.connection(), *layer, parent)? else { continue };
                // Whatever is no directory hides all that lay below the path.
                if row.opaque || row.kind != Kind::Dir {
                    return Ok(implied);
                }
            }
        }
        Ok(implied)
    }

    /// Removes the rows under a number, a chunk at a time; on a full disk in small ones, that take little room themselves.
    pub(super) fn remove_rows(&self, number: LayerNumber) -> Result<()> {
        let scarce = self.disk_is_scarce()?;
        let chunk = if scarce { CHUNK / 10 } else { CHUNK };
        loop {
            let mut slot = self.row_writer()?;
            let any: bool = slot
                .connection()
                .prepare_cached("select exists (select 1 from file where layer = ?1)")
                .and_then(|mut any| any.query_row((number,), |row| row.get(0)))
                .context(|| "reading files.db")?;
            if !any {
                return Ok(());
            }
            run(slot.connection(), "BEGIN IMMEDIATE", |connection| {
                connection
                    .prepare_cached(
                        "delete from file where layer = ?1 and path in
                             (select path from file where layer = ?1 order by path limit ?2)",
                    )
                    .and_then(|mut delete| delete.execute((number, chunk)))
                    .context(|| "removing the rows of a layer")
            })?;
            if scarce {
                slot.fold_log()?;
            }
        }
    }

    /// The numbers that rows stand under, whether layers have them or not.
    pub fn numbers_with_rows(&self) -> Result<Vec<LayerNumber>> {
        let slot = self.row_reader()?;
        let list = || {
            slot.connection()
                .prepare(
                    "with recursive found (layer) as (
                         select min(layer) from file
                         union all
                         select (select min(layer) from file where layer > found.layer) from found
                             where found.layer is not null
                     )
                     select layer from found where layer is not null",
                )?
                .query_map((), |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        list().context(|| "reading files.db")
    }
}

fn one_row(connection: &Connection, number: LayerNumber, path: &[u8]) -> Result<Option<Row>> {
    let find = || -> rusqlite::Result<Option<Option<Row>>> {
        let mut statement =
            connection.prepare_cached(&format!("{COLUMNS} where layer = ?1 and path = ?2"))?;
        let mut rows = statement.query((number, path))?;
        rows.next()?.map(read).transpose()
    };
    match find().context(|| "reading files.db")? {
        None => Ok(None),
        Some(Some(row)) => Ok(Some(row)),
        Some(None) => Err(unreadable(number)),
    }
}

fn unreadable(number: LayerNumber) -> Error {
    Error::corrupt(format!("files.db has a row of layer {number} that cannot be understood"))
        .hint("`outcrop system check` says what is wrong with the store")
}

/// `a/b/c` has `a/b`, `a` and the root.
fn parents_of(path: &[u8]) -> Vec<&[u8]> {
    if path.is_empty() {
        return Vec::new();
    }
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at]).chain([&path[..0]]).collect()
}

/// A layer's rows in order. No transaction stays open between pages: the rows of a published layer do not change.
pub struct Rows {
    db: Db,
    number: LayerNumber,
    page: vec::IntoIter<Row>,
    last: Option<Vec<u8>>,
    ended: bool,
}

impl Rows {
    fn next_page(&mut self) -> Result<()> {
        let slot = self.db.row_reader()?;
        let read_page = || -> rusqlite::Result<Vec<Option<Row>>> {
            // The root's path is empty: the smallest there is.
            let after = if self.last.is_some() { ">" } else { ">=" };
            let sql = format!("{COLUMNS} where layer = ?1 and path {after} ?2 order by path limit ?3");
            let mut statement = slot.connection().prepare_cached(&sql)?;
            statement
                .query_map((self.number, self.last.as_deref().unwrap_or_default(), PAGE), read)?
                .collect()
        };
        let rows = read_page().context(|| "reading files.db")?;
        self.ended = rows.is_empty();
        let rows: Option<Vec<Row>> = rows.into_iter().collect();
        let rows = rows.ok_or_else(|| unreadable(self.number))?;
        self.last = rows.last().map(|row| row.path.clone());
        self.page = rows.into_iter();
        Ok(())
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;
    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(Ok(row));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.next_page() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}
