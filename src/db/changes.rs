//! What a layer does to what lies below it, in numbers: for `layers`. Directories are not counted.

use rusqlite::Connection;

use super::Db;
use super::ids::LayerNumber;
use crate::error::{Context as _, Result};
use crate::layer::Kind;

/// Files of all kinds but directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: u64,
    /// There is one at this path below.
    pub changed: u64,
    /// Each file counts, also those of a directory that is deleted as a whole.
    pub deleted: u64,
}

impl Db {
    /// `below`: the layers under it, the topmost first.
    pub fn changes(&self, layer: LayerNumber, below: &[LayerNumber]) -> Result<Changes> {
        let reading = || "reading files.db";
        let counted = count(self.row_reader()?.connection(), layer, below).context(reading)?;
        let mut changes = Changes { added: counted.new, ..Changes::default() };
        for path in &counted.met {
            // What a layer below has at this path may be deleted in between.
            match self.shows_file(below, path)? {
                true => changes.changed += 1,
                false => changes.added += 1,
            }
        }
        for path in &counted.hidden {
            let paths = hidden_by(self.row_reader()?.connection(), layer, below, path).context(reading)?;
            for path in paths {
                changes.deleted += u64::from(self.shows_file(below, &path)?);
            }
        }
        Ok(changes)
    }

    fn shows_file(&self, stack: &[LayerNumber], path: &[u8]) -> Result<bool> {
        Ok(self.row_in_stack(stack, path)?.is_some_and(|found| found.row.kind != Kind::Dir))
    }
}

struct Counted {
    /// Files at whose path no layer below has a row.
    new: u64,
    /// Files at whose path some layer below has one.
    met: Vec<Vec<u8>>,
    /// What hides all that lies below it: deleted paths, opaque directories, files in the place of directories.
    hidden: Vec<Vec<u8>>,
}

const DIR: u8 = Kind::Dir as u8;
const WHITEOUT: u8 = Kind::Whiteout as u8;
/// The flags of a row, as `rows.rs` writes them.
const OPAQUE: u8 = 1;
const IMPLIED: u8 = 2;

/// Most files of a layer are new, and SQLite alone sees those.
fn count(connection: &Connection, layer: LayerNumber, below: &[LayerNumber]) -> rusqlite::Result<Counted> {
    let new: u64 = connection
        .prepare_cached(&format!(
            "select count(*) from file
             where layer = ?1 and flags & {IMPLIED} = 0 and kind not in ({DIR}, {WHITEOUT})"
        ))?
        .query_row((layer,), |row| row.get(0))?;
    let mut counted = Counted { new, met: Vec::new(), hidden: Vec::new() };
    if below.is_empty() {
        return Ok(counted);
    }
    // A look-up by the primary key in each layer below; for a join SQLite might go through whole layers.
    let stack = list(below);
    let mut statement = connection.prepare(&format!(
        "select path, kind, met,
             met and exists (select 1 from file as low
                 where low.layer in ({stack}) and low.path = above.path and low.kind = {DIR})
         from (
             select path, kind, flags, exists (select 1 from file as low
                 where low.layer in ({stack}) and low.path = file.path) as met
             from file
             where layer = ?1 and flags & {IMPLIED} = 0 and (kind <> {DIR} or flags & {OPAQUE})
         ) as above
         where met or kind in ({DIR}, {WHITEOUT})"
    ))?;
    let mut rows = statement.query((layer,))?;
    while let Some(row) = rows.next()? {
        let path: Vec<u8> = row.get(0)?;
        let is_file = !matches!(row.get(1)?, DIR | WHITEOUT);
        let directory_below: bool = row.get(3)?;
        if is_file {
            counted.new -= 1;
            counted.met.push(path.clone());
        }
        if !is_file || directory_below {
            counted.hidden.push(path);
        }
    }
    Ok(counted)
}

