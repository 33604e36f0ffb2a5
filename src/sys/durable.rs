//! Files that are on disk when a call returns.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The file, by its name; until then it is `fresh`, beside it.
pub fn write_durably(path: &Path, fresh: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// All files and directories of a tree, and it itself. For few: each is asked for by itself.
pub fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// All files of a tree are read from the disk from now on. After a write that failed memory goes on showing what the disk
/// never got (fsync(2), EIO; posix_fadvise(2), `POSIX_FADV_DONTNEED`).
pub fn forget(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget(&entry.path())?;
        } else if kind.is_file() {
            rustix::fs::fadvise(File::open(entry.path())?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
