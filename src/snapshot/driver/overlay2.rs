//! `overlay2`: the kernel's overlayfs. A snapshot is one layer: `<root>/overlay2/<n>/diff`, and `work` until
//! it is sealed.
//!
//! A layer is mounted so that its upper directory is the diff (see `sys::overlay`), and stored as overlayfs
//! writes it: 0:0 character devices delete, `trusted.overlay.opaque` hides, `user.overlay.opaque` in a store that was made in a user
//! namespace. A mark on the root of a layer
//! hides nothing, so `Snapshots` ends the list of parents there.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};

use super::folder::{Folder, copy_dir, filesystem_of, in_scratch, make_dir, open_dir};
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Tree, limits::Limited};
use crate::error::{Context, Error, Result};
use crate::layer::Form;
use crate::sys;
use crate::sys::durable::write_durably;

pub(super) const ENTRY: Entry = Entry {
    name: "overlay2",
    options: &[],
    probe,
    open: |setting| Ok(Box::new(Overlay2::open(setting.root)?) as Box<dyn Driver>),
};

struct Overlay2 {
    folder: Folder,
    /// Whose marks: the kernel's own, or in a user namespace the user's.
    form: Form,
    /// An empty directory: the kernel wants two lowers where there is no upper, and one where there is.
    empty: PathBuf,
}

impl Overlay2 {
    fn open(root: &Path) -> Result<Self> {
        let folder = Folder::open(root, "overlay2", "overlay2")?;
        let dir = root.join("overlay2");
        let (empty, of_users) = (dir.join("empty"), dir.join("userxattr"));
        if !empty.exists() {
            choose_marks(&dir, &of_users, &empty)?;
        }
        let form = if of_users.exists() { Form::OverlayUser } else { Form::Overlay };
        Ok(Overlay2 { folder, form, empty })
    }
    fn diff(&self, id: SnapshotId) -> PathBuf {
        self.folder.path(id).join("diff")
    }
    fn work(&self, id: SnapshotId) -> PathBuf {
        self.folder.path(id).join("work")
    }
    fn limited(&self, id: SnapshotId) -> Limited {
        Limited { note: self.folder.path(id).join("size"), dirs: vec![self.diff(id), self.work(id)] }
    }
    fn diffs(&self, ids: &[SnapshotId]) -> Vec<PathBuf> {
        ids.iter().map(|id| self.diff(*id)).collect()
    }
}

impl Driver for Overlay2 {
    fn name(&self) -> &'static str {
        ENTRY.name
    }
    fn shape(&self) -> Shape {
        Shape::Layered
    }

    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()> {
        self.folder.create(id)?;
        make_dir(&self.work(id), 0o700)?;
        make_dir(&self.diff(id), 0o755)?;
        let Some(parent) = parents.first() else {
            return Ok(());
        };
        // The merged root shows the upper root's attributes.
        let doing = || format!("giving the root of snapshot {id} the attributes of {parent}'s");
        let (from, to) = (open_dir(&self.diff(*parent))?, open_dir(&self.diff(id))?);
        sys::tree::like(from.as_fd(), to.as_fd()).context(doing)
    }

    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        self.create(id, &[])?;
        copy_dir(&self.diff(of), &self.diff(id)).context(|| format!("copying snapshot {of} to {id}"))
    }

    fn mount(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<Mount> {
        let mut lowers = self.diffs(parents);
        if lowers.is_empty() {
            lowers.push(self.empty.clone());
        }
        self.limited(id).make_room_to_mount()?;
        let (upper, work) = (Some(self.diff(id)), Some(self.work(id)));
        Ok(Mount::Overlay { lowers, upper, work, volatile: false, user: self.form == Form::OverlayUser })
    }

    fn view(&self, stack: &[SnapshotId]) -> Result<Mount> {
        let mut lowers = self.diffs(stack);
        match lowers.len() {
            0 => return Ok(Mount::Bind { source: self.empty.clone(), read_only: true }),
            // Not a bind mount: that would show the whiteouts of the one layer as devices.
            1 => lowers.push(self.empty.clone()),
            _ => {}
        }
        Ok(Mount::Overlay {
            lowers,
            upper: None,
            work: None,
            volatile: false,
            user: self.form == Form::OverlayUser,
        })
    }

    fn tree(&self, id: SnapshotId) -> Result<Tree> {
        Tree::open(&self.diff(id), self.form)
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.diff(id)
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
        let dir = open_dir(&self.folder.path(id))?;
        sys::tree::remove(dir.as_fd(), c"work").context(|| format!("opening snapshot {id} again"))?;
        make_dir(&self.work(id), 0o700)
    }

    /// Without its work directory it can be no upper any more.
    fn seal(&self, id: SnapshotId) -> Result<()> {
        let dir = open_dir(&self.folder.path(id))?;
        sys::tree::remove(dir.as_fd(), c"work").context(|| format!("sealing snapshot {id}"))
    }

    fn delta(&self, id: SnapshotId) -> Option<Delta> {
        Some(Delta { dir: self.diff(id), form: self.form })
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        self.folder.list()
    }
}

