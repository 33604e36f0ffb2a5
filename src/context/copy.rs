//! COPY's work: what was selected goes below a destination in a root, by BuildKit's rules.
//!
//! The destination is a directory when it ends with a slash, when there are several sources, or when it is one
//! already. A directory's contents are copied, not the directory. Missing parents are made with mode 755. A
//! directory that is there keeps its metadata where it is the destination, and takes the source's below it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::Tree;
use super::select::{Item, Selection, Source, base_name, join};
use crate::error::{Context as _, Error, Result};
use crate::job::Job;
use crate::layer::Kind;
use crate::plan::InlineFile;
use crate::sys::dir;

/// How the copies differ from their sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// For all that is copied and for directories made on the way; `None` keeps the source's owner, or 0:0 for a
    /// build context.
    pub owner: Option<(u32, u32)>,
    /// Permission bits for files and directories that are copied.
    pub mode: Option<u32>,
}

/// Copies `selection` of `tree` and then `inline` to `destination` below `root`.
pub fn into(
    root: BorrowedFd<'_>,
    destination: &str,
    tree: Option<(&Tree<'_>, &Selection)>,
    inline: &[InlineFile],
    options: Options,
    job: &Job,
) -> Result<()> {
    let empty = Selection::default();
    let selection = tree.map_or(&empty, |(_, selection)| selection);
    let target = Target::find(root, destination, selection, inline, options)?;
    for source in &selection.sources {
        let (tree, _) = tree.expect("a selection comes from a tree");
        Copying { tree, source, root, options, job, from: None, to: None, directories: Vec::new() }
            .run(&target)?;
    }
    for file in inline {
        write_inline(root, &target.place(file.path.as_os_str().as_encoded_bytes()), file, options)?;
    }
    Ok(())
}

/// Where the copies go.
struct Target {
    /// Below the root, without leading slash; links in it are followed.
    path: Vec<u8>,
    is_dir: bool,
}

impl Target {
    fn find(
        root: BorrowedFd<'_>,
        destination: &str,
        selection: &Selection,
        inline: &[InlineFile],
        options: Options,
    ) -> Result<Self> {
        let path = destination.trim_matches('/').as_bytes().to_vec();
        let say = || format!("copying to `{destination}`");
        let there = match dir::open_in_root(root, &path, OFlags::PATH) {
            Ok(fd) => Some(FileType::from_raw_mode(rustix::fs::fstat(&fd).context(say)?.st_mode)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(say),
        };
        let several = selection.sources.len() + inline.len() > 1;
        let whole_directory = selection.sources.iter().any(|source| source.is_dir);
        let is_dir =
            destination.ends_with('/') || several || whole_directory || there == Some(FileType::Directory);
        match there {
            Some(FileType::Directory) => {}
            Some(_) if is_dir => {
                return Err(Error::conflict(format!(
                    "copying to `{destination}`: it is there and no directory"
                )));
            }
            _ => {
                let parents = if is_dir { &path[..] } else { parent_of(&path) };
                make_dirs(root, parents, options.owner.unwrap_or((0, 0))).context(say)?;
            }
        }
        Ok(Target { path, is_dir })
    }

    fn place(&self, name: &[u8]) -> Vec<u8> {
        if self.is_dir { join(&self.path, base_name(name)) } else { self.path.clone() }
    }
}

fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

/// Makes the directories of `path` that are not there, each with mode 755; links on the way are followed.
pub fn make_dirs(root: BorrowedFd<'_>, path: &[u8], owner: (u32, u32)) -> io::Result<()> {
    let mut made = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let parent = made.clone();
        made = join(&made, part);
        match dir::open_in_root(root, &made, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let parent = dir::open_in_root(root, &parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let name = c_name(part)?;
        rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
        let fd = dir::open_dir(parent.as_fd(), &name)?;
        rustix::fs::fchown(&fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_nul| io::Error::new(io::ErrorKind::InvalidInput, "a name with a NUL byte"))
}

/// One source on its way. The directories worked in stay open from one file to the next.
struct Copying<'c> {
    tree: &'c Tree<'c>,
    source: &'c Source,
    root: BorrowedFd<'c>,
    options: Options,
    job: &'c Job,
    from: Option<(Vec<u8>, OwnedFd)>,
    to: Option<(Vec<u8>, OwnedFd)>,
    /// Their times are set when nothing more goes into them.
    directories: Vec<(Vec<u8>, &'c Item)>,
}

impl<'c> Copying<'c> {
    fn run(mut self, target: &Target) -> Result<()> {
        let base = if self.source.is_dir { target.path.clone() } else { target.place(&self.source.path) };
        for (n, item) in self.source.items.iter().enumerate() {
            if n % 256 == 0 {
                self.job.check()?;
            }
            let to = join(&base, &item.path);
            let from = join(&self.source.path, &item.path);
            let copied = match item.kind {
                Kind::Dir if item.path.is_empty() => Ok(()),
                Kind::Dir => self.directory(&to, item),
                _ => self.file(&from, &to, item),
            };
            copied.context(|| {
                format!("copying `{}` from {} to `/{}`", lossy(&from), self.tree.what, lossy(&to))
            })?;
        }
        for (path, item) in std::mem::take(&mut self.directories).into_iter().rev() {
            let fd = dir::open_in_root(self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)
                .context(|| format!("setting the times of `/{}`", lossy(&path)))?;
            rustix::fs::futimens(&fd, &times(item))
                .context(|| format!("setting the times of `/{}`", lossy(&path)))?;
        }
        Ok(())
    }

    fn owner(&self, item: &Item) -> (u32, u32) {
        let own = if self.tree.keeps_owners() { (item.uid, item.gid) } else { (0, 0) };
        self.options.owner.unwrap_or(own)
    }

    fn mode(&self, item: &Item) -> Mode {
        Mode::from_raw_mode(self.options.mode.unwrap_or(item.mode))
    }

    fn directory(&mut self, to: &[u8], item: &'c Item) -> Result<()> {
        let parent = self.destination(parent_of(to))?;
        let name = c_name(base_name(to)).context(|| "naming the copy")?;
        match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                let there = dir::lstat(parent, &name).context(|| "looking at what is there")?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    return Err(Error::conflict("a directory cannot replace what is no directory"));
                }
            }
            Err(error) => return Err(error).context(|| "making the directory"),
        }
        let fd = dir::open_dir(parent, &name).context(|| "opening the directory")?;
        let (uid, gid) = self.owner(item);
        rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .context(|| "setting the owner")?;
        rustix::fs::fchmod(&fd, self.mode(item)).context(|| "setting the mode")?;
        for (key, value) in &item.xattrs {
            rustix::fs::fsetxattr(&fd, key, value, rustix::fs::XattrFlags::empty())
                .context(|| "setting an extended attribute")?;
        }
        self.directories.push((to.to_vec(), item));
        Ok(())
    }

    fn file(&mut self, from: &[u8], to: &[u8], item: &Item) -> Result<()> {
        let (uid, gid) = self.owner(item);
        let mode = self.mode(item);
        let name = c_name(base_name(to)).context(|| "naming the copy")?;
        let source = match item.kind {
            Kind::File => Some(self.open_source(from)?),
            _ => None,
        };
        let parent = self.destination(parent_of(to))?;
        let draft = make(parent, &name, item, source)?;
        if item.kind == Kind::Symlink {
            rustix::fs::chownat(
                parent,
                &name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .context(|| "setting the owner")?;
        } else if let Some(fd) = &draft {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .context(|| "setting the owner")?;
            rustix::fs::fchmod(fd, mode).context(|| "setting the mode")?;
        } else {
            rustix::fs::chownat(
                parent,
                &name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .context(|| "setting the owner")?;
            rustix::fs::chmodat(parent, &name, mode, AtFlags::empty()).context(|| "setting the mode")?;
        }
        for (key, value) in &item.xattrs {
            dir::set_xattr(parent, &name, key, value).context(|| "setting an extended attribute")?;
        }
        match &draft {
            Some(fd) => rustix::fs::futimens(fd, &times(item)),
            None => rustix::fs::utimensat(parent, &name, &times(item), AtFlags::SYMLINK_NOFOLLOW),
        }
        .context(|| "setting the times")
    }

    fn open_source(&mut self, from: &[u8]) -> Result<OwnedFd> {
        // The source itself may be a link, which is followed; what lies below it is not.
        if from == self.source.path {
            return dir::open_in_root(self.tree.root(), from, OFlags::RDONLY)
                .context(|| "opening the source");
        }
        let parent = parent_of(from);
        if self.from.as_ref().is_none_or(|(path, _)| path != parent) {
            let fd = dir::open_in_root(self.tree.root(), parent, OFlags::RDONLY | OFlags::DIRECTORY)
                .context(|| "opening the source's directory")?;
            self.from = Some((parent.to_vec(), fd));
        }
        let (_, fd) = self.from.as_ref().expect("set above");
        let name = c_name(base_name(from)).context(|| "naming the source")?;
        dir::open_entry(fd.as_fd(), &name, OFlags::RDONLY | OFlags::NONBLOCK).context(|| "opening the source")
    }

    fn destination(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        if self.to.as_ref().is_none_or(|(open, _)| open != path) {
            let fd = dir::open_in_root(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
                .context(|| "opening the directory to copy to")?;
            self.to = Some((path.to_vec(), fd));
        }
        Ok(self.to.as_ref().expect("set above").1.as_fd())
    }
}

/// Makes the entry anew, in place of whatever no directory is there; gives a regular file's descriptor.
fn make(
    parent: BorrowedFd<'_>,
    name: &CStr,
    item: &Item,
    source: Option<OwnedFd>,
) -> Result<Option<OwnedFd>> {
    let attempt = || -> rustix::io::Result<Option<OwnedFd>> {
        Ok(match item.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Some(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?)
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(&item.target[..], parent, name)?;
                None
            }
            kind => {
                let kind = match kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), item.rdev)?;
                None
            }
        })
    };
    let made = match attempt() {
        Err(rustix::io::Errno::EXIST) => {
            match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                Err(rustix::io::Errno::ISDIR) => {
                    return Err(Error::conflict("a directory is there, and a file cannot replace it")
                        .hint("end the destination with `/` to copy into the directory"));
                }
                other => other.context(|| "replacing what is there")?,
            }
            attempt()
        }
        other => other,
    };
    let made = made.context(|| "making the copy")?;
    if let (Some(to), Some(from)) = (&made, source) {
        copy_bytes(from.as_fd(), to.as_fd()).context(|| "copying the bytes")?;
    }
    Ok(made)
}

