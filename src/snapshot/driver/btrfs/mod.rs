//! `btrfs`: a subvolume for every snapshot, `<root>/btrfs/subvolumes/<n>`, each a snapshot of its parent's: made in a
//! moment, sharing all blocks. Sealed ones are read-only.
//!
//! Containers may make subvolumes in theirs. A snapshot shows an empty directory in their place, so they become
//! plain directories when a tree is sealed or copied ([`nested`]).

mod changes;
mod groups;
mod nested;
mod replay;
mod stream;

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use self::groups::Groups;
use super::folder::{Folder, filesystem_of, in_scratch, open_dir, set_mode};
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Stamps, Tree};
use crate::error::{Context, Error, Result};
use crate::layer::{Form, Touched};
use crate::sys::btrfs;

pub(super) const ENTRY: Entry = Entry {
    name: "btrfs",
    options: &["btrfs.min_space"],
    probe,
    open: |setting| Ok(Box::new(Btrfs::open(setting)?) as Box<dyn Driver>),
};

struct Btrfs {
    folder: Folder,
    subvolumes: OwnedFd,
    /// Read-only snapshots of a moment.
    send: OwnedFd,
    /// A file for each limited container: bytes, and the number of its quota group.
    quotas: PathBuf,
    groups: Groups,
    /// The view of no layer.
    empty: PathBuf,
    /// No container's size is less.
    min_space: u64,
}

impl Btrfs {
    fn open(setting: &Setting<'_>) -> Result<Self> {
        let home = setting.root.join("btrfs");
        let folder = Folder::open(setting.root, "btrfs/subvolumes", ENTRY.name)?;
        let (empty, quotas, send) = (home.join("empty"), home.join("quotas"), home.join("send"));
        let groups = Groups::of(setting.root);
        for dir in [&*empty, &quotas, &send, groups.dir()] {
            fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
        }
        let subvolumes = open_dir(&home.join("subvolumes"))?;
        let send = open_dir(&send)?;
        let min_space = setting.options.bytes("btrfs.min_space", 0)?;
        Ok(Btrfs { folder, subvolumes, send, quotas, groups, empty, min_space })
    }

    fn dir(&self, id: SnapshotId) -> Result<OwnedFd> {
        open_dir(&self.folder.path(id))
    }

    fn made(&self, id: SnapshotId, made: std::io::Result<()>) -> Result<()> {
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::conflict(format!("snapshot {id} exists already")))
            }
            made => made.context(|| format!("making the subvolume {}", self.folder.path(id).display())),
        }
    }

    /// What was kept of its limit goes last: it names what else is to go.
    fn forget_quota(&self, id: SnapshotId) -> Result<()> {
        let file = self.quotas.join(id.to_string());
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            text => text.context(|| format!("reading {}", file.display()))?,
        };
        if let Some(group) = text.split_whitespace().nth(1).and_then(|group| group.parse().ok())
            && let Err(error) = btrfs::forget_limit(self.subvolumes.as_fd(), group)
        {
            tracing::debug!(group, %error, "the quota group is left to the kernel");
        }
        fs::remove_file(&file).context(|| format!("removing {}", file.display()))
    }
}

fn name_of(id: SnapshotId) -> CString {
    CString::new(id.to_string()).expect("digits have no NUL")
}

