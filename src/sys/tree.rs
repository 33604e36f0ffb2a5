//! Whole trees: removed, copied. Nothing is followed, nothing leads out, and depth is not bounded by
//! PATH_MAX.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps,
    Uid,
};
use rustix::io::Errno;

use super::dir;

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
    let top = top.unwrap_or(own.as_fd());
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
        clones: AtomicBool::new(true),
        ranges: AtomicBool::new(true),
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
    /// Whether the filesystem still may know FICLONE, copy_file_range(2).
    clones: AtomicBool,
    ranges: AtomicBool,
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
        match kind {
            FileType::RegularFile => self.file(from, to, name, &stat)?,
            FileType::Symlink => {
                let target = dir::read_link(from, name)?;
                rustix::fs::symlinkat(target, to, name)?;
            }
            _ => rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?,
        }
        attributes(from, to, name, &stat)
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
            attributes(from.as_fd(), to.as_fd(), c".", &stat)?;
        }
        Ok(())
    }
}

/// Owner, mode, xattrs, times, in this order: chown(2) takes set-id bits and capabilities away, an ACL
/// changes the mode's group bits, and all of them could change times.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    owner_and_mode(to, name, stat)?;
    for (key, value) in dir::xattrs(from, name)? {
        if !PRIVATE.contains(&key.as_slice()) {
            dir::set_xattr(to, name, &key, &value)?;
        }
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
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

/// Owner, mode and xattrs of a directory for another one, but for what overlayfs writes there.
pub fn like(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    owner_and_mode(to, c".", &rustix::fs::fstat(from)?)?;
    for (key, value) in dir::xattrs(from, c".")? {
        if !key.starts_with(b"trusted.overlay.") && !key.starts_with(b"user.overlay.") {
            dir::set_xattr(to, c".", &key, &value)?;
        }
    }
    Ok(())
}

fn owner_and_mode(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    Ok(())
}

/// Opens a directory below `root` by a path of any length.
fn open_far(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    const LONGEST: usize = 4000;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut rest = path;
    let mut reached: Option<OwnedFd> = None;
    loop {
        let base = reached.as_ref().map_or(root, AsFd::as_fd);
        if rest.len() <= LONGEST {
            return dir::open_beneath(base, rest, flags);
        }
        let cut = rest[..LONGEST].iter().rposition(|byte| *byte == b'/').expect("names end at 255 bytes");
        reached = Some(dir::open_beneath(base, &rest[..cut], flags)?);
        rest = &rest[cut + 1..];
    }
}

fn join(path: &[u8], name: &CStr) -> Vec<u8> {
    if path.is_empty() { name.to_bytes().to_vec() } else { [path, name.to_bytes()].join(&b'/') }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(cut) => (&path[..cut], &path[cut + 1..]),
        None => (b"", path),
    }
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
