//! Where a file output goes: to a file that appears when it is whole, or to the caller's stream.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::archive::making;
use crate::error::{Context as _, Error, Kind, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `-`: what the caller hands in as its standard output.
    Stream,
    File(PathBuf),
}

impl Destination {
    pub(super) fn of(dest: Option<&str>) -> Destination {
        match dest {
            None | Some("" | "-") => Destination::Stream,
            Some(path) => Destination::File(path.into()),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Destination::Stream => None,
            Destination::File(path) => Some(path),
        }
    }

    /// Whether it can be written to, as far as that can be told before there is something to write.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Destination::Stream => Ok(()),
            Destination::File(path) => NewFile::open(path).map(drop),
        }
    }

    /// Hands `write` the place; what it leaves is there under its name only when it returns without an error.
    pub fn write(
        &self,
        stream: Option<&File>,
        write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>,
    ) -> Result<()> {
        match self {
            Destination::Stream => {
                let stream = stream.ok_or_else(|| Error::internal("there is no standard output"))?;
                let mut out = BufWriter::with_capacity(BUFFER, stream);
                write(&mut out)?;
                out.flush().context(|| "writing to standard output")
            }
            Destination::File(path) => {
                let doing = || format!("writing `{}`", path.display());
                let file = NewFile::open(path)?;
                let mut out = BufWriter::with_capacity(BUFFER, &file.file);
                write(&mut out).context(doing)?;
                out.flush().context(doing)?;
                drop(out);
                file.keep().context(doing)
            }
        }
    }
}

const BUFFER: usize = 128 << 10;

/// A file in the making. Dropped before `keep`, nothing is left of it.
struct NewFile {
    file: File,
    path: PathBuf,
    /// Under which it will be renamed; `None`: what stands there is a device or a pipe, and was opened itself.
    making: Option<PathBuf>,
    /// It has that name already: the filesystem knows no files without one.
    named: bool,
}

impl NewFile {
    fn open(path: &Path) -> Result<NewFile> {
        let doing = || format!("writing `{}`", path.display());
        // A link is not replaced: its target is.
        let path = &fs::canonicalize(path).unwrap_or_else(|_absent| path.to_owned());
        let standing = match fs::metadata(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
            found => Some(found.context(doing)?),
        };
        if let Some(standing) = &standing {
            let kind = standing.file_type();
            if kind.is_dir() {
                return Err(Error::conflict(format!("`{}` is a directory", path.display())).hint(
                    "name a file; a directory is what type=local writes, and type=oci with tar=false",
                ));
            }
            if !kind.is_file() {
                if kind.is_socket() {
                    return Err(Error::conflict(format!("`{}` is a socket", path.display())));
                }
                let file = OpenOptions::new().write(true).open(path).context(doing)?;
                return Ok(NewFile { file, path: path.clone(), making: None, named: false });
            }
        }
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name =
            path.file_name().ok_or_else(|| Error::invalid(format!("`{}` is no file", path.display())))?;
        let mark = format!(".{}.making-", name.to_string_lossy());
        // What a killed process left between giving it that name and its own.
        making::sweep_marked(dir, &|name| {
            let number = name.to_str().and_then(|name| name.strip_prefix(&mark));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let making = dir.join(format!("{mark}{}", std::process::id()));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let (file, named) = match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => (File::from(file), false),
            // Filesystems without O_TMPFILE say one of these (open(2)); a missing directory says NOENT too.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT)
                if dir.is_dir() =>
            {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&making);
                (file.context(doing)?, true)
            }
            Err(cause) => {
                let error = Err::<(), _>(std::io::Error::from(cause)).context(doing).expect_err("it is one");
                return Err(match error.kind() {
                    Kind::NotFound => error.hint(format!("make the directory `{}` first", dir.display())),
                    Kind::Denied => {
                        error.hint(format!("the directory `{}` cannot be written to", dir.display()))
                    }
                    _ => error,
                });
            }
        };
        // As long as it is held nobody takes it for left over; where files cannot be locked, nothing is.
        let _unlocked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if let Some(standing) = standing {
            // As if it were written in place. Where its owner is another, it is ours now, with our mode.
            drop(file.set_permissions(standing.permissions()));
        }
        Ok(NewFile { file, path: path.clone(), making: Some(making), named })
    }

    fn keep(mut self) -> std::io::Result<()> {
        let Some(making) = self.making.clone() else { return Ok(()) };
        self.file.sync_data()?;
        if !self.named {
            // open(2), "O_TMPFILE": the way that takes no privileges.
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, own, CWD, &making, AtFlags::SYMLINK_FOLLOW)?;
            self.named = true;
        }
        fs::rename(&making, &self.path)?;
        self.named = false;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let (true, Some(making)) = (self.named, &self.making) {
            drop(fs::remove_file(making));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::Dir;

    #[test]
    fn what_a_killed_process_left_of_the_same_file_goes_with_the_next() {
        let dir = Dir::new();
        let place = dir.path().join("it.tar");
        for name in [".it.tar.making-7", ".it.tar.making-7x", ".other.tar.making-7"] {
            fs::write(dir.path().join(name), "left").unwrap();
        }
        let write = |text: &'static str| {
            Destination::File(place.clone())
                .write(None, |out| out.write_all(text.as_bytes()).context(|| "writing"))
        };
        write("whole").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".it.tar.making-7x", ".other.tar.making-7", "it.tar"]);
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        let held = NewFile::open(&place).unwrap();
        let own = format!("/proc/self/fd/{}", held.file.as_raw_fd());
        let making = dir.path().join(".it.tar.making-8");
        rustix::fs::linkat(CWD, own, CWD, &making, AtFlags::SYMLINK_FOLLOW).unwrap();
        write("again").unwrap();
        assert!(making.exists(), "somebody is at it");
    }
}
