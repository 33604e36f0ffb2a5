//! Mount points that the image lacks: made in the writable layer before the container starts, taken away after it.
//!
//! The outer half does both through the one mount of the root that the container has, too: an overlay's upper must not
//! be mounted twice at once, and a mount of its own before and after would cost more than all the rest. `Made` can be kept
//! in a file, for those whose outer half was killed before it could take them away.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timestamps};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::sys::dir::{lstat, open_beneath, open_in_root, read_link};
use crate::sys::mount::{self, Mount};

/// What a mount needs below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// In the container; links in it are followed, inside the root.
    pub path: String,
    pub directory: bool,
}

/// What was made, in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made(Vec<Point>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    /// Bytes, relative, without links; written as numbers in a file, as a path may be no text.
    parent: Vec<u8>,
    name: Vec<u8>,
    directory: bool,
}

/// As in path_resolution(7).
const MOST_LINKS: usize = 40;

/// Makes what is missing, parents too; those that are there stay as they are. `root` is a mount of the writable layer.
pub fn prepare(root: BorrowedFd<'_>, wanted: &[Wanted]) -> Result<Made> {
    let mut made = Made::default();
    for Wanted { path, directory } in wanted {
        let doing = || format!("making the mount point {path} in the container");
        if is_there(root, path, *directory) {
            continue;
        }
        if let Err(error) = walk(root, path, *directory, &mut made) {
            made.undo(root)?;
            return Err(error).context(doing);
        }
    }
    Ok(made)
}

/// Takes away what a journal (`Spec::journal`) says is still there, through a mount of its own, and then the journal. No
/// journal, nothing to do. Nothing else may have the writable layer mounted.
pub fn recover(root: &Mount, journal: &Path) -> Result<()> {
    let doing = || format!("recovering from {}", journal.display());
    let text = match std::fs::read(journal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.context(doing)?,
    };
    // One that was cut short was written before the container started, so nothing was mounted yet; what was made is at most
    // an empty file or directory too many.
    if let Ok(made) = serde_json::from_slice::<Made>(&text) {
        made.undo(mount::detached(root).context(doing)?.as_fd()).context(doing)?;
    }
    std::fs::remove_file(journal).context(doing)
}

fn is_there(root: BorrowedFd<'_>, path: &str, directory: bool) -> bool {
    let Ok(found) = open_in_root(root, path.as_bytes(), OFlags::PATH) else { return false };
    let stat = rustix::fs::fstat(found);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir() == directory)
}

/// Down from the root, component by component; `made` gets what was not there.
fn walk(root: BorrowedFd<'_>, path: &str, directory: bool, made: &mut Made) -> Result<()> {
    let doing = || "looking for it";
    // What lies ahead, the next one last.
    let mut ahead: Vec<Vec<u8>> = components(path.as_bytes());
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == b".." {
            here.pop();
            continue;
        }
        let last = ahead.is_empty();
        let parent = open_beneath(root, &join(&here), OFlags::PATH | OFlags::DIRECTORY).context(doing)?;
        let entry = CString::new(name.clone())
            .map_err(|cause| Error::invalid("a NUL byte in a path").because(cause))?;
        let kind = match lstat(parent.as_fd(), &entry) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = directory || !last;
                make(parent.as_fd(), &entry, directory).context(|| "making it")?;
                made.0.push(Point { parent: join(&here), name: name.clone(), directory });
                if directory { FileType::Directory } else { FileType::RegularFile }
            }
            Err(error) => return Err(error).context(doing),
        };
        match kind {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::invalid("too many symbolic links"));
                }
                let target = read_link(parent.as_fd(), &entry).context(doing)?;
                if target.starts_with(b"/") {
                    here.clear();
                }
                ahead.extend(components(&target));
            }
            FileType::Directory if last && !directory => {
                return Err(mismatch("a directory stands where a file is to be mounted"));
            }
            FileType::Directory => here.push(name),
            _ if last && !directory => {}
            _ => return Err(mismatch("a file stands where a directory is needed")),
        }
    }
    Ok(())
}

fn mismatch(what: &str) -> Error {
    Error::invalid(what).hint("a directory can be mounted on a directory only, a file on a file")
}

/// In reverse.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.join(&b'/')
}

fn make(parent: BorrowedFd<'_>, name: &CStr, directory: bool) -> io::Result<()> {
    keeping_times(parent, || {
        let mode = Mode::from_raw_mode(if directory { 0o755 } else { 0o644 });
        if directory {
            rustix::fs::mkdirat(parent, name, mode)?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let _file: OwnedFd = rustix::fs::openat(parent, name, flags, mode)?;
        }
        // Whatever the umask.
        Ok(rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?)
    })
}

/// The directory's times after it are those of before.
fn keeping_times(dir: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = lstat(dir, c".")?;
    act()?;
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    Ok(rustix::fs::utimensat(dir, c".", &times, AtFlags::empty())?)
}

fn time(seconds: i64, nanoseconds: impl TryInto<i64>) -> rustix::fs::Timespec {
    rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds.try_into().unwrap_or(0) }
}

