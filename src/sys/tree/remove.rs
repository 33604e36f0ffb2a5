//! A tree removed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::sys::{btrfs, dir};

/// Directories open at once while a tree is removed; what lies deeper is first moved up.
const DEPTH: usize = 64;

/// Removes what stands at `name`, of whatever kind; not being there is `Ok`, also when another process
/// removes it at the same time. A mount inside is an error (EXDEV), and what is mounted stays whole.
pub fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if is_dir(parent, name)? => remove_dir(parent, name, None, 0),
        Err(Errno::PERM) => unlink(parent, name),
        Err(errno) => Err(errno.into()),
    }
}

fn is_dir(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match dir::lstat(parent, name) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `top` is the directory that is being removed as a whole, `depth` how far below it `parent` is.
fn remove_dir(
    parent: BorrowedFd<'_>,
    name: &CStr,
    top: Option<BorrowedFd<'_>>,
    depth: usize,
) -> io::Result<()> {
    let Some(own) = open_own(parent, name)? else {
        return Ok(());
    };
    let subvolume = btrfs::is_root(&rustix::fs::fstat(&own)?);
    if subvolume && destroy(parent, name, own.as_fd()) {
        return Ok(());
    }
    // Nothing but a subvolume can be moved out of a subvolume.
    let (top, depth) = match top {
        Some(top) if !subvolume => (top, depth),
        _ => (own.as_fd(), 0),
    };
    loop {
        let before = empty_once(own.as_fd(), top, depth)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Another pass: a listing may miss what moves while it is read, and deep directories were moved
            // to the top.
            Err(Errno::NOTEMPTY) if before > 0 => {}
            Err(Errno::PERM) if unlock(parent) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether it was a subvolume of btrfs and is gone. One with others inside is emptied like any directory; it must not be
/// read-only for that.
fn destroy(parent: BorrowedFd<'_>, name: &CStr, own: BorrowedFd<'_>) -> bool {
    let gone = btrfs::destroy(parent, name).is_ok();
    if !gone && btrfs::is_read_only(own).unwrap_or(false) {
        // If it cannot be, emptying it says why.
        drop(btrfs::set_read_only(own, false));
    }
    gone
}

/// One pass over a directory; how many entries it saw.
fn empty_once(own: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize) -> io::Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = match rustix::fs::openat(own, c".", flags, Mode::empty()) {
        Ok(list) => list,
        // Somebody else has removed it since it was opened.
        Err(Errno::NOENT) => return Ok(0),
        Err(errno) => return Err(errno.into()),
    };
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut entries = RawDir::new(list, buffer.spare_capacity_mut());
    let mut seen = 0;
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => return Ok(seen),
            entry => entry?,
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        seen += 1;
        let directory = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => is_dir(own, name)?,
            _ => false,
        };
        if !directory {
            unlink(own, name)?;
        } else if depth < DEPTH {
            remove_dir(own, name, Some(top), depth + 1)?;
        } else {
            move_up(own, name, top)?;
        }
    }
    Ok(seen)
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    loop {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::PERM) if unlock(parent) || unlock_entry(parent, name) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Gives a directory a free name in the tree's first one, whose next pass finds it.
fn move_up(parent: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> io::Result<()> {
    // One counter for all: trying numbers from 0 would take a hostile tree's width squared.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let free = CString::new(format!(".outcrop-deep-{number}")).expect("there is no NUL in it");
        match rustix::fs::renameat_with(parent, name, top, &free, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(Errno::PERM) if unlock(parent) || unlock_entry(parent, name) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// `None`: somebody else has removed it.
fn open_own(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let mut allowed = false;
    loop {
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), how) {
            Ok(own) => return Ok(Some(own)),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // overlayfs leaves `work/work` with mode 000, which stops all but root.
            Err(Errno::ACCESS) if !allowed => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                allowed = true;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes `chattr +i` and `+a` away, which refuse even root; whether there was one.
fn unlock(fd: BorrowedFd<'_>) -> bool {
    let held = IFlags::IMMUTABLE | IFlags::APPEND;
    let Ok(flags) = rustix::fs::ioctl_getflags(fd) else {
        return false;
    };
    flags.intersects(held) && rustix::fs::ioctl_setflags(fd, flags - held).is_ok()
}

fn unlock_entry(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    // Only files and directories have the flags; opening a device could do anything.
    let plain = dir::lstat(parent, name).is_ok_and(|stat| {
        matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory)
    });
    plain && dir::open_entry(parent, name, OFlags::RDONLY).is_ok_and(|fd| unlock(fd.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_may_remove_one_tree_at_once() {
        let dir = std::env::temp_dir().join(format!("outcrop-tree-{}", std::process::id()));
        for _ in 0..10 {
            for n in 0..20 {
                std::fs::create_dir_all(dir.join(format!("tree/{n}/a/b"))).unwrap();
                std::fs::write(dir.join(format!("tree/{n}/a/file")), "x").unwrap();
            }
            let parent = std::fs::File::open(&dir).unwrap();
            std::thread::scope(|scope| {
                let removers: Vec<_> =
                    (0..3).map(|_| scope.spawn(|| remove(parent.as_fd(), c"tree"))).collect();
                for remover in removers {
                    remover.join().unwrap().unwrap();
                }
            });
            assert!(!dir.join("tree").exists());
        }
        std::fs::remove_dir(&dir).unwrap();
    }
}
