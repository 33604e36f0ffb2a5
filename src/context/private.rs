//! A directory that nobody else works in, for what is on its way into a build. It is rubbish from the beginning: once
//! its process has ended, however it ended, any sweep takes it away.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{Mode, OFlags};

use crate::db::Scratch;
use crate::error::{Context as _, Result};

/// Removed when dropped. [`Self::tree`] is what it is for; what else is needed on the way lies beside it.
pub struct Private {
    scratch: Scratch,
    tree: OwnedFd,
}

impl Private {
    pub fn new(root: &Path) -> Result<Self> {
        let say = || "making a directory to work in";
        let scratch = Scratch::new(root, "private")?;
        let tree = scratch.path.join("tree");
        std::fs::create_dir(&tree).context(say)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = rustix::fs::open(&tree, flags, Mode::empty()).context(say)?;
        rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755)).context(say)?;
        Ok(Private { scratch, tree })
    }

    pub fn path(&self) -> &Path {
        &self.scratch.path
    }

    pub fn tree_path(&self) -> PathBuf {
        self.scratch.path.join("tree")
    }

    pub fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// A standard input that holds nothing to read, and the lock: a child that outlives us works in what is still there.
    pub fn hold(&self) -> Result<Stdio> {
        self.scratch.lock.try_clone().map(Stdio::from).context(|| "copying the descriptor of a lock")
    }
}

impl AsFd for Private {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tree()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.scratch.path) {
            tracing::warn!(%error, "left for the next sweep");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::FlockOperation;

    use super::*;

    #[test]
    fn it_is_gone_when_dropped_and_open_to_all_whatever_the_umask() {
        let root = std::env::temp_dir().join(format!("outcrop-private-{}", std::process::id()));
        std::fs::create_dir_all(root.join("trash")).unwrap();
        let private = Private::new(&root).unwrap();
        let mode = std::fs::metadata(private.tree_path()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
        let path = private.path().to_owned();
        let held = File::open(&path).unwrap();
        assert!(rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(private);
        assert!(!path.exists());
        std::fs::remove_dir_all(root).unwrap();
    }
}
