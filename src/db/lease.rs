//! Leases: locks of living processes, on files in `<root>/locks`. What a lease holds is given back when its process
//! dies, however it dies. Never a pid: those come back, and mean nothing in another container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Context as _, Error, Result};

/// The name of a lease as rows say it; its file is `locks/lease-<name>`.
pub type LeaseName = String;

/// A file to be locked, made where there is none.
pub(super) fn open_lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .context(|| format!("opening the lock file {}", path.display()))
}

/// An exclusive `flock`. Dropped, it is free at once, its file gone, unless it was lent to another process.
#[derive(Debug)]
pub struct Lease {
    name: LeaseName,
    path: PathBuf,
    file: File,
    lent: bool,
}

impl Lease {
    /// A new one that nobody else has heard of.
    pub(super) fn fresh(locks: &Path, boot: &str) -> Result<Lease> {
        loop {
            if let Some(lease) = Self::take(locks, &random_hex::<8>(), boot)? {
                return Ok(lease);
            }
        }
    }

    /// `None`: a living process holds it.
    pub(super) fn take(locks: &Path, name: &str, boot: &str) -> Result<Option<Lease>> {
        let path = file_of(locks, name)?;
        loop {
            let file = open_lock_file(&path)?;
            if !try_lock_for_a_moment(&file)? {
                return Ok(None);
            }
            // The holder before us takes the file away before it unlocks: ours may be no longer the one there.
            if !stands_at(&file, &path)? {
                continue;
            }
            let mut lease = Lease { name: name.to_owned(), path, file, lent: false };
            lease.file.set_len(0).context(|| "writing a lock file")?;
            lease.file.write_all(boot.as_bytes()).context(|| "writing a lock file")?;
            return Ok(Some(lease));
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor, close-on-exec, to be handed to a child that goes on holding the lease: from now on the lock
    /// lives until the last copy of the descriptor is closed, and dropping this value closes only our own.
    pub fn lend(&mut self) -> BorrowedFd<'_> {
        self.lent = true;
        self.file.as_fd()
    }

    /// A copy of the descriptor, close-on-exec, for a helper that may outlive a killed holder by a moment: until it ends,
    /// the lease is not free. Dropping this value still frees it at once.
    pub fn shadow(&self) -> Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from).context(|| "copying the descriptor of a lock")
    }

    /// The lease that came as a descriptor from the process that took it.
    pub fn adopt(root: &Path, name: &str, fd: OwnedFd) -> Result<Lease> {
        let path = file_of(&root.join("locks"), name)?;
        let file = File::from(fd);
        if !stands_at(&file, &path)? {
            return Err(Error::internal(format!("the descriptor handed over is not the lease `{name}`")));
        }
        Ok(Lease { name: name.to_owned(), path, file, lent: false })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.lent {
            return;
        }
        drop(fs::remove_file(&self.path));
        // Unlocked by name: a child between fork and exec still has a copy of the descriptor.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether no living process holds it.
pub(super) fn is_free(locks: &Path, name: &str) -> Result<bool> {
    let path = file_of(locks, name)?;
    match File::open(&path) {
        Ok(file) => lock(&file, FlockOperation::NonBlockingLockShared),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(cause).context(|| format!("opening the lock file {}", path.display())),
    }
}

fn file_of(locks: &Path, name: &str) -> Result<PathBuf> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if name.is_empty() || name.len() > 200 || !name.bytes().all(good) {
        return Err(Error::internal(format!("`{name}` cannot be the name of a lease")));
    }
    Ok(locks.join(format!("lease-{name}")))
}

/// Whoever asks whether a lease is free holds its lock for an instant: that is not being held.
fn try_lock_for_a_moment(file: &File) -> Result<bool> {
    for _ in 0..5 {
        if try_lock(file)? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// Exclusive, without waiting.
pub(super) fn try_lock(file: &File) -> Result<bool> {
    lock(file, FlockOperation::NonBlockingLockExclusive)
}

pub(super) fn lock(file: &File, how: FlockOperation) -> Result<bool> {
    loop {
        match rustix::fs::flock(file, how) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(cause) => return Err(cause).context(|| "locking a file of the store"),
        }
    }
}

/// Whether the file at `path` is this one.
pub(super) fn stands_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().context(|| "looking at a lock file")?;
    match fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause).context(|| format!("looking at {}", path.display())),
    }
}

/// `N` random bytes as hex digits.
pub(super) fn random_hex<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        // Blocks only before the kernel's pool is ready, early at boot.
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .unwrap_or_default();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that nobody else has, for what is in the making.
pub fn random_name() -> String {
    random_hex::<8>()
}

/// This boot of this machine (proc_sys_kernel(5), "random/boot_id"); the same in every container.
pub(super) fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context(|| "reading the boot id")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_exclusive_and_free_when_dropped() {
        let dir = super::super::testing::Dir::new();
        let lease = Lease::take(dir.path(), "x", "boot").unwrap().unwrap();
        assert!(Lease::take(dir.path(), "x", "boot").unwrap().is_none());
        assert!(!is_free(dir.path(), "x").unwrap());
        drop(lease);
        assert!(is_free(dir.path(), "x").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Lease::take(dir.path(), "x", "boot").unwrap().is_some());
    }

    #[test]
    fn a_lease_that_was_lent_lives_on_in_the_copy() {
        let dir = super::super::testing::Dir::new();
        fs::create_dir(dir.path().join("locks")).unwrap();
        let locks = dir.path().join("locks");
        let mut lease = Lease::take(&locks, "x", "boot").unwrap().unwrap();
        let copy = lease.lend().try_clone_to_owned().unwrap();
        drop(lease);
        assert!(!is_free(&locks, "x").unwrap());
        drop(Lease::adopt(dir.path(), "x", copy).unwrap());
        assert!(is_free(&locks, "x").unwrap());
        assert_eq!(fs::read_dir(&locks).unwrap().count(), 0);
    }

    #[test]
    fn names_of_leases_are_file_names() {
        for bad in ["", "../x", "a/b", "a b"] {
            assert!(file_of(Path::new("locks"), bad).is_err(), "{bad}");
        }
    }
}
