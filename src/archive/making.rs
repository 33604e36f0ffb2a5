//! A file on its way to its name: written beside it, renamed when it is whole. One whose maker died goes with the next
//! [`sweep`].
//!
//! Its maker holds a lock of the file as long as it has no name: numbers of processes say nothing where a directory is
//! shared between containers or hosts. Where files cannot be locked nothing is swept.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Context as _, Result};

const MARK: &str = ".making-";

pub(super) struct Making {
    file: File,
    path: PathBuf,
    place: PathBuf,
}

impl Making {
    pub(super) fn of(place: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let doing = || format!("writing {}", place.display());
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut name = place.file_name().unwrap_or_default().to_owned();
            name.push(format!("{MARK}{}-{n}", std::process::id()));
            let path = place.with_file_name(name);
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => continue,
                file => file.context(doing)?,
            };
            let making = Making { file, path, place: place.to_owned() };
            // A sweep that saw it before it was locked has taken it away.
            let locked = rustix::fs::flock(&making.file, FlockOperation::NonBlockingLockExclusive);
            if locked != Err(Errno::WOULDBLOCK) && making.file.metadata().context(doing)?.nlink() > 0 {
                return Ok(making);
            }
        }
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// It has its name, and its bytes are on disk.
    pub(super) fn finish(self) -> Result<()> {
        let doing = || format!("writing {}", self.place.display());
        self.file.sync_data().context(doing)?;
        fs::rename(&self.path, &self.place).context(doing)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // After the renaming there is none, unless somebody else has taken the name.
        if is(&self.path, &self.file) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn is(path: &Path, file: &File) -> bool {
    let (there, ours) = (fs::symlink_metadata(path), file.metadata());
    let same =
        |there: fs::Metadata, ours: fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
    there.is_ok_and(|there| ours.is_ok_and(|ours| same(there, ours)))
}

/// Removes what nobody makes any more. What cannot be looked at stays.
pub(super) fn sweep(dir: &Path) {
    sweep_marked(dir, &|name| {
        name.as_encoded_bytes().windows(MARK.len()).any(|part| part == MARK.as_bytes())
    });
}

/// The same of what bears these names, whose makers hold a lock of it.
pub(crate) fn sweep_marked(dir: &Path, is_marked: &dyn Fn(&OsStr) -> bool) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let left = is_marked(&entry.file_name());
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Some(file) = Some(entry.path())
            .filter(|_| left && is_file)
            .and_then(|path| File::options().write(true).open(path).ok())
        else {
            continue;
        };
        let free = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if free && is(&entry.path(), &file) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use crate::db::testing::Dir;

    #[test]
    fn what_nobody_makes_any_more_goes_and_what_is_made_stays() {
        let dir = Dir::new();
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let mut making = Making::of(&dir.path().join("it")).unwrap();
        making.file().write_all(b"whole").unwrap();
        fs::write(dir.path().join("dead.making-7"), "").unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        assert_eq!(names().len(), 3);
        sweep(dir.path());
        assert_eq!(names().len(), 2);
        making.finish().unwrap();
        assert_eq!(names(), ["it", "other"]);
        assert_eq!(fs::read(dir.path().join("it")).unwrap(), b"whole");
        drop(Making::of(&dir.path().join("it")).unwrap());
        assert_eq!(names(), ["it", "other"]);
    }

    /// A sweep may come between the making of a file and its lock.
    #[test]
    fn files_that_are_made_while_others_sweep_all_get_their_names() {
        let dir = Dir::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    for n in 0..100 {
                        sweep(dir);
                        let mut making = Making::of(&dir.join(format!("{thread}-{n}"))).unwrap();
                        making.file().write_all(b"whole").unwrap();
                        making.finish().unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 400);
    }
}
