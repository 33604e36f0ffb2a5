//! Owner, mode and xattrs of a directory, but for what overlayfs writes there and the label that its place has given it.

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
