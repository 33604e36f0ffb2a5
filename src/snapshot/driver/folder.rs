//! What drivers have in common that keep each snapshot in a directory named by its number.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Mount, SnapshotId};
use crate::db::Scratch;
use crate::error::{Context, Error, Result};
use crate::sys;

/// `<root>/<name>/<number>`, and `<root>/trash` on the same filesystem.
pub(super) struct Folder {
    path: PathBuf,
    dir: OwnedFd,
    trash: OwnedFd,
    /// What names of this folder begin with in the trash.
    prefix: &'static str,
}

impl Folder {
    pub(super) fn open(root: &Path, name: &str, prefix: &'static str) -> Result<Self> {
        let (path, trash) = (root.join(name), root.join("trash"));
        for dir in [&path, &trash] {
            fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
        }
        Ok(Folder { dir: open_dir(&path)?, trash: open_dir(&trash)?, path, prefix })
    }

    pub(super) fn path(&self, id: SnapshotId) -> PathBuf {
        self.path.join(id.to_string())
    }

    pub(super) fn create(&self, id: SnapshotId) -> Result<()> {
        make_dir(&self.path(id), 0o700).map_err(|cause| match cause.kind() {
            crate::error::Kind::Conflict => Error::conflict(format!("snapshot {id} exists already")),
            _ => cause,
        })
    }

    /// Out of the way in one step, then deleted. Both may have been begun by somebody who died.
    pub(super) fn remove(&self, id: SnapshotId) -> Result<()> {
        let doing = || format!("removing snapshot {id} of {}", self.path.display());
        let name = CString::new(id.to_string()).expect("digits have no NUL");
        let discarded = CString::new(format!("{}-{id}", self.prefix)).expect("neither has a driver's name");
        loop {
            match rustix::fs::renameat(&self.dir, &name, &self.trash, &discarded) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    sys::tree::remove(self.trash.as_fd(), &discarded).context(doing)?;
                }
                Err(errno) => return Err(errno).context(doing),
            }
        }
        sys::tree::remove(self.trash.as_fd(), &discarded).context(doing)
    }

    /// To read a snapshot whose directory holds the whole of a stack; of no snapshot, `empty`.
    pub(super) fn view(&self, stack: &[SnapshotId], empty: &Path) -> Mount {
        let source = stack.first().map_or_else(|| empty.to_path_buf(), |id| self.path(*id));
        Mount::Bind { source, read_only: true }
    }

    /// Whether files here can share their blocks (ioctl_ficlone(2)); tried.
    pub(super) fn clones(&self) -> Result<bool> {
        let doing = || format!("trying to share blocks in {}", self.path.display());
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = || rustix::fs::openat(&self.dir, c".", flags, Mode::RUSR | Mode::WUSR).context(doing);
        let (one, other) = (file()?, file()?);
        rustix::io::pwrite(&one, &[1; 4096], 0).context(doing)?;
        Ok(rustix::fs::ioctl_ficlone(&other, &one).is_ok())
    }

    pub(super) fn list(&self) -> Result<Vec<SnapshotId>> {
        numbers(&self.dir).context(|| format!("listing {}", self.path.display()))
    }

    /// Those too of which a note alone is there, in the directory `notes` (which may be missing).
    pub(super) fn list_with(&self, notes: &Path) -> Result<Vec<SnapshotId>> {
        let mut all = self.list()?;
        if notes.exists() {
            all.extend(numbers(&open_dir(notes)?).context(|| format!("listing {}", notes.display()))?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

fn numbers(dir: &OwnedFd) -> std::io::Result<Vec<SnapshotId>> {
    let names = sys::dir::names(dir.as_fd())?;
    Ok(names.iter().filter_map(|name| name.to_str().ok()?.parse().ok().map(SnapshotId)).collect())
}

/// An own directory on `root`'s filesystem that is removed after `work`, for a probe.
pub(super) fn in_scratch<T>(root: &Path, driver: &str, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let trash = root.join("trash");
    fs::create_dir_all(&trash).context(|| format!("creating {}", trash.display()))?;
    let scratch = Scratch::new(root, &format!("probe-{driver}"))?;
    let result = work(&scratch.path);
    let name = scratch.path.file_name().unwrap_or_default();
    let name = CString::new(name.as_bytes()).expect("there is no NUL in it");
    let removed = sys::tree::remove(open_dir(&trash)?.as_fd(), &name)
        .context(|| format!("removing {}", scratch.path.display()));
    result.and_then(|value| removed.map(|()| value))
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("opening {}", path.display()))
}

/// All of a tree, by a thread per core.
pub(super) fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (open_dir(from)?, open_dir(to)?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    sys::tree::copy(from.as_fd(), to.as_fd(), threads).context(|| "copying a tree")
}

/// A new directory with exactly this mode, whatever the umask.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::mkdir(path, Mode::RWXU).context(|| format!("creating {}", path.display()))?;
    set_mode(path, mode)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
        .context(|| format!("setting the mode of {}", path.display()))
}

/// The name of the filesystem that `path` stands on, as people call it.
pub(super) fn filesystem_of(path: &Path) -> Result<String> {
    let magic = rustix::fs::statfs(path).context(|| format!("examining {}", path.display()))?.f_type;
    Ok(match magic {
        0xef53 => "ext4".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x2fc1_2fc1 => "zfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x6969 => "nfs".into(),
        0x6573_5546 => "fuse".into(),
        0xf2f5_2010 => "f2fs".into(),
        other => format!("filesystem {other:#x}"),
    })
}
