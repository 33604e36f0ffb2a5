//! Copies that an earlier layer holds already: a file that would come out equal becomes another name of the one there.
//! That takes no bytes, and a fraction of the time.
//!
//! Names are given in the draft's own tree once it is mounted no more: what lies below a mounted overlay must not
//! change (overlayfs.rst, "Changes to underlying filesystems"). Nobody writes to a layer, so that its files may have
//! names in others; the same path in each, so that no two of one stack's are one file.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::copy::{parent_of, times};
use super::{Pins, base_name};
use crate::error::{Context as _, Error, Result};
use crate::sys::dir;

/// What a copy left out because an earlier layer has it.
#[derive(Debug, Default)]
pub struct Links {
    /// Where they go, links followed; neighbours stand together.
    names: Vec<Vec<u8>>,
    /// The times of the directories that were copied: a new name in one changes them.
    directories: HashMap<Vec<u8>, (i64, i64)>,
}

impl Links {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn add(&mut self, path: Vec<u8>) {
        self.names.push(path);
    }

    pub(super) fn directory(&mut self, path: Vec<u8>, time: (i64, i64)) {
        self.directories.insert(path, time);
    }

    /// Gives the names in `to`, a draft's tree. `false`: it cannot be done here, and what is in the draft is of no use.
    pub fn give(&self, pins: &Pins, to: BorrowedFd<'_>) -> Result<bool> {
        let Some(from) = pins.tree() else { return Ok(false) };
        for together in self.names.chunk_by(|a, b| parent_of(a) == parent_of(b)) {
            let parent = parent_of(&together[0]);
            let (Some(source), Some(target)) = (open(from, parent)?, open(to, parent)?) else {
                return Ok(false);
            };
            for path in together {
                if !one(pins, path, &source, &target)? {
                    return Ok(false);
                }
            }
            if let Some(time) = self.directories.get(parent) {
                rustix::fs::futimens(&target, &times(*time)).context(|| "setting a directory's times")?;
            }
        }
        Ok(true)
    }
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>> {
    match dir::open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("opening `/{}`", String::from_utf8_lossy(path))),
    }
}

/// `false`, too, where the file is not what its row says.
fn one(pins: &Pins, path: &[u8], source: &OwnedFd, target: &OwnedFd) -> Result<bool> {
    let say = || format!("linking `/{}` to the layer that has it", String::from_utf8_lossy(path));
    let name = CString::new(base_name(path)).map_err(|_nul| Error::internal("a name with a NUL byte"))?;
    match rustix::fs::linkat(source, &name, target, &name, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::MLINK | Errno::XDEV | Errno::EXIST | Errno::PERM | Errno::OPNOTSUPP) => {
            return Ok(false);
        }
        Err(error) => return Err(error).context(say),
    }
    let there = dir::lstat(target.as_fd(), &name).context(say)?;
    Ok(pins.is_held(path, &there))
}