/// By reflink where the filesystem can, else in the kernel, else through a buffer.
fn copy_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let size = rustix::fs::fstat(from)?.st_size;
    if size > 64 * 1024 && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    if size <= 64 * 1024 {
        return copy_through_buffer(from, to);
    }
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(
                rustix::io::Errno::XDEV
                | rustix::io::Errno::INVAL
                | rustix::io::Errno::OPNOTSUPP
                | rustix::io::Errno::NOSYS,
            ) => {
                return copy_through_buffer(from, to);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn copy_through_buffer(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        let count = match rustix::io::read(from, &mut buffer[..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = rustix::io::write(to, rest)?;
            rest = &rest[written..];
        }
    }
}

fn write_inline(root: BorrowedFd<'_>, to: &[u8], file: &InlineFile, options: Options) -> Result<()> {
    let say = || format!("writing `/{}`", lossy(to));
    let parent = dir::open_in_root(root, parent_of(to), OFlags::RDONLY | OFlags::DIRECTORY).context(say)?;
    let name = c_name(base_name(to)).context(say)?;
    let item = Item {
        path: Vec::new(),
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        digest: None,
        mtime: (0, 0),
        rdev: 0,
        target: Vec::new(),
        xattrs: Vec::new(),
    };
    let fd = make(parent.as_fd(), &name, &item, None).context(say)?.expect("a regular file");
    let mut out = std::fs::File::from(fd);
    io::Write::write_all(&mut out, &file.bytes).context(say)?;
    let (uid, gid) = options.owner.unwrap_or((0, 0));
    rustix::fs::fchown(&out, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(say)?;
    rustix::fs::fchmod(&out, Mode::from_raw_mode(options.mode.unwrap_or(file.mode))).context(say)
}

fn times(item: &Item) -> Timestamps {
    let time = Timespec { tv_sec: item.mtime.0, tv_nsec: item.mtime.1 };
    Timestamps { last_access: time, last_modification: time }
}

fn lossy(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}