impl Driver for Btrfs {
    fn name(&self) -> &'static str {
        ENTRY.name
    }
    fn shape(&self) -> Shape {
        Shape::Stacked
    }

    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()> {
        debug_assert!(parents.len() <= 1, "a Stacked driver has one parent");
        let (dir, name) = (self.subvolumes.as_fd(), name_of(id));
        if let Some(parent) = parents.first() {
            let parent = self.dir(*parent)?;
            return self.made(id, btrfs::snapshot(dir, &name, parent.as_fd(), false));
        }
        self.made(id, btrfs::create(dir, &name))?;
        set_mode(&self.folder.path(id), 0o755)
    }

    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        let from = self.dir(of)?;
        self.made(id, btrfs::snapshot(self.subvolumes.as_fd(), &name_of(id), from.as_fd(), false))?;
        nested::fill(from.as_fd(), self.dir(id)?.as_fd())
            .context(|| format!("copying the subvolumes in snapshot {of} to {id}"))
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

    /// A subvolume goes in one step; with others in it, it is moved away first like any directory.
    fn remove(&self, id: SnapshotId) -> Result<()> {
        if let Ok(dir) = self.dir(id) {
            self.groups.note(dir.as_fd()).context(|| format!("noting the quota group of snapshot {id}"))?;
        }
        match btrfs::destroy(self.subvolumes.as_fd(), &name_of(id)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A read-only one cannot be moved.
            Err(_) => btrfs::set_read_only(self.dir(id)?.as_fd(), false)
                .context(|| format!("removing snapshot {id} of {}", self.folder.path(id).display()))?,
        }
        self.folder.remove(id)?;
        self.forget_quota(id)?;
        self.groups.clean(self.subvolumes.as_fd()).context(|| "removing quota groups of what is gone")?;
        changes::clean(self.send.as_fd()).context(|| "removing what was left of a comparison")
    }

    fn seal(&self, id: SnapshotId) -> Result<()> {
        let doing = || format!("sealing snapshot {id}");
        let dir = self.dir(id)?;
        if btrfs::is_read_only(dir.as_fd()).context(doing)? {
            return Ok(());
        }
        nested::flatten(dir.as_fd()).context(doing)?;
        btrfs::set_read_only(dir.as_fd(), true).context(doing)
    }

    fn limit(&self, id: SnapshotId, bytes: u64) -> Result<()> {
        if bytes < self.min_space {
            return Err(Error::invalid(format!(
                "a size of {bytes} bytes is less than `btrfs.min_space`, {}",
                self.min_space
            ))
            .hint("give a larger `--storage-opt size=`"));
        }
        let doing = || format!("limiting the size of snapshot {id}");
        let dir = self.dir(id)?;
        let group = btrfs::id(dir.as_fd()).context(doing)?;
        let file = self.quotas.join(id.to_string());
        fs::write(&file, format!("{bytes} {group}\n")).context(|| format!("writing {}", file.display()))?;
        btrfs::limit(dir.as_fd(), bytes).context(doing)
    }

    fn status(&self) -> Result<Vec<(&'static str, String)>> {
        let doing = || "asking btrfs how full it is";
        let spaces = btrfs::spaces(self.subvolumes.as_fd()).context(doing)?;
        let stat = rustix::fs::fstatvfs(&self.subvolumes).context(doing)?;
        let quotas = match btrfs::quotas(self.subvolumes.as_fd()).context(doing)? {
            btrfs::Quotas::Off => "off",
            btrfs::Quotas::Full => "full",
            btrfs::Quotas::Simple => "simple",
        };
        let mut status = vec![("Backing Filesystem", "btrfs".to_owned())];
        for (name, bytes) in [
            ("Data Space Used", spaces.data.used),
            ("Data Space Total", spaces.data.total),
            ("Data Space Available", stat.f_bavail.saturating_mul(stat.f_frsize)),
            ("Metadata Space Used", spaces.metadata.used),
            ("Metadata Space Total", spaces.metadata.total),
        ] {
            status.push((name, bytes.to_string()));
        }
        status.push(("Quotas", quotas.to_owned()));
        Ok(status)
    }

    fn delta(&self, _id: SnapshotId) -> Option<Delta> {
        None
    }

    fn touched(&self, id: SnapshotId, parent: SnapshotId) -> Result<Option<Touched>> {
        let (tree, below) = (self.dir(id)?, self.dir(parent)?);
        Ok(changes::between(tree.as_fd(), below.as_fd(), self.send.as_fd(), &self.groups).unwrap_or_else(
            |error| {
                tracing::debug!(id = id.0, %error, "everything is compared");
                None
            },
        ))
    }

    fn stamps(&self, _id: SnapshotId) -> Result<Option<Stamps>> {
        Ok(Some(Stamps::All))
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        self.folder.list_with(&self.quotas)
    }
}

/// Makes a subvolume and a read-only snapshot of it, and destroys both: users may make, but not destroy.
fn probe(setting: &Setting<'_>) -> Result<String> {
    let filesystem = filesystem_of(setting.root)?;
    if filesystem != ENTRY.name {
        return Err(Error::unsupported(format!(
            "{} is on {filesystem}, not on btrfs",
            setting.root.display()
        ))
        .hint("put the store on a btrfs filesystem: `--root DIR`"));
    }
    let groups = Groups::of(setting.root);
    in_scratch(setting.root, ENTRY.name, |scratch| try_in(scratch, &groups))?;
    Ok("subvolumes and snapshots of btrfs".into())
}

fn try_in(scratch: &Path, groups: &Groups) -> Result<()> {
    let dir = open_dir(scratch)?;
    btrfs::create(dir.as_fd(), c"parent").context(|| "no subvolume can be made here")?;
    fs::write(scratch.join("parent/file"), "content").context(|| "writing to a subvolume")?;
    let parent = open_dir(&scratch.join("parent"))?;
    btrfs::snapshot(dir.as_fd(), c"child", parent.as_fd(), true)
        .context(|| "no snapshot can be made here")?;
    let seen = fs::read_to_string(scratch.join("child/file")).context(|| "reading in a snapshot")?;
    if seen != "content" {
        return Err(Error::unsupported("a snapshot does not show what was written before it was made"));
    }
    btrfs::has_nested(parent.as_fd()).context(|| "subvolumes cannot be searched for (that takes root)")?;
    let child = open_dir(&scratch.join("child"))?;
    for (name, subvolume) in [(c"child", child), (c"parent", parent)] {
        groups.note(subvolume.as_fd()).context(|| "asking for quotas")?;
        btrfs::destroy(dir.as_fd(), name)
            .context(|| "subvolumes can be made, but not destroyed (that takes root)")?;
    }
    Ok(())
}
