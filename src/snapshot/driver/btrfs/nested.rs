//! Subvolumes that containers made inside of theirs, as plain directories with the same content.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Stat, Timespec, Timestamps};

use crate::sys::{btrfs, dir, tree};

/// A subvolume in another one.
struct Nested {
    /// The directory that it stands in, below the root.
    parent: Vec<u8>,
    name: CString,
}

/// Makes plain directories of all; what holds their blocks afterwards is the tree itself. May be done again by
/// whoever finds it half done.
pub(super) fn flatten(root: BorrowedFd<'_>) -> io::Result<()> {
    for Nested { parent, name } in find(root)? {
        let at = tree::open_far(root, &parent)?;
        let nested = dir::open_dir(at.as_fd(), &name)?;
        let before = rustix::fs::fstat(&at)?;
        // Its own number: somebody who died has put a directory in its place, or not yet.
        let spare = CString::new(format!(".outcrop-plain-{}", btrfs::id(nested.as_fd())?))
            .expect("there is no NUL in it");
        if name != spare {
            tree::remove(at.as_fd(), &spare)?;
            let plain = make(at.as_fd(), &spare)?;
            tree::copy(nested.as_fd(), plain.as_fd(), threads())?;
            rustix::fs::renameat_with(&at, &name, &at, &spare, RenameFlags::EXCHANGE)?;
        }
        drop(nested);
        tree::remove(at.as_fd(), &spare)?;
        restore_times(&at, &before)?;
    }
    Ok(())
}

/// A snapshot has an empty directory where `from` has a subvolume: it gets what that holds.
pub(super) fn fill(from: BorrowedFd<'_>, snapshot: BorrowedFd<'_>) -> io::Result<()> {
    for Nested { parent, name } in find(from)? {
        let nested = dir::open_dir(tree::open_far(from, &parent)?.as_fd(), &name)?;
        let at = tree::open_far(snapshot, &parent)?;
        let before = rustix::fs::fstat(&at)?;
        rustix::fs::unlinkat(&at, &name, AtFlags::REMOVEDIR)?;
        tree::copy(nested.as_fd(), make(at.as_fd(), &name)?.as_fd(), threads())?;
        restore_times(&at, &before)?;
    }
    Ok(())
}

/// The outermost ones.
fn find(root: BorrowedFd<'_>) -> io::Result<Vec<Nested>> {
    let mut found = Vec::new();
    if !btrfs::has_nested(root)? {
        return Ok(found);
    }
    let own = rustix::fs::fstat(root)?.st_dev;
    let mut waiting = vec![Vec::new()];
    while let Some(parent) = waiting.pop() {
        let at = tree::open_far(root, &parent)?;
        for name in dir::names(at.as_fd())? {
            let stat = dir::lstat(at.as_fd(), &name)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            match btrfs::is_root(&stat) && stat.st_dev != own {
                true => found.push(Nested { parent: parent.clone(), name }),
                false => waiting.push(tree::join(&parent, &name)),
            }
        }
    }
    Ok(found)
}

fn make(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(at, name, Mode::RWXU)?;
    dir::open_dir(at, name)
}

fn restore_times(at: &OwnedFd, before: &Stat) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: before.st_atime as _, tv_nsec: before.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: before.st_mtime as _, tv_nsec: before.st_mtime_nsec as _ },
    };
    Ok(rustix::fs::futimens(at, &times)?)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
