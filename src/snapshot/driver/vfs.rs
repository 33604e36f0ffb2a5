//! `vfs`: a copy of the parent for every snapshot, `<root>/vfs/dir/<n>`. Works on every filesystem and
//! kernel, and shares nothing but the blocks that the filesystem can share (reflink).

use std::path::{Path, PathBuf};

use super::folder::{Folder, copy_dir, filesystem_of, in_scratch, make_dir, set_mode};
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Tree, limits::Limited};
use crate::error::{Context, Result};
use crate::layer::Form;

pub(super) const ENTRY: Entry = Entry {
    name: "vfs",
    options: &[],
    probe,
    open: |setting| Ok(Box::new(Vfs::open(setting.root)?) as Box<dyn Driver>),
};

/// Notes of the snapshots that are limited, by their numbers.
const LIMITS: &str = "vfs/limits";

struct Vfs {
    root: PathBuf,
    folder: Folder,
    /// The view of no layer.
    empty: PathBuf,
}

impl Vfs {
    fn open(root: &Path) -> Result<Self> {
        let folder = Folder::open(root, "vfs/dir", "vfs")?;
        let empty = root.join("vfs/empty");
        std::fs::create_dir_all(&empty).context(|| format!("creating {}", empty.display()))?;
        Ok(Vfs { root: root.to_path_buf(), folder, empty })
    }

    /// Whatever is noted of the snapshot, of the tree that is there.
    fn limited(&self, id: SnapshotId, tree: PathBuf) -> Limited {
        Limited { note: self.root.join(LIMITS).join(id.to_string()), dirs: vec![tree] }
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

    /// Only what is made in a directory gets its project, links and devices too: all of it is made again.
    fn limit(&self, id: SnapshotId, bytes: u64) -> Result<()> {
        let (dir, notes) = (self.folder.path(id), self.root.join(LIMITS));
        std::fs::create_dir_all(&notes).context(|| format!("creating {}", notes.display()))?;
        in_scratch(&self.root, ENTRY.name, |scratch| {
            let made = scratch.join("tree");
            make_dir(&made, 0o700)?;
            self.limited(id, made.clone()).limit(bytes, || copy_dir(&dir, &made))?;
            self.folder.remove(id)?;
            std::fs::rename(&made, &dir).context(|| format!("putting {} in its place", dir.display()))
        })
    }

    fn remove(&self, id: SnapshotId) -> Result<()> {
        let limited = self.limited(id, self.folder.path(id));
        limited.lift();
        self.folder.remove(id)?;
        limited.forget()
    }

    fn delta(&self, _id: SnapshotId) -> Option<Delta> {
        None
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        self.folder.list_with(&self.root.join(LIMITS))
    }
}

fn probe(setting: &Setting<'_>) -> Result<String> {
    let root = setting.root;
    in_scratch(root, ENTRY.name, |scratch| make_dir(&scratch.join("probe"), 0o755))?;
    Ok(format!("copies on {}", filesystem_of(root)?))
}
