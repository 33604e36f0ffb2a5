//! `zfs`: a dataset for each snapshot, `<zfs.fsname>/<n>`, mounted at `<root>/zfs/graph/<n>`. A child is a clone of a
//! snapshot of its parent, which ZFS drops with the clone (`destroy -d`).
//!
//! A dataset is mounted when its tree is first asked for, and stays so until it is removed: after a start of the machine
//! or of zfs-fuse it is mounted anew on demand. Clones keep what they were made from, so a parent that is removed before
//! its child goes later (`removed`).

mod home;
mod probe;
mod removed;
mod tool;

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use self::removed::Removed;
use self::tool::{Dialect, Tool, Why};
use super::folder::{open_dir, set_mode};
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Stamps, Tree};
use crate::error::{Context as _, Error, Result};
use crate::layer::Form;
use crate::sys;
use crate::sys::zfs::At;

pub(super) const ENTRY: Entry = Entry {
    name: "zfs",
    options: &[home::OPTION],
    probe: probe::probe,
    open: |setting| Ok(Box::new(Zfs::open(setting)?) as Box<dyn Driver>),
};

struct Zfs {
    tool: Tool,
    /// Where all others are below.
    dataset: String,
    /// `<root>/zfs/graph`
    graph: PathBuf,
    removed: Removed,
    /// The view of no layer.
    empty: PathBuf,
}

impl Zfs {
    fn open(setting: &Setting<'_>) -> Result<Self> {
        let root = real(setting.root)?;
        let tool = Tool::find()?;
        let dataset = home::dataset(setting)?;
        let [graph, removed, empty] = ["graph", "removed", "empty"].map(|name| root.join("zfs").join(name));
        for dir in [&graph, &removed, &empty] {
            fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
        }
        home::claim(&tool, &dataset, &root)?;
        Ok(Zfs { tool, dataset, graph, removed: Removed(removed), empty })
    }

    fn name_of(&self, id: SnapshotId) -> String {
        format!("{}/{id}", self.dataset)
    }

    fn place(&self, id: SnapshotId) -> PathBuf {
        self.graph.join(id.to_string())
    }

    /// Its dataset is mounted at its place.
    fn placed(&self, id: SnapshotId) -> Result<PathBuf> {
        let (name, place) = (self.name_of(id), self.place(id));
        let doing = || format!("mounting the dataset {name}");
        match look(&place)? {
            At::Mount => return Ok(place),
            At::Dead => self.tool.unmount(&place)?,
            At::NoMount => {}
        }
        fs::create_dir_all(&place).context(|| format!("creating {}", place.display()))?;
        match self.tool.mount(&name, &place) {
            Ok(()) => {}
            // By another process, meanwhile.
            Err(refused) if refused.why == Why::Mounted => {}
            Err(refused) => {
                // Of a dataset that is not there nothing shall be found.
                let _not_empty = fs::remove_dir(&place);
                return Err(refused).context(doing);
            }
        }
        match look(&place)? {
            At::Mount => Ok(place),
            At::NoMount => Err(unseen(&name)),
            At::Dead => Err(Error::unavailable(format!("zfs-fuse does not serve the dataset {name}")).hint(
                "it mounts some 1,000 datasets at most: `outcrop system prune` removes what nothing uses",
            )),
        }
    }

    /// What programs wrote through mmap(2) is in the dataset, too: snapshots show no more than that.
    fn flush(&self, id: SnapshotId) -> Result<()> {
        let place = self.placed(id)?;
        rustix::fs::syncfs(open_dir(&place)?).context(|| format!("writing out {}", place.display()))
    }

    fn clone_of(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        let (name, snapshot) = (self.name_of(id), format!("{}@{id}", self.name_of(of)));
        let doing = || format!("cloning snapshot {of} as {id}");
        match self.tool.snapshot(&snapshot) {
            Err(refused) if refused.why != Why::Exists => return Err(refused).context(doing),
            _ => {}
        }
        self.tool.clone(&snapshot, &name, &self.place(id)).map_err(|refused| match refused.why {
            Why::Exists => exists(id),
            _ => refused.into(),
        })?;
        self.tool.destroy_later(&snapshot).context(doing)
    }

    /// Takes what is mounted at its place away, with the mount point.
    fn unplace(&self, id: SnapshotId) -> Result<()> {
        self.tool.unmount(&self.place(id))?;
        let name = CString::new(id.to_string()).expect("digits have no NUL");
        sys::tree::remove(open_dir(&self.graph)?.as_fd(), &name)
            .context(|| format!("removing {}", self.place(id).display()))
    }

    /// Destroys the removed that can go; `patiently`: the one that was mounted a moment ago.
    fn destroy_removed(&self, patiently: SnapshotId) -> Result<()> {
        let removed = self.removed.all()?;
        if removed.iter().eq([&patiently]) {
            return self.destroy(patiently, true);
        }
        let datasets = self.datasets()?;
        for id in removed::can_go(&datasets, &removed) {
            self.destroy(id, id == patiently)?;
        }
        // Of those whose datasets are gone nobody may have said so.
        let gone = removed.iter().filter(|id| !datasets.iter().any(|(stands, _)| stands == *id));
        gone.into_iter().try_for_each(|id| self.removed.forget(*id))
    }

    /// What others hold stays until they let go.
    fn destroy(&self, id: SnapshotId, patiently: bool) -> Result<()> {
        let name = self.name_of(id);
        let destroyed = if patiently { self.tool.destroy_patiently(&name) } else { self.tool.destroy(&name) };
        match destroyed.map_err(|refused| (refused.why, refused)) {
            Ok(()) | Err((Why::Missing, _)) => self.removed.forget(id),
            Err((Why::Busy | Why::Needed, _)) => Ok(()),
            Err((_, refused)) => Err(refused).context(|| format!("destroying the dataset {name}")),
        }
    }

