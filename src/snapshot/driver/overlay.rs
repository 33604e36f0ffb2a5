//! `overlay`: the classic engine's first format for the kernel's overlayfs, which then took one lower directory:
//! `<root>/overlay/<n>/root` is all that a stack shows, its files hard links of the parent's.
//!
//! One that is written to has `lower-id`, `upper` and `work` instead, and is mounted over the root of that other one.
//! Sealing links the parent's tree and replays the upper into it (`sys::tree`): nothing is ever written to a root that
//! has a parent, as each of its files may be one of many others'.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::folder::{Folder, copy_dir, filesystem_of, in_scratch, make_dir, open_dir};
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Tree, limits::Limited, overlay2};
use crate::error::{Context, Error, Result};
use crate::layer::Form;
use crate::sys;

pub(super) const ENTRY: Entry = Entry {
    name: "overlay",
    options: &[],
    probe,
    open: |setting| Ok(Box::new(Overlay::open(setting.root)?) as Box<dyn Driver>),
};

struct Overlay {
    folder: Folder,
    /// The view of no layer.
    empty: PathBuf,
}

impl Overlay {
    fn open(root: &Path) -> Result<Self> {
        let folder = Folder::open(root, "overlay", ENTRY.name)?;
        let empty = root.join("overlay/empty");
        fs::create_dir_all(&empty).context(|| format!("creating {}", empty.display()))?;
        Ok(Overlay { folder, empty })
    }
    fn root(&self, id: SnapshotId) -> PathBuf {
        self.folder.path(id).join("root")
    }
    fn upper(&self, id: SnapshotId) -> PathBuf {
        self.folder.path(id).join("upper")
    }
    fn work(&self, id: SnapshotId) -> PathBuf {
        self.folder.path(id).join("work")
    }
    fn limited(&self, id: SnapshotId) -> Limited {
        // One on nothing is written to as it stands.
        let dirs = match self.is_whole(id) {
            true => vec![self.root(id)],
            false => vec![self.upper(id), self.work(id)],
        };
        Limited { note: self.folder.path(id).join("size"), dirs }
    }
    /// Sealed, or made on nothing.
    fn is_whole(&self, id: SnapshotId) -> bool {
        self.root(id).exists()
    }

    /// What one that is written to stands on; `None`: nothing.
    fn lower(&self, id: SnapshotId) -> Result<Option<SnapshotId>> {
        let path = self.folder.path(id).join("lower-id");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.context(|| format!("reading {}", path.display()))?,
        };
        let number = text.trim().parse().map_err(|_not_one| {
            Error::corrupt(format!("{} holds no number of a snapshot", path.display()))
                .hint("remove the container that it belongs to")
        })?;
        Ok(Some(SnapshotId(number)))
    }

    /// With an upper to be filled.
    fn make_on(&self, id: SnapshotId, parent: SnapshotId) -> Result<()> {
        let path = self.folder.path(id).join("lower-id");
        fs::write(&path, parent.to_string()).context(|| format!("writing {}", path.display()))?;
        make_dir(&self.work(id), 0o700)?;
        make_dir(&self.upper(id), 0o755)
    }

    fn remove_parts(&self, id: SnapshotId, names: &[&std::ffi::CStr]) -> Result<()> {
        let home = open_dir(&self.folder.path(id))?;
        for name in names {
            sys::tree::remove(home.as_fd(), name)
                .context(|| format!("removing {} of snapshot {id}", name.to_string_lossy()))?;
        }
        Ok(())
    }

    /// The whole tree under a name of its own, then under the one that makes it count.
    fn make_whole(&self, id: SnapshotId) -> Result<()> {
        let missing = || Error::not_found(format!("snapshot {id} has neither a root nor a lower-id"));
        let parent = self.lower(id)?.ok_or_else(missing)?;
        self.remove_parts(id, &[c"sealing"])?;
        let sealing = self.folder.path(id).join("sealing");
        make_dir(&sealing, 0o700)?;
        let (from, to) = (open_dir(&self.root(parent))?, open_dir(&sealing)?);
        sys::tree::link(from.as_fd(), to.as_fd()).context(|| format!("linking the files of {parent}"))?;
        sys::tree::replay(open_dir(&self.upper(id))?.as_fd(), to.as_fd())
            .context(|| "writing its changes into the tree")?;
        let root = self.root(id);
        fs::rename(&sealing, &root).context(|| format!("renaming {} to `root`", sealing.display()))
    }
}