impl Made {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Relative to the root.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        let path = |point: &Point| match point.parent.as_slice() {
            b"" => point.name.clone(),
            parent => [parent, b"/", &point.name].concat(),
        };
        self.0.iter().map(path).collect()
    }

    /// Takes away what the container left as it was made: empty, with its first owner and mode. What it changed, or put
    /// something into, or replaced, stays. Can be done twice.
    pub fn undo(&self, root: BorrowedFd<'_>) -> Result<()> {
        for point in self.0.iter().rev() {
            point
                .undo(root)
                .context(|| format!("removing the mount point {}", String::from_utf8_lossy(&point.name)))?;
        }
        Ok(())
    }
}

impl Point {
    fn undo(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let parent = match open_beneath(root, &self.parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            // Gone, moved, or now behind a link: not ours any more.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let name = CString::new(self.name.clone()).map_err(io::Error::other)?;
        match lstat(parent.as_fd(), &name) {
            Ok(stat) if self.untouched(&stat) => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
        let flags = if self.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let done = keeping_times(parent.as_fd(), || Ok(rustix::fs::unlinkat(&parent, &name, flags)?));
        match done {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOENT)) =>
            {
                Ok(())
            }
            done => done,
        }
    }

    fn untouched(&self, stat: &Stat) -> bool {
        let first = if self.directory { 0o755 } else { 0o644 };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let same = stat.st_uid == 0 && stat.st_gid == 0 && stat.st_mode & 0o7777 == first;
        let empty = if self.directory {
            kind.is_dir()
        } else {
            kind.is_file() && stat.st_size == 0 && stat.st_nlink == 1
        };
        same && empty
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outcrop-points-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Root(path)
        }
        fn fd(&self) -> OwnedFd {
            fs::File::open(&self.0).unwrap().into()
        }
        fn prepare(&self, path: &str, directory: bool) -> Result<Made> {
            prepare(self.fd().as_fd(), &[Wanted { path: path.into(), directory }])
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn state(root: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
        let mut found = vec![(root.to_owned(), fs::symlink_metadata(root).unwrap().modified().unwrap())];
        if fs::symlink_metadata(root).unwrap().is_dir() {
            for entry in fs::read_dir(root).unwrap() {
                found.extend(state(&entry.unwrap().path()));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn undone_nothing_is_left_and_no_time_has_changed() {
        let root = Root::new("undo");
        fs::create_dir(root.0.join("etc")).unwrap();
        let before = state(&root.0);
        let file = root.prepare("/etc/resolv.conf", false).unwrap();
        let deep = root.prepare("/a/b/c", true).unwrap();
        assert!(root.0.join("etc/resolv.conf").is_file() && root.0.join("a/b/c").is_dir());
        let kept: Made = serde_json::from_str(&serde_json::to_string(&deep).unwrap()).unwrap();
        for _ in 0..2 {
            kept.undo(root.fd().as_fd()).unwrap();
            file.undo(root.fd().as_fd()).unwrap();
        }
        assert_eq!(state(&root.0), before);
    }

    #[test]
    fn a_journal_is_worked_off_once() {
        let root = Root::new("journal");
        let journal = root.0.with_extension("journal");
        let mount = Mount::Bind { source: root.0.clone(), read_only: false };
        let made = root.prepare("/a/b", true).unwrap();
        fs::write(&journal, serde_json::to_vec(&made).unwrap()).unwrap();
        for _ in 0..2 {
            recover(&mount, &journal).unwrap();
            assert!(!root.0.join("a").exists() && !journal.exists());
        }
    }

    #[test]
    fn what_was_there_or_got_used_stays() {
        let root = Root::new("used");
        fs::create_dir(root.0.join("there")).unwrap();
        assert!(root.prepare("/there", true).unwrap().is_empty());
        let made = root.prepare("/new/point", true).unwrap();
        fs::write(root.0.join("new/file"), "").unwrap();
        made.undo(root.fd().as_fd()).unwrap();
        assert!(root.0.join("new/file").exists() && !root.0.join("new/point").exists());
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let root = Root::new("links");
        std::os::unix::fs::symlink("/../../run/real/resolv.conf", root.0.join("resolv.conf")).unwrap();
        std::os::unix::fs::symlink("round", root.0.join("round")).unwrap();
        let made = root.prepare("/resolv.conf", false).unwrap();
        assert!(root.0.join("run/real/resolv.conf").is_file());
        made.undo(root.fd().as_fd()).unwrap();
        assert!(!root.0.join("run").exists());
        let error = root.prepare("/round/x", true).unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "too many symbolic links");
    }

    #[test]
    fn a_file_is_no_place_for_a_directory() {
        let root = Root::new("kinds");
        fs::write(root.0.join("file"), "").unwrap();
        assert_eq!(root.prepare("/file", true).unwrap_err().kind(), crate::error::Kind::Invalid);
        assert_eq!(root.prepare("/new/../file/x", true).unwrap_err().kind(), crate::error::Kind::Invalid);
        assert!(!root.0.join("new").exists(), "what was made on the way is gone");
    }
}