/// The first to come decides for good: one store cannot have layers of both kinds. The empty directory is made last: where it
/// stands, the choice does.
fn choose_marks(dir: &Path, of_users: &Path, empty: &Path) -> Result<()> {
    let lock = open_dir(dir)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
        .context(|| format!("locking {}", dir.display()))?;
    if empty.exists() {
        return Ok(());
    }
    let chosen = match form_in(dir)? {
        Form::OverlayUser => write_durably(of_users, &dir.join("userxattr.new"), b""),
        // Of somebody who died in a user namespace.
        _ => std::fs::remove_file(of_users).or_else(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(cause),
        }),
    };
    chosen.context(|| format!("choosing the marks of {}", dir.display()))?;
    make_dir(empty, 0o755)
}

/// Mounts a layer on another with an upper, deletes a file, replaces a directory, and looks at what the upper
/// holds: a mount that succeeds proves little (overlayfs.rst; in a user namespace, or on a filesystem without
/// whiteouts, changes fail later).
fn probe(setting: &Setting<'_>) -> Result<String> {
    let root = setting.root;
    let filesystem = filesystem_of(root)?;
    let form = in_scratch(root, ENTRY.name, |scratch| {
        let form = form_in(scratch)?;
        try_in(scratch, form, &filesystem).map(|()| form)
    })?;
    let namespace = if form == Form::OverlayUser { ", in a user namespace" } else { "" };
    Ok(format!("kernel overlayfs on {filesystem}{namespace}"))
}

/// `trusted` xattrs are for who has CAP_SYS_ADMIN in the first user namespace (xattr(7)).
fn form_in(dir: &Path) -> Result<Form> {
    const MARK: &str = "trusted.overlay.opaque";
    let dir_fd = open_dir(dir)?;
    match rustix::fs::fsetxattr(&dir_fd, MARK, b"n", rustix::fs::XattrFlags::empty()) {
        Ok(()) => {
            let removed = rustix::fs::fremovexattr(&dir_fd, MARK);
            removed.context(|| format!("taking a mark from {}", dir.display())).map(|()| Form::Overlay)
        }
        Err(rustix::io::Errno::PERM) => Ok(Form::OverlayUser),
        Err(errno) => Err(errno).context(|| format!("marking {}", dir.display())),
    }
}

pub(super) fn try_in(scratch: &Path, form: Form, filesystem: &str) -> Result<()> {
    let [near, far, upper, work] = ["near", "far", "upper", "work"].map(|name| scratch.join(name));
    for dir in [&near, &far, &upper, &work, &far.join("replaced")] {
        make_dir(dir, 0o755)?;
    }
    std::fs::write(near.join("deleted"), "").context(|| format!("writing on {filesystem}"))?;
    let stack = Mount::Overlay {
        lowers: vec![near, far],
        upper: Some(upper.clone()),
        work: Some(work),
        volatile: false,
        user: form == Form::OverlayUser,
    };
    let root = sys::mount::detached(&stack)
        .context(|| format!("overlayfs cannot be mounted with its upper directory on {filesystem}"))?;
    change(&root).context(|| format!("overlayfs on {filesystem} cannot delete what lies below"))?;
    let upper = open_dir(&upper)?;
    let unlike = |what: &str| Error::unsupported(format!("overlayfs on {filesystem} does not {what}"));
    let deleted = sys::dir::lstat(upper.as_fd(), c"deleted").context(|| "looking for a whiteout")?;
    if FileType::from_raw_mode(deleted.st_mode) != FileType::CharacterDevice || deleted.st_rdev != 0 {
        return Err(unlike("write whiteouts"));
    }
    let marks = sys::dir::xattrs(upper.as_fd(), c"replaced").context(|| "looking for an opaque mark")?;
    let mark: &[u8] =
        if form == Form::OverlayUser { b"user.overlay.opaque" } else { b"trusted.overlay.opaque" };
    if !marks.contains(&(mark.to_vec(), b"y".to_vec())) {
        return Err(unlike("mark replaced directories with an xattr"));
    }
    Ok(())
}

fn change(root: &OwnedFd) -> rustix::io::Result<()> {
    const REPLACED: &CStr = c"replaced";
    rustix::fs::unlinkat(root, c"deleted", AtFlags::empty())?;
    rustix::fs::unlinkat(root, REPLACED, AtFlags::REMOVEDIR)?;
    rustix::fs::mkdirat(root, REPLACED, Mode::RWXU)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(root, c"replaced/new", flags, Mode::RUSR).map(drop)
}
