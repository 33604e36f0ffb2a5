//! What stands with one storage driver, made again with another: layers from their recipes, writable layers from their
//! changes. Proved on the way: a layer by its digest, a writable layer by reading it back.

use std::collections::BTreeMap;
use std::io::{PipeWriter, Read};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Timespec, Timestamps};

use super::Layer;
use super::ensure::Recipe;
use super::located::{Located, note};
use super::unpack::Archive as _;
use crate::db::{Keyed, SnapshotId};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::ChainId;
use crate::job::Job;
use crate::layer::{self, Extras, Form, Kind, PackOptions, Row};
use crate::snapshot::driver::Shape;
use crate::snapshot::{Draft, Place, Purpose, Snapshots};
use crate::sys;

/// A tree to be made.
#[derive(Clone, Debug)]
pub struct NewTree {
    pub layer: Layer,
    /// A stack with the layer on top; `None`: none has it, the build cache alone keeps it.
    pub chain: Option<ChainId>,
    /// What the tree is made on, which stands with the other driver.
    pub parent: Option<ChainId>,
    /// A tree of the engine's driver that has the layer on top.
    pub from: SnapshotId,
    /// What the tree is kept for.
    pub keyed: Keyed,
}

/// Makes the layer's archive again and applies it to a tree of `to`. Sealed, not durable yet. `passed` is told of the
/// archive's bytes.
pub fn move_layer(
    engine: &Engine,
    to: &Snapshots,
    new: &NewTree,
    passed: &(dyn Fn(u64) + Sync),
    job: &Job,
) -> Result<()> {
    let draft = to.draft(new.parent.as_ref(), Purpose::Layer)?;
    let recipe = Recipe { engine, layer: &new.layer, from: new.from, job };
    let mut tar = Passing { tar: recipe.open()?, passed };
    let (applied, mounted) = {
        let place = draft.place()?;
        let applied =
            layer::apply(job, &mut tar, place.as_fd(), place.form(), &mut (), &mut std::io::sink())?;
        (applied, matches!(place, Place::Mounted(_)))
    };
    if mounted {
        let tree = draft.tree()?;
        layer::settle(tree.dir.as_fd(), tree.form, engine.db.rows(new.layer.number))?;
    }
    if applied.diff_id != new.layer.diff_id {
        return Err(Error::corrupt(format!("its archive is {} now", applied.diff_id)));
    }
    let alone = to.driver().shape() == Shape::Layered && new.parent.is_none();
    if alone && !to.root_is_described(new.layer.number)? {
        // What shows there where its archive says nothing of `/`.
        let (there, here) = (engine.snapshots.driver().tree(new.from)?, draft.tree()?);
        sys::tree::like(there.dir.as_fd(), here.dir.as_fd())
            .context(|| "giving its root the attributes it had")?;
    }
    let sealed = draft.commit_as(new.keyed)?;
    if let Some(chain) = new.chain {
        let driver = to.driver().name().to_owned();
        note(&engine.root, &new.layer.diff_id, &Located { driver, snapshot: sealed, chain })?;
    }
    Ok(())
}

/// An archive, counted.
struct Passing<'p> {
    tar: Box<dyn Read + Send + 'p>,
    passed: &'p (dyn Fn(u64) + Sync),
}

impl Read for Passing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.tar.read(buffer)?;
        (self.passed)(count as u64);
        Ok(count)
    }
}

/// What a container changed (in `snapshot`, on the stack `on`), in a draft of `to`: the same files with the same
/// attributes, times to the nanosecond; sockets are left out. Nobody writes to the snapshot meanwhile.
pub fn move_writable<'t>(
    engine: &Engine,
    to: &'t Snapshots,
    snapshot: SnapshotId,
    on: Option<&ChainId>,
    limit: Option<u64>,
    job: &Job,
) -> Result<Draft<'t>> {
    let draft = to.draft(on, Purpose::Container)?;
    if let Some(bytes) = limit {
        draft.limit(bytes)?;
    }
    let from = engine.snapshots.open_container(snapshot)?;
    {
        let mounted = draft.mounted()?;
        let rows = write_changes(engine, snapshot, mounted.as_fd(), job)?;
        give_times(from.as_fd(), mounted.as_fd(), &rows)?;
        prove(mounted.as_fd(), rows, job)?;
    }
    Ok(draft)
}

/// The changes of one go onto the other, by way of their archive: the union filesystem knows what a whiteout in it comes
/// to. What they were.
fn write_changes(engine: &Engine, snapshot: SnapshotId, to: BorrowedFd<'_>, job: &Job) -> Result<Vec<Row>> {
    let compared = engine.snapshots.compare(snapshot)?;
    let (mut reader, writer) = std::io::pipe().context(|| "making a pipe")?;
    let pack = move |mut writer: PipeWriter| {
        let mut rows = Vec::new();
        let options = PackOptions { tee: Some(&mut writer), ..PackOptions::default() };
        let packed = layer::pack(job, compared.changes(false), options, &mut rows, &mut std::io::sink());
        packed.map(|_| rows)
    };
    std::thread::scope(|scope| {
        let packing = layer::spawn(scope, move || pack(writer));
        let applied = layer::apply(job, &mut reader, to, Form::Whole, &mut (), &mut std::io::sink());
        // Nobody reads on: whoever writes must not wait for it.
        drop(reader);
        let packed = packing.join();
        let packed =
            packed.unwrap_or_else(|_| Err(Error::internal("reading a container's changes panicked")));
        // An archive that nobody reads to its end is no fault of its writer.
        applied.and(packed)
    })
}

/// Archives say whole seconds.
fn give_times(from: BorrowedFd<'_>, to: BorrowedFd<'_>, rows: &[Row]) -> Result<()> {
    // What stands in a directory comes before it: setting a time changes no other.
    let paths = rows.iter().filter(|row| row.kind != Kind::Whiteout).map(|row| &row.path[..]);
    // The root's says that something came or went in it, and no archive tells it.
    for path in paths.filter(|path| !path.is_empty()).chain([&b"."[..]]) {
        let doing = || format!("setting the time of `{}`", path.escape_ascii());
        let stat = rustix::fs::statat(from, path, AtFlags::SYMLINK_NOFOLLOW).context(doing)?;
        let time = |seconds: i64, nanoseconds: u64| Timespec {
            tv_sec: seconds,
            tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
        };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        rustix::fs::utimensat(to, path, &times, AtFlags::SYMLINK_NOFOLLOW).context(doing)?;
    }
    Ok(())
}

/// All that was read is there.
fn prove(tree: BorrowedFd<'_>, rows: Vec<Row>, job: &Job) -> Result<()> {
    // The row of a file comes again once a second name of it is met: the last counts.
    let rows: BTreeMap<Vec<u8>, Row> = rows.into_iter().map(|row| (row.path.clone(), row)).collect();
    let found = layer::verify(job, tree, Form::Whole, Extras::Ignore, rows.into_values().map(Ok))?;
    match found.list.first() {
        None => Ok(()),
        Some(finding) => Err(Error::corrupt(format!(
            "`{}` did not come out as it was: {}",
            finding.path.escape_ascii(),
            finding.text()
        ))),
    }
}
