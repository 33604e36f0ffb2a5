//! `vfs`: a copy of the parent for every snapshot, `<root>/vfs/dir/<n>`. Works on every filesystem and
//! kernel, and shares nothing but the blocks that the filesystem can share (reflink).

use std::path::{Path, PathBuf};

use super::folder::{Folder, copy_dir, filesystem_of, in_scratch, make_dir, set_mode};
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Tree};
use crate::error::{Context, Result};
use crate::layer::Form;

pub(super) const ENTRY: Entry = Entry {
    name: "vfs",
    options: &[],
    probe,
    open: |setting| Ok(Box::new(Vfs::open(setting.root)?) as Box<dyn Driver>),
};

struct Vfs {
    folder: Folder,
    /// The view of no layer.
    empty: PathBuf,
}

impl Vfs {
    fn open(root: &Path) -> Result<Self> {
        let folder = Folder::open(root, "vfs/dir", "vfs")?;
        let empty = root.join("vfs/empty");
        std::fs::create_dir_all(&empty).context(|| format!("creating {}", empty.display()))?;
        Ok(Vfs { folder, empty })
    }
}

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        ENTRY.name
    }
    fn shape(&self) -> Shape {
        Shape::Stacked
    }

    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()> {
        debug_assert!(parents.len() <= 1, "a Stacked driver has one parent");
        self.folder.create(id)?;
        let Some(parent) = parents.first() else {
            return set_mode(&self.folder.path(id), 0o755);
        };
        copy_dir(&self.folder.path(*parent), &self.folder.path(id))
            .context(|| format!("copying snapshot {parent} to {id}"))
    }

    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        self.create(id, &[of])
    }

    fn mount(&self, id: SnapshotId, _parents: &[SnapshotId]) -> Result<Mount> {
        Ok(Mount::Bind { source: self.folder.path(id), read_only: false })
    }

    fn view(&self, stack: &[SnapshotId]) -> Result<Mount> {
        Ok(self.folder.view(stack, &self.empty))
    }

    fn tree(&self, id: SnapshotId) -> Result<Tree> {
        Tree::open(&self.folder.path(id), Form::Whole)
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.folder.path(id)
    }

    fn status(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("Backing Filesystem", filesystem_of(&self.empty)?)])
    }

    fn shares(&self) -> Result<bool> {
        self.folder.clones()
    }

    fn remove(&self, id: SnapshotId) -> Result<()> {
        self.folder.remove(id)
    }

    fn sync(&self, _ids: &[SnapshotId]) -> Result<()> {
        self.folder.sync()
    }

    fn delta(&self, _id: SnapshotId) -> Option<Delta> {
        None
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        self.folder.list()
    }
}

fn probe(setting: &Setting<'_>) -> Result<String> {
    let root = setting.root;
    in_scratch(root, ENTRY.name, |scratch| make_dir(&scratch.join("probe"), 0o755))?;
    Ok(format!("copies on {}", filesystem_of(root)?))
}
