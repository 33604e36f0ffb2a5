//! The embedded runtime: `outcrop __init` itself.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::running::launch;
use super::wire::How;
use super::{Entry, Place, Running, Runtime, Spec, Stdio};
use crate::error::{Context, Result};
use crate::sys::mount::{self, Attributes, Reach};

pub(super) const ENTRY: Entry = Entry { name: "outcrop", open };

fn open(place: &Place) -> Result<Box<dyn Runtime>> {
    Ok(Box::new(Embedded { exe: Binary::new(&place.exe) }))
}

struct Embedded {
    exe: Binary,
}

impl Runtime for Embedded {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn start(&self, spec: &Spec, stdio: Stdio) -> Result<Running> {
        launch(&self.exe.path()?, How::Embedded, spec, stdio)
    }
}

/// Our own binary, in a form that no container can write to: what runs in one can reach the file it came from by
/// /proc/self/exe (CVE-2019-5736).
pub(super) struct Binary {
    path: PathBuf,
    guarded: OnceLock<OwnedFd>,
}

impl Binary {
    pub(super) fn new(path: &Path) -> Self {
        Binary { path: path.to_owned(), guarded: OnceLock::new() }
    }

    pub(super) fn path(&self) -> Result<PathBuf> {
        let fd = match self.guarded.get() {
            Some(fd) => fd,
            None => {
                let fd = guard(&self.path)
                    .context(|| format!("making {} safe to run containers with", self.path.display()))?;
                self.guarded.get_or_init(|| fd)
            }
        };
        Ok(PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())))
    }
}

/// A read-only mount of the file that is nowhere attached; where the kernel has none, a sealed copy in memory.
fn guard(path: &Path) -> Result<OwnedFd> {
    match mount::bind(path, Reach::One, Attributes::READ_ONLY) {
        Ok(mount) => Ok(mount),
        Err(_) => sealed_copy(path).context(|| "copying it"),
    }
}

fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = std::fs::File::from(rustix::fs::memfd_create(c"outcrop", flags)?);
    io::copy(&mut std::fs::File::open(path)?, &mut copy)?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    // Not the descriptor that could write: a file that is open for writing cannot be executed.
    let by_path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok(rustix::fs::open(by_path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
}
