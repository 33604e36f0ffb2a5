//! Storage drivers: what keeps numbered trees and stacks them. One file each; `TABLE` lists them.
//!
//! # The model
//!
//! A *snapshot* is a tree of files with a number. It is made empty on top of sealed *parents*, written to,
//! sealed, and then never changes until it is removed. `Layered` drivers keep in it one layer alone, and
//! stack when they mount; `Stacked` ones keep the whole of what is seen, and make it out of the one parent. A
//! driver knows no names, no images, no leases and no database: `Snapshots` does, and tells it what to do
//! once, from one process at a time for each number.
//!
//! # The life of a snapshot
//!
//! ```text
//! create ──> [ mount ──> written through the mount ──> release ]* ──> seal ──> below others, or viewed ─> remove
//!        └─> [ written straight into tree(), in its form       ]* ──┘
//! ```
//!
//! `create` and `copy` fail when the number exists. Everything else may be done again: `release`, `seal`,
//! `sync` and `remove` of what is released, sealed, synced or gone already is `Ok`, because whoever died in
//! between is finished by somebody else. What they leave when they fail or are killed, `remove` takes away.
//! After `seal` only `view`, `tree`, `delta`, `sync` and `remove` are asked for; nobody writes. Parents
//! outlive their children's use, but may be removed while a Stacked child stands. `remove` may meet a mount
//! that still lives in some namespace: it must not fail for it, and must not follow it. Nothing but `sync`
//! promises durability.
//!
//! # An example
//!
//! A build on an image of two layers, 1 below 2. `Layered`: `create(7, [2, 1])`, `mount(7, [2, 1])` says
//! which overlay to mount, the step writes, `delta(7)` is where its changes lie, `seal(7)`, `view([7, 2, 1])`
//! shows the new image. `Stacked`: 1 holds the lower layer and 2 both; `create(7, [2])` copies 2, `mount(7,
//! [2])` is its directory, `delta(7)` is nothing (compare `tree(7)` with `tree(2)`), `seal(7)`, `view([7])`.
//!
//! # A new driver
//!
//! One file with an `ENTRY`, two lines here (`mod btrfs;`, `&btrfs::ENTRY,`), one line in
//! `tests/snapshot.rs`, which runs the behaviour suite. What has no place in the file system yet (a device, a
//! dataset) is for `mount` to activate and for `release` to undo.

mod btrfs;
mod devicemapper;
mod folder;
mod limits;
mod options;
mod overlay;
mod overlay2;
mod vfs;
mod zfs;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use self::options::Options;

pub use crate::db::SnapshotId;
use crate::error::{Context, Error, Result};
use crate::layer::{Form, Touched};
pub use crate::sys::mount::Mount;

/// In order of preference.
pub const TABLE: &[&Entry] =
    &[&overlay2::ENTRY, &btrfs::ENTRY, &zfs::ENTRY, &devicemapper::ENTRY, &overlay::ENTRY, &vfs::ENTRY];

/// What a snapshot is keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One snapshot holds one layer, whatever stands below: keyed by DiffId.
    Layered,
    /// One snapshot holds a whole stack: keyed by ChainId.
    Stacked,
}

/// Where a snapshot's changes lie, for drivers that keep them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub dir: PathBuf,
    pub form: Form,
}

/// What moves the ctime of a file that a snapshot has from its parent, where it keeps inode number and ctime until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// Every change.
    All,
    /// Every change but that of extended attributes.
    ButXattrs,
}

/// A snapshot's own tree.
#[derive(Debug)]
pub struct Tree {
    /// Open for reading. It keeps what it stands on (a mount that nobody sees, a device) as long as it is open.
    pub dir: OwnedFd,
    pub form: Form,
}

impl Tree {
    /// In the host's file system. `NotFound` where it is not there.
    fn open(path: &Path, form: Form) -> Result<Tree> {
        Ok(Tree { dir: folder::open_dir(path)?, form })
    }
}

