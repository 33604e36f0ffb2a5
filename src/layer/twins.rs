//! Files that get their bytes by sharing the blocks of others, and are proved to have the right ones.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{self, OFlags};
use rustix::io::Errno;

use super::Kind;
use super::tree;
use crate::error::{Context as _, Error, Result};
use crate::sys::dir;

/// A tree whose files' blocks may be shared.
pub(super) struct Twins<'a> {
    tree: BorrowedFd<'a>,
    /// The filesystem has not refused yet.
    works: bool,
}

/// How far the bytes of a file were proved.
#[derive(Default)]
pub(super) struct Shared {
    proved: u64,
}

impl<'a> Twins<'a> {
    pub(super) fn new(tree: BorrowedFd<'a>) -> Self {
        Twins { tree, works: true }
    }

    /// Gives `file` the bytes of the one at the same path, if that has as many. `None`: it is empty still.
    pub(super) fn share(
        &mut self,
        path: &[u8],
        size: u64,
        file: &OwnedFd,
    ) -> rustix::io::Result<Option<Shared>> {
        if !self.works {
            return Ok(None);
        }
        // It never waits for a fifo's other end.
        let Ok(twin) = dir::open_in_root(self.tree, path, OFlags::RDONLY | OFlags::NONBLOCK) else {
            return Ok(None);
        };
        let stat = fs::fstat(&twin)?;
        if tree::kind(&stat) != Some(Kind::File) || tree::size(&stat) != size {
            return Ok(None);
        }
        match fs::ioctl_ficlone(file, &twin) {
            Ok(()) if tree::size(&fs::fstat(file)?) == size => Ok(Some(Shared::default())),
            // It became another meanwhile.
            Ok(()) => fs::ftruncate(file, 0).map(|()| None),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
                self.works = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    /// These bytes are there, and zeros since the last.
    pub(super) fn compare(&mut self, file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<()> {
        self.zeros(file, offset)?;
        let mut there = vec![0; bytes.len().min(256 << 10)];
        for part in bytes.chunks(there.len().max(1)) {
            read(file, self.proved, &mut there[..part.len()])?;
            if there[..part.len()] != *part {
                return Err(changed());
            }
            self.proved += part.len() as u64;
        }
        Ok(())
    }

    pub(super) fn end(&mut self, file: &OwnedFd, size: u64) -> Result<()> {
        self.zeros(file, size)
    }

    /// What an archive leaves out of a sparse file.
    fn zeros(&mut self, file: &OwnedFd, to: u64) -> Result<()> {
        let mut there = [0; 4 << 10];
        while self.proved < to {
            let count = usize::try_from(to - self.proved).unwrap_or(usize::MAX).min(there.len());
            read(file, self.proved, &mut there[..count])?;
            if there[..count].iter().any(|byte| *byte != 0) {
                return Err(changed());
            }
            self.proved += count as u64;
        }
        Ok(())
    }
}

fn read(file: &OwnedFd, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
    while !into.is_empty() {
        match rustix::io::pread(file, &mut *into, offset) {
            Ok(0) => return Err(changed()),
            Ok(count) => {
                into = &mut into[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "reading a file back"),
        }
    }
    Ok(())
}

fn changed() -> Error {
    Error::conflict("a file changed while it was read").hint("try again")
}
