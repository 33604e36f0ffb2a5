//! Directories by descriptor: opening below a root that nothing can lead out of, listing, xattrs.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};

/// Opens `path` with `root` as `/`: symbolic links, absolute ones too, and `..` stay inside (openat2(2),
/// RESOLVE_IN_ROOT). An empty path is the root itself.
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The same, but a symbolic link anywhere in the path is an error (ELOOP).
pub fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    resolve(
        root,
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn resolve(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    loop {
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, how) {
            Ok(fd) => return Ok(fd),
            // EAGAIN: a rename raced with a `..`; the manual says to try again.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens an entry of `dir` itself, never through a symbolic link.
pub fn open_entry(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

pub fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    open_entry(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Names in bytewise order, without `.` and `..`.
pub fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    // An own descriptor: the position in a directory belongs to the open file.
    let own =
        rustix::fs::openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = rustix::fs::RawDir::new(own, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Of a directory by its path: the names that are text, in order.
pub fn text_names(dir: &std::path::Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

pub fn lstat(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// A path of an entry that reaches it without following it, for calls that take no descriptor.
pub fn proc_path(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("a CStr has no NUL inside")
}

/// Extended attributes of an entry, not following it, sorted by name; none where the filesystem has none.
pub fn xattrs(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(dir, name);
    collect_xattrs(
        |list| rustix::fs::llistxattr(&path, list),
        |key, value| rustix::fs::lgetxattr(&path, key, value),
    )
}

/// The same of what is open, an O_PATH descriptor too.
pub fn xattrs_of(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    collect_xattrs(
        |list| rustix::fs::listxattr(&path, list),
        |key, value| rustix::fs::getxattr(&path, key, value),
    )
}

fn collect_xattrs(
    list_names: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    use rustix::io::Errno;
    let mut list = vec![0u8; 512];
    loop {
        match list_names(&mut list[..]) {
            Ok(size) => {
                list.truncate(size);
                break;
            }
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            // No list is longer (xattr(7), XATTR_LIST_MAX).
            Err(Errno::RANGE) => list.resize(64 * 1024 + 1, 0),
            Err(error) => return Err(error.into()),
        }
    }
    let mut found = Vec::new();
    for key in list.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        let mut value = vec![0u8; 256];
        loop {
            match get(key, &mut value[..]) {
                Ok(size) => {
                    value.truncate(size);
                    found.push((key.to_vec(), value));
                    break;
                }
                Err(Errno::RANGE) => value.resize(64 * 1024 + 1, 0),
                Err(Errno::NODATA) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub fn set_xattr(dir: BorrowedFd<'_>, name: &CStr, key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(proc_path(dir, name), key, value, rustix::fs::XattrFlags::empty())?)
}

/// A directory by its path on the host.
pub fn open_path(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