/// Keeps trees by number; the contract is this module's text.
pub trait Driver: Send + Sync {
    fn name(&self) -> &'static str;
    fn shape(&self) -> Shape;
    /// No changes yet on its parents: nearest first, all sealed; a Stacked driver is given one at most. The
    /// root directory has owner, mode and xattrs of the nearest parent's; without parents 0:0 and 755.
    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()>;
    /// A new one with the same parents and the same content as `of`, to which nobody writes meanwhile.
    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()>;
    /// How to mount it for writing, with the parents it was made on. At most one mount of it lives at a time.
    fn mount(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<Mount>;
    /// How to mount a stack of sealed snapshots for reading: nearest first, a Stacked driver's is one; of
    /// none, an empty directory.
    fn view(&self, stack: &[SnapshotId]) -> Result<Mount>;
    /// The snapshot's own tree (Layered: the layer alone; Stacked: the whole), in the form it has. `NotFound` where
    /// there is none. One that is not sealed may be written to through it where the form is `Whole`, and where it has
    /// no parents.
    fn tree(&self, id: SnapshotId) -> Result<Tree>;
    /// Where people find it, below the store's root; it may be mounted there or not.
    fn path(&self, id: SnapshotId) -> PathBuf;
    /// Undoes what `mount` activated.
    fn release(&self, _id: SnapshotId) -> Result<()> {
        Ok(())
    }
    fn remove(&self, id: SnapshotId) -> Result<()>;
    /// One that was mounted without regard to crashes may be mounted with it from now on, once it is on disk.
    fn reopen(&self, _id: SnapshotId) -> Result<()> {
        Ok(())
    }
    /// Nothing is written to it from now on; not yet durable.
    fn seal(&self, _id: SnapshotId) -> Result<()> {
        Ok(())
    }
    /// No more than this many bytes of its own go into one that is written to (`--storage-opt size=`); not sealed, not
    /// mounted.
    fn limit(&self, _id: SnapshotId, _bytes: u64) -> Result<()> {
        Err(Error::unsupported(format!(
            "the storage driver `{}` cannot limit the size of a container here",
            self.name()
        ))
        .hint("leave out `--storage-opt size=`; `outcrop info` shows what the storage driver can"))
    }
    /// What `info` shows of it, in Docker's words where it has some: a name, a text.
    fn status(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }
    /// Whether one that is made on a parent takes no room for what the parent has; else it takes as much again.
    fn shares(&self) -> Result<bool> {
        Ok(true)
    }
    /// What one takes, in bytes, besides what is written to it, where that is more than a directory.
    fn overhead(&self) -> Result<u64> {
        Ok(0)
    }
    /// Bytes that can still be written; `None`: as many as the filesystem of the store's root has.
    fn room(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    /// Whether trees lie on other filesystems than the store's root, which is written out for all of the store.
    fn writes_elsewhere(&self) -> bool {
        false
    }
    /// What was written into these and lies on other filesystems than the store's root is on disk when it returns, or in files
    /// there. An error of the disk since the driver was opened is an error here. The root's own is not asked (`db/disk.rs`).
    fn sync(&self, _ids: &[SnapshotId]) -> Result<()> {
        Ok(())
    }
    /// Where the changes of this snapshot lie; `None` where only a comparison with the parent tells.
    fn delta(&self, id: SnapshotId) -> Option<Delta>;
    /// What may differ between this snapshot, sealed or not mounted for writing, and its parent, as the filesystem
    /// knows it without looking at every file. What it leaves out is the same to the byte; any doubt is `None`: then all
    /// is compared. Of a Stacked driver.
    fn touched(&self, _id: SnapshotId, _parent: SnapshotId) -> Result<Option<Touched>> {
        Ok(None)
    }
    /// Where `touched` does not know: whether inode numbers and ctimes tell what changed in this one since `create` or
    /// `copy`; what was written to it has its ctime when this returns. `None`: each snapshot has its own.
    fn stamps(&self, _id: SnapshotId) -> Result<Option<Stamps>> {
        Ok(None)
    }
    /// All numbers that have something on disk, whole or not, in no order: what a check compares with the
    /// rows.
    fn list(&self) -> Result<Vec<SnapshotId>>;
}

/// What a driver is given to work with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The store's root; it exists.
    pub root: &'a Path,
    pub options: &'a Options,
}

/// A line of the table.
pub struct Entry {
    pub name: &'static str,
    /// The names of `--storage-opt` that it knows.
    pub options: &'static [&'static str],
    /// Tries it on this root, leaves nothing there, and says what it found to be good; an error says why not.
    pub probe: fn(&Setting<'_>) -> Result<String>,
    /// Makes its directories where they are missing.
    pub open: fn(&Setting<'_>) -> Result<Box<dyn Driver>>,
}

/// The driver of a new store, and why it is this one.
pub struct Selected {
    pub driver: Box<dyn Driver>,
    /// A phrase for `info`: what the probe found, or that it was asked for.
    pub reason: String,
    /// Those that stand before it in the table, each with a reason.
    pub refused: Vec<(&'static str, String)>,
}

/// The wanted driver, which must be usable; else the first of the table that is.
pub fn select(setting: &Setting<'_>, wanted: Option<&str>) -> Result<Selected> {
    let root = setting.root;
    if let Some(name) = wanted {
        let entry = entry(name)?;
        setting.options.check(entry)?;
        let found = (entry.probe)(setting).map_err(|cause| {
            Error::new(cause.kind(), format!("the storage driver `{name}` cannot work at {}", root.display()))
                .hint("leave the driver out: the first that works here is taken")
                .because(cause)
        })?;
        let driver = (entry.open)(setting)?;
        return Ok(Selected { driver, reason: format!("asked for; {found}"), refused: Vec::new() });
    }
    let mut refused = Vec::new();
    for entry in TABLE {
        match setting.options.check(entry).and_then(|()| (entry.probe)(setting)) {
            Ok(reason) => return Ok(Selected { driver: (entry.open)(setting)?, reason, refused }),
            Err(error) => refused.push((entry.name, error.one_line())),
        }
    }
    let reasons: Vec<String> = refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    Err(Error::unsupported(format!("no storage driver works at {}: {}", root.display(), reasons.join("; "))))
}

/// What each driver's probe says of this root, in the table's order: what it found to be good, or why it
/// cannot work.
pub fn probe_all(setting: &Setting<'_>) -> Vec<(&'static str, std::result::Result<String, String>)> {
    let probe = |entry: &Entry| (entry.probe)(setting).map_err(|error| error.one_line());
    TABLE.iter().map(|entry| (entry.name, probe(entry))).collect()
}

/// The driver that a store was made with, not probed again.
pub fn open(setting: &Setting<'_>, name: &str) -> Result<Box<dyn Driver>> {
    let entry = entry(name)?;
    setting.options.check(entry)?;
    (entry.open)(setting).context(|| format!("opening the storage driver `{name}`"))
}

fn entry(name: &str) -> Result<&'static Entry> {
    TABLE.iter().copied().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = TABLE.iter().map(|entry| entry.name).collect();
        Error::invalid(format!("unknown storage driver `{name}`"))
            .hint(format!("there are: {}", names.join(", ")))
    })
}
