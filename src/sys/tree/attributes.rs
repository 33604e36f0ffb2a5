//! Owner, mode and xattrs: of a directory, but for what overlayfs writes there and the label that its place has given it; of a new file.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Mode, Uid};

use crate::sys::dir;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    /// Without the type's bits.
    pub mode: u32,
    /// Sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for Attributes {
    /// Of a root that no layer describes.
    fn default() -> Self {
        Attributes { uid: 0, gid: 0, mode: 0o755, xattrs: Vec::new() }
    }
}

impl Attributes {
    pub fn of(dir: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(dir)?;
        let mut xattrs = dir::xattrs(dir, c".")?;
        xattrs.retain(|(key, _)| {
            let mark = key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.");
            !mark && key != b"security.selinux"
        });
        Ok(Attributes { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, xattrs })
    }

    /// What it has besides goes.
    pub fn give(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(to, c".", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(to, c".", Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        for (key, _) in Attributes::of(to)?.xattrs {
            if !self.xattrs.iter().any(|(wanted, _)| *wanted == key) {
                rustix::fs::lremovexattr(dir::proc_path(to, c"."), &key)?;
            }
        }
        self.xattrs.iter().try_for_each(|(key, value)| dir::set_xattr(to, c".", key, value))
    }
}

/// Owner, mode and xattrs of a directory for another one.
pub fn like(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Attributes::of(from)?.give(to)
}

/// A file that was just made gets owner and mode (its lower twelve bits), as far as it has not got them by being made: looking costs a tenth
/// of changing.
pub fn own(file: BorrowedFd<'_>, owner: (u32, u32), mode: u32) -> rustix::io::Result<()> {
    let made = rustix::fs::fstat(file)?;
    let owned = (made.st_uid, made.st_gid) == owner;
    if !owned {
        rustix::fs::fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    }
    // A change of the owner takes set-user-ID and set-group-ID away.
    if !owned || made.st_mode & 0o7777 != mode & 0o7777 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}
