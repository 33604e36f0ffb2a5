//! A layer proved: its rows by their ContentId, its trees by the rows, its recipe by the archive that it makes again.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};

use super::merged::Merged;
use crate::db::{Db, LayerNumber, LayerRow, SnapshotId};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::job::Job;
use crate::layer::{self, Difference, Extras, Findings, Form, Row};

/// What is wrong, and in which file below the store's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub file: String,
    pub what: String,
}

/// A sealed snapshot with the layer on top, and the stack that it shows, bottom first: of a Layered driver the layer
/// alone.
#[derive(Clone, Debug)]
pub struct Holder {
    pub snapshot: SnapshotId,
    pub stack: Vec<LayerRow>,
}

/// Reads all of it; `passed` is told of bytes that were. An error is what stopped us, never what is wrong with the layer.
pub fn verify(
    engine: &Engine,
    layer: &LayerRow,
    holders: &[Holder],
    passed: &(dyn Fn(u64) + Sync),
    job: &Job,
) -> Result<Vec<Flaw>> {
    let mut flaws = rows(engine, layer, job)?;
    let rows_are_right = flaws.is_empty();
    let mut whole_tree = None;
    for holder in holders {
        let driver = engine.snapshots.driver();
        let path = driver.path(holder.snapshot);
        let (tree, form) = match driver.tree(holder.snapshot) {
            Ok(tree) => (File::from(tree.dir), tree.form),
            Err(error) if error.kind() == Kind::NotFound => {
                flaws.push(Flaw { file: below(engine, &path), what: "the layer's tree is missing".into() });
                continue;
            }
            Err(error) => return Err(error),
        };
        // Rows that are wrong themselves prove nothing; the recipe does then.
        let found = match rows_are_right {
            true => self::tree(engine, holder, (&tree, form), &below(engine, &path), passed, job)?,
            false => Vec::new(),
        };
        if found.is_empty() {
            whole_tree.get_or_insert(tree);
        }
        flaws.extend(found);
    }
    let path = engine.recipe_path(&layer.diff_id);
    let flaw = |what: String| Flaw { file: below(engine, &path), what };
    match (File::open(&path), whole_tree) {
        (Ok(recipe), Some(tree)) => flaws.extend(self::recipe(layer, recipe, &tree, passed, job)?.map(flaw)),
        (Ok(_), None) => {}
        (Err(cause), _) if cause.kind() == std::io::ErrorKind::NotFound => {
            flaws.push(flaw("the layer's recipe is missing".into()));
        }
        (Err(cause), _) => return Err(cause).context(|| format!("opening {}", path.display())),
    }
    Ok(flaws)
}

/// As many rows as there should be, with the right ContentId.
fn rows(engine: &Engine, layer: &LayerRow, job: &Job) -> Result<Vec<Flaw>> {
    let flaw = |what: String| Flaw { file: "files.db".into(), what };
    let mut count = 0;
    let rows = engine.db.rows(layer.number).map(|row| {
        count += 1;
        job.check().and(row)
    });
    let content = layer::content_id(rows);
    let mut flaws = Vec::new();
    match content {
        Err(error) => flaws.push(flaw(damage(error)?)),
        Ok(_) if count != layer.row_count => flaws.push(flaw(format!(
            "{count} rows stand under number {}, and should be {}",
            layer.number, layer.row_count
        ))),
        Ok(found) if found != layer.content_id => {
            flaws.push(flaw(format!("the rows under number {} are not the layer's", layer.number)));
        }
        Ok(_) => {}
    }
    Ok(flaws)
}

fn tree(
    engine: &Engine,
    holder: &Holder,
    (tree, form): (&File, Form),
    name: &str,
    passed: &(dyn Fn(u64) + Sync),
    job: &Job,
) -> Result<Vec<Flaw>> {
    let stack: Vec<LayerNumber> = holder.stack.iter().map(|layer| layer.number).collect();
    match compare(&engine.db, &stack, tree, form, passed, job) {
        Ok(found) => Ok(flaws_of(name, &found)),
        Err(error) => Ok(vec![Flaw { file: name.to_owned(), what: damage(error)? }]),
    }
}

/// A tree with what these layers show, bottom first.
pub(super) fn compare(
    db: &Db,
    stack: &[LayerNumber],
    tree: &File,
    form: Form,
    passed: &(dyn Fn(u64) + Sync),
    job: &Job,
) -> Result<Findings> {
    let rows = stack.iter().map(|layer| db.rows(*layer));
    let seen = |row: Result<Row>| row.inspect(|row| passed(row.size));
    let mut found = match stack {
        [_] => layer::verify(job, tree.as_fd(), form, Extras::Report, rows.flatten().map(seen))?,
        _ => layer::verify(job, tree.as_fd(), form, Extras::Report, Merged::new(rows).map(seen))?,
    };
    let before = found.list.len();
    found.list.retain(|finding| match finding.what {
        // Layers that only add to `/` do not tell its time.
        Difference::Time => !finding.path.is_empty() || stack.len() == 1,
        // No archive has sockets.
        Difference::Extra => !is_socket(tree, &finding.path),
        _ => true,
    });
    found.total -= (before - found.list.len()) as u64;
    Ok(found)
}

fn is_socket(tree: &File, path: &[u8]) -> bool {
    rustix::fs::statat(tree, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

fn flaws_of(tree: &str, found: &Findings) -> Vec<Flaw> {
    let mut flaws: Vec<Flaw> = found
        .list
        .iter()
        .map(|finding| Flaw { file: format!("{tree}/{}", finding.path.escape_ascii()), what: finding.text() })
        .collect();
    let more = found.total - found.list.len() as u64;
    if more > 0 {
        flaws.push(Flaw { file: tree.to_owned(), what: format!("{more} more findings like these") });
    }
    flaws
}

/// What is wrong with the recipe of a layer whose files are right.
fn recipe(
    layer: &LayerRow,
    mut recipe: File,
    tree: &File,
    passed: &(dyn Fn(u64) + Sync),
    job: &Job,
) -> Result<Option<String>> {
    match layer::replay(job, &mut recipe, tree.as_fd(), &mut Counted(passed)) {
        Ok(replayed) if replayed.diff_id != layer.diff_id => {
            Ok(Some(format!("it is the recipe of another layer, {}", replayed.diff_id)))
        }
        Ok(replayed) if replayed.size != layer.tar_size => Ok(Some(format!(
            "it makes an archive of {} bytes, and should of {}",
            replayed.size, layer.tar_size
        ))),
        Ok(_) => Ok(None),
        Err(error) => Ok(Some(format!("it does not make the layer's archive again: {}", damage(error)?))),
    }
}

/// The text of an error that tells of the store, and not of what stopped us.
fn damage(error: Error) -> Result<String> {
    match error.kind() {
        Kind::Cancelled | Kind::Unavailable => Err(error),
        _ => Ok(error.one_line()),
    }
}

/// As seen from the store's root.
fn below(engine: &Engine, path: &Path) -> String {
    path.strip_prefix(&engine.root).unwrap_or(path).display().to_string()
}

/// Bytes that nobody keeps.
struct Counted<'c>(&'c (dyn Fn(u64) + Sync));

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.0)(bytes.len() as u64);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
