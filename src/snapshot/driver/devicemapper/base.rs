//! The volume that all others begin as: an empty filesystem.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::pool::{self, Pool, is_absent};
use super::records::{Record, Records};
use super::settings::{BASE_SIZE, Fixed, Settings};
use super::{open_dir_at, volume_of};
use crate::error::{Context, Error, Result};
use crate::sys::block::{Block, grow, trim};
use crate::sys::dm::is;
use crate::sys::thin::{self, Locked, Volume};

/// Its number in the pool; no snapshot's.
pub(super) const ID: u32 = 0;
const DOCUMENT: &str = "base";

pub(super) struct Base<'b> {
    pub(super) records: &'b Records,
    pub(super) settings: &'b Settings,
    pub(super) fixed: &'b Fixed,
    pub(super) pool: &'b Pool,
    pub(super) locked: &'b Locked,
    /// As a volume of one sector.
    pub(super) volume: Volume,
}

/// `None`: it was never finished.
pub(super) fn record(records: &Records) -> Result<Option<Record>> {
    Ok(records.document::<Record>(DOCUMENT)?.filter(|base| base.sealed))
}

impl Base<'_> {
    /// Makes it where it is missing, and as large as is asked for.
    pub(super) fn ensure(self) -> Result<()> {
        match record(self.records)? {
            None => self.make().context(|| "making the empty filesystem that all layers begin with"),
            Some(base) => match self.settings.base_size {
                Some(size) if size > base.size => self.enlarge(base, size),
                Some(size) if size < base.size => Err(Error::conflict(format!(
                    "dm.basesize={size} is less than the {} bytes that the store was made with",
                    base.size
                ))
                .hint("it can only grow; leave the option out, or name another `--root`")),
                _ => Ok(()),
            },
        }
    }

    fn make(mut self) -> Result<()> {
        let begun: Option<Record> = self.records.document(DOCUMENT)?;
        let transaction = self.pool.status()?.transaction;
        let size = self.settings.base_size.or(begun.as_ref().map(|begun| begun.size)).unwrap_or(BASE_SIZE);
        let base = Record { device_id: ID, size, transaction_id: transaction + 1, sealed: false };
        let doing = || "making a volume";
        self.records.write_document(DOCUMENT, &base)?;
        if begun.is_some() {
            // Of somebody who was killed.
            thin::gone(&self.pool.control, &self.volume.name)?;
            match self.pool.message(&format!("delete {ID}")) {
                Err(error) if !is_absent(&error) => return Err(error).context(doing),
                _ => {}
            }
        }
        match self.pool.message(&format!("create_thin {ID}")) {
            Err(error) if is(&error, Errno::EXIST) => {
                self.records.forget_document(DOCUMENT)?;
                return Err(pool::not_empty(&self.pool.name));
            }
            made => made.context(doing)?,
        }
        self.volume.sectors = size / 512;
        let device = self.volume.activate(&self.pool.control, self.locked)?;
        make_filesystem(&device, &self.fixed.filesystem, &self.settings.mkfs_arguments)?;
        let filesystem = self.settings.filesystem(&self.fixed.filesystem);
        let root = self.volume.mount_device(&device, &filesystem)?;
        empty(&root).context(|| "emptying the new filesystem")?;
        self.settle(root)?;
        drop(device);
        thin::gone(&self.pool.control, &self.volume.name)?;
        self.pool
            .message(&format!("set_transaction_id {transaction} {}", transaction + 1))
            .context(|| "finishing a transaction of the pool")?;
        self.records.write_document(DOCUMENT, &Record { sealed: true, ..base })
    }

    fn enlarge(mut self, base: Record, size: u64) -> Result<()> {
        let doing = || format!("enlarging the empty filesystem to {size} bytes (dm.basesize)");
        // Whoever fails or is killed leaves one that is made anew: no other volume needs it.
        self.records.write_document(DOCUMENT, &Record { size, sealed: false, ..base.clone() })?;
        self.volume.sectors = size / 512;
        let device = self.volume.activate(&self.pool.control, self.locked)?;
        let filesystem = self.settings.filesystem(&self.fixed.filesystem);
        let root = self.volume.mount_device(&device, &filesystem)?;
        let dir = open_dir_at(&root)?;
        grow(dir.as_fd(), &self.fixed.filesystem, size).context(doing)?;
        drop(root);
        self.settle(dir)?;
        drop(device);
        thin::gone(&self.pool.control, &self.volume.name)?;
        self.records.write_document(DOCUMENT, &Record { size, ..base })
    }

    /// What is written to it is in the pool.
    fn settle(&self, root: OwnedFd) -> Result<()> {
        settle(root, self.fixed.block_size).context(|| "writing the new filesystem to disk")
    }
}

/// On the device, and what is not used given back; then not mounted any more, if this was the last mount.
pub(super) fn settle(root: OwnedFd, block_size: u64) -> std::io::Result<()> {
    let dir = rustix::fs::openat(
        &root,
        c".",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::syncfs(&dir)?;
    match trim(dir.as_fd(), block_size) {
        // A device that cannot.
        Err(error) if is(&error, Errno::OPNOTSUPP) => Ok(()),
        trimmed => trimmed,
    }
}

/// As a directory that was just made: without what mkfs puts there.
fn empty(root: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(root, c"lost+found", AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => {}
        removed => removed?,
    }
    rustix::fs::chmodat(root, c".", Mode::from_raw_mode(0o755), AtFlags::empty())
}

/// Where mkfs.`kind` is.
pub(super) fn mkfs(kind: &str) -> Result<PathBuf> {
    let name = format!("mkfs.{kind}");
    let places = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];
    places.map(|dir| PathBuf::from(dir).join(&name)).into_iter().find(|path| path.is_file()).ok_or_else(
        || {
            let package = if kind == "xfs" { "xfsprogs" } else { "e2fsprogs" };
            Error::unsupported(format!("{name} is missing")).hint(format!("install {package}"))
        },
    )
}

fn make_filesystem(device: &Block, kind: &str, more: &[String]) -> Result<()> {
    // A volume reads as zeros where nothing was written; nothing is to be written for that, now or later.
    let attempts: &[&[&str]] = match kind {
        "xfs" => &[&["-q", "-f", "-K"]],
        _ => &[
            &["-q", "-F", "-b", "4096", "-E", "nodiscard,assume_storage_prezeroed=1"],
            // e2fsprogs before 1.47
            &["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
        ],
    };
    let program = mkfs(kind)?;
    let mut said = String::new();
    for arguments in attempts {
        let mut command = Command::new(&program);
        command.args(*arguments).args(more).arg(device.path()).stdin(Stdio::null());
        let output = command.output().context(|| format!("running {}", program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    Err(Error::internal(format!("{} failed: {said}", program.display()))
        .hint("dm.mkfsarg and dm.basesize (300M at least for xfs) are what it is given"))
}

/// The volume with the base's number.
pub(super) fn volume(prefix: &str, pool: &str, lock: &std::path::Path) -> Volume {
    volume_of(prefix, pool, lock, "base", ID, 512)
}
