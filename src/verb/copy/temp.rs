//! Room for what is on its way: files without a name, and directories for helper programs. What a killed process left
//! is removed by the next one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::error::{Context as _, Result};

/// Of the directories.
const PREFIX: &str = "outcrop-copy.";

pub(super) struct Temp<'t> {
    pub(super) dir: &'t Path,
}

/// Held while it lives, then removed.
pub(super) struct TempDir {
    path: PathBuf,
    _held: File,
}

impl Temp<'_> {
    /// Gone when it is closed.
    pub(super) fn file(&self) -> Result<File> {
        let doing = || format!("making a file in {}", self.dir.display());
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(self.dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(file.into()),
            // Filesystems without O_TMPFILE say one of these (open(2)).
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let path = self.fresh();
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
                let file = file.context(doing)?;
                fs::remove_file(&path).context(doing)?;
                Ok(file)
            }
            Err(cause) => Err(cause).context(doing),
        }
    }

    /// Ours alone.
    pub(super) fn directory(&self) -> Result<TempDir> {
        self.sweep();
        loop {
            let path = self.fresh();
            let doing = || format!("making the directory {}", path.display());
            DirBuilder::new().mode(0o700).create(&path).context(doing)?;
            let held = File::open(&path).context(doing)?;
            flock(&held, FlockOperation::LockExclusive).context(doing)?;
            let ours = held.metadata().context(doing)?;
            // Another process may have taken it for left over.
            if fs::symlink_metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
                return Ok(TempDir { path, _held: held });
            }
        }
    }

    fn fresh(&self) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
        self.dir.join(format!("{PREFIX}{}.{number}.{now:x}", std::process::id()))
    }

    /// Directories that nobody holds. What cannot be removed is somebody else's.
    fn sweep(&self) {
        for entry in fs::read_dir(self.dir).into_iter().flatten().flatten() {
            let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
                && entry
                    .metadata()
                    .is_ok_and(|there| there.is_dir() && there.uid() == rustix::process::geteuid().as_raw());
            if is_ours
                && let Ok(held) = File::open(entry.path())
                && flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }
}

impl TempDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}
