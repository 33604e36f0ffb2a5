//! Whole trees: removed, copied, linked. Nothing is followed, nothing leads out, and depth is not bounded by
//! PATH_MAX.

mod attributes;
mod copy;
mod link;
mod remove;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

pub use self::attributes::{Attributes, like, own};
pub use self::copy::copy;
pub use self::link::{link, replay};
pub use self::remove::remove;
use super::dir;

/// Opens a directory below `root` by a path of any length.
pub fn open_far(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
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

pub fn join(path: &[u8], name: &CStr) -> Vec<u8> {
    if path.is_empty() { name.to_bytes().to_vec() } else { [path, name.to_bytes()].join(&b'/') }
}

pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(cut) => (&path[..cut], &path[cut + 1..]),
        None => (b"", path),
    }
}
