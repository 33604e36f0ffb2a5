//! Directories to work in that are rubbish from the beginning.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::lease::random_name;
use crate::error::{Context as _, Result};

/// A directory in `trash/`, for its owner alone (0700). It is locked as long as this lives, and who empties the trash spares what is
/// locked: once its process has ended, however it ended, any sweep takes it away.
pub struct Scratch {
    pub path: PathBuf,
    pub lock: File,
}

impl Scratch {
    /// `kind`: what its name begins with. `trash/` is there.
    pub fn new(root: &Path, kind: &str) -> Result<Scratch> {
        loop {
            let path = root.join("trash").join(format!("{kind}-{}", random_name()));
            let doing = || format!("making the directory {}", path.display());
            DirBuilder::new().mode(0o700).create(&path).context(doing)?;
            // A sweep may take it for rubbish before it is locked.
            let lock = match File::open(&path) {
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                opened => opened.context(doing)?,
            };
            let ours = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if ours && lock.metadata().context(doing)?.nlink() > 0 {
                return Ok(Scratch { path, lock });
            }
        }
    }
}