impl Driver for Overlay {
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
            return make_dir(&self.root(id), 0o755);
        };
        self.make_on(id, *parent)?;
        // The merged root shows the upper root's attributes.
        let (from, to) = (open_dir(&self.root(*parent))?, open_dir(&self.upper(id))?);
        sys::tree::like(from.as_fd(), to.as_fd())
            .context(|| format!("giving the root of snapshot {id} the attributes of {parent}'s"))
    }

    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        self.folder.create(id)?;
        let (from, to) = match self.lower(of)? {
            Some(parent) => {
                self.make_on(id, parent)?;
                (self.upper(of), self.upper(id))
            }
            None => {
                make_dir(&self.root(id), 0o755)?;
                (self.root(of), self.root(id))
            }
        };
        copy_dir(&from, &to).context(|| format!("copying snapshot {of} to {id}"))
    }

    fn mount(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<Mount> {
        let Some(parent) = parents.first() else {
            return Ok(Mount::Bind { source: self.root(id), read_only: false });
        };
        self.limited(id).make_room_to_mount()?;
        let (upper, work) = (Some(self.upper(id)), Some(self.work(id)));
        Ok(Mount::Overlay { lowers: vec![self.root(*parent)], upper, work, volatile: false, user: false })
    }

    fn view(&self, stack: &[SnapshotId]) -> Result<Mount> {
        let bind = |source| Ok(Mount::Bind { source, read_only: true });
        let Some(id) = stack.first() else {
            return bind(self.empty.clone());
        };
        match self.lower(*id)? {
            Some(parent) if !self.is_whole(*id) => {
                let lowers = vec![self.upper(*id), self.root(parent)];
                Ok(Mount::Overlay { lowers, upper: None, work: None, volatile: false, user: false })
            }
            _ => bind(self.root(*id)),
        }
    }

    fn tree(&self, id: SnapshotId) -> Result<Tree> {
        match self.delta(id) {
            Some(delta) => Tree::open(&delta.dir, delta.form),
            None => Tree::open(&self.root(id), Form::Whole),
        }
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.delta(id).map_or_else(|| self.root(id), |delta| delta.dir)
    }

    fn status(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("Backing Filesystem", filesystem_of(&self.empty)?)])
    }

    fn limit(&self, id: SnapshotId, bytes: u64) -> Result<()> {
        self.limited(id).limit(bytes, || Ok(()))
    }

    fn remove(&self, id: SnapshotId) -> Result<()> {
        self.limited(id).lift();
        self.folder.remove(id)
    }

    /// Its work directory remembers a volatile mount, and refuses any other.
    fn reopen(&self, id: SnapshotId) -> Result<()> {
        if !self.is_whole(id) {
            self.remove_parts(id, &[c"work"])?;
            make_dir(&self.work(id), 0o700)?;
        }
        Ok(())
    }

    fn seal(&self, id: SnapshotId) -> Result<()> {
        if !self.is_whole(id) {
            self.make_whole(id).context(|| format!("sealing snapshot {id}"))?;
        }
        self.remove_parts(id, &[c"work", c"upper", c"lower-id"])
    }

    /// Once sealed, only a comparison with the parent tells.
    fn delta(&self, id: SnapshotId) -> Option<Delta> {
        let changed = !self.is_whole(id) && self.upper(id).exists();
        changed.then(|| Delta { dir: self.upper(id), form: Form::Overlay })
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        self.folder.list()
    }
}

fn probe(setting: &Setting<'_>) -> Result<String> {
    let filesystem = filesystem_of(setting.root)?;
    in_scratch(setting.root, ENTRY.name, |scratch| {
        overlay2::try_in(scratch, Form::Overlay, &filesystem)?;
        let (file, link) = (scratch.join("file"), scratch.join("link"));
        fs::write(&file, "").context(|| format!("writing on {filesystem}"))?;
        fs::hard_link(file, link).context(|| format!("{filesystem} has no hard links"))
    })?;
    Ok(format!("kernel overlayfs over one tree of hard links on {filesystem}"))
}
