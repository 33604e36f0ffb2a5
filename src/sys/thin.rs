//! Thin volumes: block devices that a pool of device mapper makes of its blocks, and the filesystems on them (kernel
//! Documentation/admin-guide/device-mapper/thin-provisioning.rst).
//!
//! A volume becomes a device when it is mounted, by the process that mounts it, and the device goes with its
//! last mount, whoever ends it and however: it is marked for removal as soon as it is open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::block::{Access, Block};
use super::dm::{Control, Table, is};
use crate::error::{Context, Error, Result};

/// All it takes to make a device of it, in whatever process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The pool, a device that lives as long as this is used.
    pub pool: String,
    /// The device that it becomes.
    pub name: String,
    /// In the pool; 24 bits.
    pub id: u32,
    /// Its size, in sectors of 512 bytes.
    pub sectors: u64,
    /// Nobody can write to the device.
    pub read_only: bool,
    /// A file: who holds it makes and removes devices of this pool.
    pub lock: PathBuf,
}

/// A filesystem on a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// `ext4`, `xfs`
    pub kind: String,
    /// As in mount(8), without what belongs to a mount point (`ro`, `noatime`).
    pub options: Vec<String>,
    /// How often xfs tries again to write its metadata where there is no space (`error/metadata/ENOSPC/max_retries`
    /// in /sys/fs/xfs).
    pub retries: Option<u32>,
}

/// Devices of a pool come and go through the hands of whoever has this.
pub struct Locked(#[expect(dead_code, reason = "it is held")] OwnedFd);

impl Locked {
    /// Waits for the others.
    pub fn take(file: &Path) -> Result<Locked> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let doing = || format!("locking {}", file.display());
        let fd = rustix::fs::open(file, flags, Mode::RUSR | Mode::WUSR).context(doing)?;
        while let Err(errno) = rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
            if errno != Errno::INTR {
                return Err(errno).context(doing);
            }
        }
        Ok(Locked(fd))
    }
}

/// How long a device that nobody uses any more may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

impl Volume {
    /// Its device, which is there as long as this or anything else has it open.
    pub fn activate(&self, control: &Control, _locked: &Locked) -> Result<Block> {
        let doing = || format!("making a device of {}", self.name);
        patiently(|| match control.state(&self.name)? {
            None => {
                let pool = control.state(&self.pool)?.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("the pool {} is not there", self.pool))
                })?;
                let (major, minor) = (rustix::fs::major(pool.device), rustix::fs::minor(pool.device));
                let table = Table {
                    sectors: self.sectors,
                    target: "thin",
                    parameters: &format!("{major}:{minor} {}", self.id),
                    read_only: self.read_only,
                };
                let device = control.create(&self.name, &table)?;
                let opened = Block::open(device, self.access());
                control.remove_when_closed(&self.name)?;
                opened.map(Some)
            }
            // Of somebody who was killed, or on its way out.
            Some(state) if !state.live => control.remove(&self.name).map(|()| None),
            Some(state) => {
                let opened = Block::open(state.device, self.access())?;
                control.remove_when_closed(&self.name)?;
                Ok(Some(opened))
            }
        })
        .context(doing)
    }

    fn access(&self) -> Access {
        if self.read_only { Access::Read } else { Access::Write }
    }

    /// Its filesystem, mounted where nobody sees it; the device goes with the last mount.
    pub fn mount(&self, filesystem: &Filesystem) -> Result<OwnedFd> {
        let doing = || format!("mounting {}", self.name);
        let control = Control::open().context(doing)?;
        let locked = Locked::take(&self.lock)?;
        let device = self.activate(&control, &locked)?;
        drop(locked);
        self.mount_device(&device, filesystem)
    }

    /// The same of a device that is there.
    pub fn mount_device(&self, device: &Block, filesystem: &Filesystem) -> Result<OwnedFd> {
        let Filesystem { kind, options, retries } = filesystem;
        let mut words: Vec<(&str, Option<&str>)> = vec![("source", Some(device.path()))];
        words.extend(options.iter().map(|option| match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option.as_str(), None),
        }));
        if self.read_only {
            words.push(("ro", None));
        }
        // While its last mount is on its way out, a device is claimed.
        let root = patiently(|| match super::mount::on_device(kind, &words) {
            Err(error) if is(&error, Errno::BUSY) => Ok(None),
            answer => answer.map(Some),
        })
        .context(|| format!("mounting the {kind} on {}", self.name))?;
        if let (Some(retries), "xfs") = (retries, kind.as_str()) {
            limit_retries(device, *retries)
                .context(|| format!("limiting what xfs tries again on {}", self.name))?;
        }
        Ok(root)
    }
}

fn limit_retries(device: &Block, retries: u32) -> io::Result<()> {
    let number = rustix::fs::fstat(device.as_fd())?.st_rdev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let known = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = known.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = format!("/sys/fs/xfs/{name}/error/metadata/ENOSPC/max_retries");
    std::fs::write(file, retries.to_string())
}

/// Again and again, until there is something, or something is wrong. What is on its way out (ENXIO, EBUSY) is not.
pub fn patiently<T>(mut work: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        let leaves = match work() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => Errno::BUSY.into(),
            Err(error) if is(&error, Errno::NXIO) || is(&error, Errno::BUSY) => error,
            Err(error) => return Err(error),
        };
        if start.elapsed() > PATIENCE {
            return Err(leaves);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the device has gone. `Conflict` where somebody goes on using it.
pub fn gone(control: &Control, name: &str) -> Result<()> {
    let done = patiently(|| Ok(control.state(name)?.is_none().then_some(())));
    done.map_err(|cause| {
        let error = Error::conflict(format!("waiting for the device {name} to go"));
        error
            .hint("something still has it mounted: `findmnt` in its mount namespace shows where")
            .because(cause)
    })
}
