//! A tree copied, with all that its files have.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{join, open_far, split};
use crate::sys::dir;

/// Copies all that stands in `from` into the empty directory `to`, and the directory's own owner, mode, times
/// and xattrs: contents (shared blocks where the filesystem can, holes kept), hard links among themselves,
/// devices. Nobody else may change either meanwhile. `threads` work at once.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, threads: usize) -> io::Result<()> {
    let copy = Copy {
        from,
        to,
        queue: Mutex::new(Queue { waiting: vec![Vec::new()], busy: 0, failed: None }),
        changed: Condvar::new(),
        links: Mutex::default(),
        dirs: Mutex::default(),
        ways: Ways::new(),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| copy.work());
        }
        copy.work();
    });
    copy.finish()
}

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    queue: Mutex<Queue>,
    changed: Condvar,
    links: Mutex<Links>,
    /// All directories, to get their attributes last: a default ACL would change what is made in them, and
    /// making changes their times.
    dirs: Mutex<Vec<Vec<u8>>>,
    ways: Ways,
}

struct Queue {
    /// Directories, as paths from the root.
    waiting: Vec<Vec<u8>>,
    busy: usize,
    failed: Option<io::Error>,
}

#[derive(Default)]
struct Links {
    /// The first name met of an inode with several, by device and inode number.
    first: HashMap<(u64, u64), Vec<u8>>,
    /// First name, further name: made at the end, when the first one surely stands.
    further: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A thread that panics poisons the lock; the panic itself is passed on by the scope.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copy<'_> {
    fn work(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if queue.failed.is_some() {
                break;
            }
            if let Some(path) = queue.waiting.pop() {
                queue.busy += 1;
                drop(queue);
                let result = self.directory(path);
                queue = lock(&self.queue);
                queue.busy -= 1;
                if let Err(error) = result {
                    queue.failed.get_or_insert(error);
                }
                self.changed.notify_all();
            } else if queue.busy == 0 {
                break;
            } else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn directory(&self, path: Vec<u8>) -> io::Result<()> {
        let (from, to) = (open_far(self.from, &path)?, open_far(self.to, &path)?);
        for name in dir::names(from.as_fd())? {
            self.entry(&path, from.as_fd(), to.as_fd(), &name)?;
        }
        lock(&self.dirs).push(path);
        Ok(())
    }

    fn entry(&self, path: &[u8], from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let stat = dir::lstat(from, name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            lock(&self.queue).waiting.push(join(path, name));
            self.changed.notify_one();
            return Ok(());
        }
        if stat.st_nlink > 1 && !self.is_first_name(&stat, path, name) {
            return Ok(());
        }
        self.ways.entry(from, to, name, &stat)?;
        attributes(from, to, name, &stat, all_but_private)
    }

    fn is_first_name(&self, stat: &Stat, path: &[u8], name: &CStr) -> bool {
        let links = &mut *lock(&self.links);
        let own = join(path, name);
        match links.first.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(own);
                true
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                links.further.push((first.get().clone(), own));
                false
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        if let Some(error) = lock(&self.queue).failed.take() {
            return Err(error);
        }
        for (first, further) in &lock(&self.links).further {
            let (first_dir, first_name) = split(first);
            let (further_dir, further_name) = split(further);
            let (old, new) = (open_far(self.to, first_dir)?, open_far(self.to, further_dir)?);
            rustix::fs::linkat(&old, first_name, &new, further_name, AtFlags::empty())?;
        }
        for path in lock(&self.dirs).iter() {
            let (from, to) = (open_far(self.from, path)?, open_far(self.to, path)?);
            let stat = rustix::fs::fstat(&from)?;
            attributes(from.as_fd(), to.as_fd(), c".", &stat, all_but_private)?;
        }
        Ok(())
    }
}

/// How bytes come from one file into another here.
pub(super) struct Ways {
    /// Whether the filesystem still may know FICLONE, copy_file_range(2).
    clones: AtomicBool,
    ranges: AtomicBool,
}

impl Ways {
    pub(super) fn new() -> Self {
        Ways { clones: AtomicBool::new(true), ranges: AtomicBool::new(true) }
    }

    /// A new one of the same kind and content, without its attributes. No directory.
    pub(super) fn entry(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(from, to, name, stat),
            FileType::Symlink => Ok(rustix::fs::symlinkat(dir::read_link(from, name)?, to, name)?),
            kind => Ok(rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?),
        }
    }

    fn file(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
        let source = match dir::open_entry(from, name, OFlags::RDONLY | OFlags::NOATIME) {
            // Only the owner and root may leave the access time alone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                dir::open_entry(from, name, OFlags::RDONLY)?
            }
            other => other?,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 || self.clone_whole(&source, &target)? {
            return Ok(());
        }
        let stored = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if stored >= size {
            return self.range(&source, &target, 0, size);
        }
        rustix::fs::ftruncate(&target, size)?;
        let mut at = 0;
        while at < size {
            at = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            let end = rustix::fs::seek(&source, SeekFrom::Hole(at))?.min(size);
            self.range(&source, &target, at, end)?;
            at = end;
        }
        Ok(())
    }

    fn clone_whole(&self, source: &OwnedFd, target: &OwnedFd) -> io::Result<bool> {
        if !self.clones.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match rustix::fs::ioctl_ficlone(target, source) {
            Ok(()) => Ok(true),
            Err(Errno::NOTSUP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
                self.clones.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Bytes `at..end`, to the same place.
    fn range(&self, source: &OwnedFd, target: &OwnedFd, mut at: u64, end: u64) -> io::Result<()> {
        while at < end && self.ranges.load(Ordering::Relaxed) {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            let (mut input, mut output) = (at, at);
            match rustix::fs::copy_file_range(source, Some(&mut input), target, Some(&mut output), length) {
                // It ends before its size, or this filesystem answers so: reading decides.
                Ok(0) => break,
                Ok(copied) => at += copied as u64,
                Err(Errno::INTR) => {}
                Err(Errno::NOTSUP | Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                    self.ranges.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut buffer = if at < end { vec![0u8; 256 * 1024] } else { Vec::new() };
        while at < end {
            let length = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let read = rustix::io::pread(source, &mut buffer[..length], at)?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a file shrank while it was copied",
                ));
            }
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let written = rustix::io::pwrite(target, rest, at)?;
                at += written as u64;
                rest = &rest[written..];
            }
        }
        Ok(())
    }
}

/// Owner, mode, xattrs, times, in this order: chown(2) takes set-id bits and capabilities away, an ACL
/// changes the mode's group bits, and all of them could change times. `called` says what an xattr is called there;
/// `None`: it stays behind.
pub(super) fn attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    called: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> io::Result<()> {
    owner_and_mode(to, name, stat)?;
    for (key, value) in dir::xattrs(from, name)? {
        if let Some(key) = called(&key) {
            dir::set_xattr(to, name, &key, &value)?;
        }
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// In a tree of the same form.
pub(super) fn all_but_private(key: &[u8]) -> Option<Vec<u8>> {
    (!PRIVATE.contains(&key)).then(|| key.to_vec())
}

/// What overlayfs notes for itself about one mount of one upper; what it says of deletions is content.
const PRIVATE: [&[u8]; 6] = [
    b"trusted.overlay.origin",
    b"trusted.overlay.impure",
    b"trusted.overlay.nlink",
    b"trusted.overlay.uuid",
    b"trusted.overlay.upper",
    b"trusted.overlay.protattr",
];

fn owner_and_mode(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    Ok(())
}
