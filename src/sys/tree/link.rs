//! A tree whose files are those of another one, and the changes of an overlay written into it.
//!
//! A file that has names in several trees must not change in any of them: what changes is taken away and made anew.
//! Directories cannot be shared, so each tree has its own.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::copy::{Ways, all_but_private, attributes};
use super::{join, open_far, remove, split};
use crate::sys::dir;

/// Gives all files in `from` names in the empty directory `to`, and makes directories there with the same attributes.
/// A file that can have no further name (EMLINK, or `chattr +i`) is copied. Nobody changes either meanwhile.
pub fn link(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut full = HashSet::new();
    let directories = each(from, to, |at, name, stat| {
        if kind(stat) == FileType::Directory {
            rustix::fs::mkdirat(at.to, name, Mode::RWXU)?;
        } else if !link_one(at, name)? {
            full.insert((stat.st_dev, stat.st_ino));
        }
        Ok(())
    })?;
    if !full.is_empty() {
        copy_full(from, to, &full)?;
    }
    for path in directories {
        let (old, new) = (open_far(from, &path)?, open_far(to, &path)?);
        let stat = rustix::fs::fstat(&old)?;
        attributes(old.as_fd(), new.as_fd(), c".", &stat, all_but_private)?;
    }
    Ok(())
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// One directory in both trees.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a [u8],
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
}

/// All entries of `from`, a directory before what is in it: then it stands in `to`, too. Returned are the
/// directories' paths.
fn each(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    mut entry: impl FnMut(At<'_>, &CStr, &Stat) -> io::Result<()>,
) -> io::Result<Vec<Vec<u8>>> {
    let (mut waiting, mut directories) = (vec![Vec::new()], Vec::new());
    while let Some(path) = waiting.pop() {
        let (from, to) = (open_far(from, &path)?, open_far(to, &path)?);
        for name in dir::names(from.as_fd())? {
            let stat = dir::lstat(from.as_fd(), &name)?;
            entry(At { path: &path, from: from.as_fd(), to: to.as_fd() }, &name, &stat)?;
            if kind(&stat) == FileType::Directory {
                waiting.push(join(&path, &name));
            }
        }
        directories.push(path);
    }
    Ok(directories)
}

/// `false`: it can have no further name.
fn link_one(at: At<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::linkat(at.from, name, at.to, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::MLINK | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies files that could not get all of their names, one copy for all names of a file.
fn copy_full(from: BorrowedFd<'_>, to: BorrowedFd<'_>, full: &HashSet<(u64, u64)>) -> io::Result<()> {
    let (mut copies, ways) = (HashMap::<_, Vec<u8>>::new(), Ways::new());
    each(from, to, |at, name, stat| {
        let inode = (stat.st_dev, stat.st_ino);
        if !full.contains(&inode) {
            return Ok(());
        }
        remove(at.to, name)?;
        if let Some(first) = copies.get(&inode) {
            return link_to(to, first, at.to, name);
        }
        copies.insert(inode, join(at.path, name));
        ways.entry(at.from, at.to, name, stat)?;
        attributes(at.from, at.to, name, stat, all_but_private)
    })
    .map(drop)
}

fn link_to(root: BorrowedFd<'_>, first: &[u8], dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let (parent, first) = split(first);
    Ok(rustix::fs::linkat(open_far(root, parent)?, first, dir, name, AtFlags::empty())?)
}

/// Writes what an overlay's upper directory changes into the tree `to`, which is [`link`]ed from what lay below it. The
/// upper's files get names there (without the marks that overlayfs left on them), so the upper must not be mounted any
/// more. May be done again with the same upper and another `to`.
pub fn replay(upper: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut replay = Replay { to, placed: HashMap::new(), ways: Ways::new() };
    let directories = each(upper, to, |at, name, stat| replay.entry(at, name, stat))?;
    for path in directories {
        let (from, to) = (open_far(upper, &path)?, open_far(to, &path)?);
        let wanted: HashSet<Vec<u8>> =
            dir::xattrs(from.as_fd(), c".")?.iter().filter_map(|(key, _)| unescaped(key)).collect();
        for (key, _) in dir::xattrs(to.as_fd(), c".")? {
            if !wanted.contains(&key) {
                rustix::fs::fremovexattr(&to, key)?;
            }
        }
        let stat = rustix::fs::fstat(&from)?;
        attributes(from.as_fd(), to.as_fd(), c".", &stat, unescaped)?;
    }
    Ok(())
}

struct Replay<'r> {
    to: BorrowedFd<'r>,
    /// The first name that a file with several got.
    placed: HashMap<(u64, u64), Vec<u8>>,
    ways: Ways,
}

impl Replay<'_> {
    fn entry(&mut self, at: At<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
        if kind(stat) == FileType::Directory {
            return directory(at.from, at.to, name);
        }
        remove(at.to, name)?;
        // A whiteout.
        if kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0 {
            return Ok(());
        }
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.placed.get(&inode) {
            return link_to(self.to, first, at.to, name);
        }
        if stat.st_nlink > 1 {
            self.placed.insert(inode, join(at.path, name));
        }
        if unmark(at.from, name)? && link_one(at, name)? {
            return Ok(());
        }
        self.ways.entry(at.from, at.to, name, stat)?;
        attributes(at.from, at.to, name, stat, unescaped)
    }
}

/// A directory with nothing in it that the upper's hides; its attributes come last.
fn directory(upper: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let marks = dir::xattrs(upper, name)?;
    let opaque = marks.iter().any(|(key, value)| key == b"trusted.overlay.opaque" && value == b"y");
    let stands = match dir::lstat(to, name) {
        Ok(stat) => kind(&stat) == FileType::Directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if stands && !opaque {
        return Ok(());
    }
    remove(to, name)?;
    Ok(rustix::fs::mkdirat(to, name, Mode::RWXU)?)
}

const MARKS: &[u8] = b"trusted.overlay.";
/// An attribute that somebody set through the mount under a name of overlayfs's own (overlayfs.rst, "Nested
/// overlayfs mounts").
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";

/// What an attribute of the upper is called in a whole tree.
fn unescaped(key: &[u8]) -> Option<Vec<u8>> {
    match key.strip_prefix(ESCAPED) {
        Some(rest) => Some([MARKS, rest].concat()),
        None => (!key.starts_with(MARKS)).then(|| key.to_vec()),
    }
}

/// Takes overlayfs's marks off a file. `false`: its attributes are not those of a whole tree even so.
fn unmark(upper: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let path: CString = dir::proc_path(upper, name);
    let mut plain = true;
    for (key, _) in dir::xattrs(upper, name)? {
        if key.starts_with(ESCAPED) {
            plain = false;
        } else if key.starts_with(MARKS) {
            match rustix::fs::lremovexattr(&path, &key) {
                Ok(()) | Err(Errno::NODATA) => {}
                // `chattr +i`.
                Err(Errno::PERM) => plain = false,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(plain)
}