/// The paths of files below, at and under this one, that the layer has not itself.
fn hidden_by(
    connection: &Connection,
    layer: LayerNumber,
    below: &[LayerNumber],
    path: &[u8],
) -> rusqlite::Result<Vec<Vec<u8>>> {
    // The names below `a` begin with `a/`, and `0` is the byte after `/`. The root's path is empty.
    let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
    let here = if path.is_empty() { "path >= ?1" } else { "(path = ?1 or (path >= ?2 and path < ?3))" };
    let params: &[&dyn rusqlite::ToSql] = if path.is_empty() { &[&path] } else { &[&path, &from, &to] };
    let sql = format!(
        "select distinct path from file
         where layer in ({}) and {here} and kind not in ({DIR}, {WHITEOUT}) and not exists (
             select 1 from file as own
             where own.layer = {layer} and own.path = file.path and own.kind <> {WHITEOUT})",
        list(below)
    );
    connection.prepare(&sql)?.query_map(params, |row| row.get(0))?.collect()
}

/// Numbers, for the text of a query.
fn list(layers: &[LayerNumber]) -> String {
    layers.iter().map(LayerNumber::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::Dir;
    use crate::layer::{Row, RowSink as _};

    fn row(path: &str, kind: Kind) -> Row {
        Row { mode: 0o755, ..Row::bare(path, kind) }
    }

    /// `dir/`, `-deleted`, `!opaque/`, `file`.
    fn parse(text: &str) -> Row {
        match (text.strip_prefix('-'), text.strip_prefix('!'), text.strip_suffix('/')) {
            (Some(path), ..) => row(path, Kind::Whiteout),
            (_, Some(path), _) => Row { opaque: true, ..row(path.trim_end_matches('/'), Kind::Dir) },
            (.., Some(path)) => row(path, Kind::Dir),
            _ => row(text, Kind::File),
        }
    }

    /// Added, changed and deleted by the last layer; bottom first.
    fn changes(layers: &[&str]) -> (u64, u64, u64) {
        let dir = Dir::new();
        let db = Db::open(dir.path()).unwrap();
        let lease = db.lease().unwrap();
        let slots: Vec<_> = layers.iter().map(|_| db.reserve_layer(&lease).unwrap()).collect();
        for (slot, layer) in slots.iter().zip(layers) {
            let mut rows = slot.rows().unwrap();
            layer.split_whitespace().for_each(|text| rows.row(parse(text)).unwrap());
            rows.finish().unwrap();
        }
        let mut numbers: Vec<_> = slots.iter().rev().map(|slot| slot.number()).collect();
        let top = numbers.remove(0);
        let Changes { added, changed, deleted } = db.changes(top, &numbers).unwrap();
        (added, changed, deleted)
    }

    #[test]
    fn files_are_added_changed_and_deleted() {
        assert_eq!(changes(&["a/ a/x a/y"]), (2, 0, 0));
        assert_eq!(changes(&["a/ a/x a/y b", "a/ a/x -a/y c c2"]), (2, 1, 1));
    }

    #[test]
    fn a_deleted_directory_counts_by_its_files() {
        assert_eq!(changes(&["a/ a/x a/b/ a/b/y", "a/z", "-a"]), (0, 0, 3));
        assert_eq!(changes(&["a/ a/x", "-a/x", "-a"]), (0, 0, 0));
        assert_eq!(changes(&["a", "-b"]), (0, 0, 0));
    }

    #[test]
    fn what_was_deleted_in_between_is_added_again() {
        assert_eq!(changes(&["a/ a/x", "-a", "a/ a/x"]), (1, 0, 0));
        assert_eq!(changes(&["a/ a/x", "!a/ a/y", "a/ a/x a/y"]), (1, 1, 0));
    }

    #[test]
    fn an_opaque_directory_deletes_what_it_does_not_bring_itself() {
        assert_eq!(changes(&["a/ a/x a/y a/z", "!a/ a/x a/n"]), (1, 1, 2));
        assert_eq!(changes(&["a/ a/x b", "!/ b"]), (0, 1, 1));
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_deletes_what_was_in_it() {
        assert_eq!(changes(&["a/ a/x a/y", "a"]), (1, 0, 2));
        assert_eq!(changes(&["a/ a/x", "a", "a"]), (0, 1, 0));
    }
}