    /// All that stand, each with the one that it is a clone of.
    fn datasets(&self) -> Result<Vec<(SnapshotId, Option<SnapshotId>)>> {
        let listed = self.tool.list(&self.dataset)?;
        let numbered = |(name, origin): &(String, String)| {
            let of = origin.split_once('@').and_then(|(name, _)| number(&self.dataset, name));
            Some((number(&self.dataset, name)?, of))
        };
        Ok(listed.iter().filter_map(numbered).collect())
    }
}

impl Driver for Zfs {
    fn name(&self) -> &'static str {
        ENTRY.name
    }
    fn shape(&self) -> Shape {
        Shape::Stacked
    }

    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()> {
        debug_assert!(parents.len() <= 1, "a Stacked driver has one parent");
        if let Some(parent) = parents.first() {
            return self.clone_of(id, *parent);
        }
        self.tool.create(&self.name_of(id), &self.place(id)).map_err(|refused| match refused.why {
            Why::Exists => exists(id),
            _ => refused.into(),
        })?;
        set_mode(&self.placed(id)?, 0o755)
    }

    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        self.flush(of)?;
        self.clone_of(id, of)
    }

    fn mount(&self, id: SnapshotId, _parents: &[SnapshotId]) -> Result<Mount> {
        Ok(Mount::Bind { source: self.placed(id)?, read_only: false })
    }

    fn view(&self, stack: &[SnapshotId]) -> Result<Mount> {
        let source = stack.first().map_or_else(|| Ok(self.empty.clone()), |id| self.placed(*id))?;
        Ok(Mount::Bind { source, read_only: true })
    }

    fn tree(&self, id: SnapshotId) -> Result<Tree> {
        Tree::open(&self.placed(id)?, Form::Whole)
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.place(id)
    }

    fn seal(&self, id: SnapshotId) -> Result<()> {
        self.flush(id)
    }

    fn limit(&self, id: SnapshotId, bytes: u64) -> Result<()> {
        Ok(self.tool.set(&self.name_of(id), "quota", &bytes.to_string())?)
    }

    fn room(&self) -> Result<Option<u64>> {
        let [available] = self.tool.get(&self.dataset, ["available"])?;
        Ok(available.parse().ok())
    }

    fn status(&self) -> Result<Vec<(&'static str, String)>> {
        let pool = self.dataset.split('/').next().unwrap_or_default();
        let [used, available, quota, compression] =
            self.tool.get(&self.dataset, ["used", "available", "quota", "compression"])?;
        Ok(vec![
            (
                "Backing Filesystem",
                if self.tool.dialect == Dialect::Fuse { "zfs-fuse" } else { "zfs" }.into(),
            ),
            ("Zpool", pool.to_owned()),
            ("Zpool Health", self.tool.health(pool)?),
            ("Parent Dataset", self.dataset.clone()),
            ("Space Used By Parent", used),
            ("Space Available", available),
            ("Parent Quota", if quota == "0" { "no".into() } else { quota }),
            ("Compression", compression),
        ])
    }

    fn remove(&self, id: SnapshotId) -> Result<()> {
        self.removed.add(id)?;
        self.unplace(id)?;
        self.destroy_removed(id)
    }

    fn writes_elsewhere(&self) -> bool {
        true
    }

    fn sync(&self, ids: &[SnapshotId]) -> Result<()> {
        let Some(last) = ids.iter().max() else { return Ok(()) };
        for id in ids {
            self.flush(*id)?;
        }
        // zfs-fuse is not told of syncfs(2). A change of a property is on disk when the command returns, and with it all
        // that was written to the pool before.
        match self.tool.dialect {
            Dialect::Fuse => Ok(self.tool.set(&self.dataset, "outcrop:synced", &last.to_string())?),
            Dialect::Module => Ok(()),
        }
    }

    fn delta(&self, _id: SnapshotId) -> Option<Delta> {
        None
    }

    /// zfs-fuse keeps xattrs in files of their own, whose times they move; OpenZFS may, too. Pages written through mmap(2)
    /// move times when they are written out.
    fn stamps(&self, id: SnapshotId) -> Result<Option<Stamps>> {
        self.flush(id)?;
        Ok(Some(Stamps::ButXattrs))
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        let removed = self.removed.all()?;
        Ok(self.datasets()?.into_iter().map(|(id, _)| id).filter(|id| !removed.contains(id)).collect())
    }
}

fn exists(id: SnapshotId) -> Error {
    Error::conflict(format!("snapshot {id} exists already"))
}

/// It is mounted in the daemon's mount namespace, or somewhere else by hand.
fn unseen(name: &str) -> Error {
    Error::unsupported(format!("the dataset {name} is mounted, but not where this process sees it"))
        .hint("run outcrop and zfs-fuse in the same mount namespace, or unmount the dataset")
}

/// Of a dataset right below `parent`, named by a number.
fn number(parent: &str, name: &str) -> Option<SnapshotId> {
    let last = name.strip_prefix(parent)?.strip_prefix('/')?;
    let digits = last.bytes().all(|byte| byte.is_ascii_digit());
    last.parse().ok().filter(|_| digits).map(SnapshotId)
}

/// Mount points are kept by ZFS as they are said.
fn real(root: &Path) -> Result<PathBuf> {
    root.canonicalize().context(|| format!("opening {}", root.display()))
}

fn look(place: &Path) -> Result<At> {
    sys::zfs::at(place).context(|| format!("looking for a mount at {}", place.display()))
}
