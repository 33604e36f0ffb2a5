//! COPY's work: what was selected goes below a destination in a root, by BuildKit's rules.
//!
//! The destination is a directory when it ends with a slash, when a directory is copied, or when it is one already; a
//! link is followed. Sources are copied one after the other, so of several files for one name the last one stays. Names
//! of one file stay names of one file. A directory's contents are copied, not the directory. Missing parents are made with mode 755. A
//! directory that is there keeps its metadata where it is the destination, and takes the source's below it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::select::{Item, Source, base_name, join};
use super::{Links, Part, Pins, Tree};
use crate::error::{Context as _, Error, Result};
use crate::image::Digest;
use crate::job::Job;
use crate::layer::Kind;
use crate::plan::{Chmod, InlineFile};
use crate::sys::{dir, tree};

/// How the copies differ from their sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// For all that is copied and for directories made on the way; `None` keeps the source's owner, or 0:0 for a
    /// build context.
    pub owner: Option<(u32, u32)>,
    /// Permission bits for files and directories that are copied.
    pub mode: Option<&'o Chmod>,
    /// Times of what was copied before; without them files have their sources' times.
    pub pins: Option<&'o Pins>,
    /// Files that the pins' tree has may be left out, to become names of those there.
    pub link: bool,
}

/// A file or directory that was copied: where it really went, links followed, and the digest its bytes must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub path: Vec<u8>,
    /// Of a regular file.
    pub digest: Option<Digest>,
}

/// What went into a root, and what is to be linked there.
#[derive(Debug, Default)]
pub struct Copies {
    pub files: Vec<Copied>,
    pub links: Links,
}

/// Copies `parts` and then `inline` to `destination` below `root`.
pub fn into(
    root: BorrowedFd<'_>,
    destination: &str,
    parts: &[Part<'_>],
    inline: &[InlineFile],
    options: Options<'_>,
    job: &Job,
) -> Result<Copies> {
    let mut copies = Copies::default();
    // Of several sources the last one for a name stays: none may be put off.
    let link = options.link && inline.is_empty() && matches!(parts, [part] if part.sources.len() == 1);
    let options = Options { link, ..options };
    for Part { tree, sources } in parts {
        for source in sources {
            // What was copied before may be what stands there now.
            let target = Target::find(root, destination, source.is_dir, options)?;
            let base = if source.is_dir { target.path } else { target.place(&source.path) };
            let copying = Copying {
                tree,
                source,
                base,
                root,
                options,
                job,
                from: None,
                to: None,
                directories: Vec::new(),
            };
            copying.run(&mut copies)?;
        }
    }
    for file in inline {
        let target = Target::find(root, destination, false, options)?;
        write_inline(root, &target.place(file.path.as_os_str().as_encoded_bytes()), file, options)?;
    }
    Ok(copies)
}

/// Where a copy goes.
struct Target {
    /// Below the root, without leading slash; links on the way to it are followed.
    path: Vec<u8>,
    is_dir: bool,
}

impl Target {
    /// Of a directory, whose content is copied, or of a file. Makes the directories on the way.
    fn find(root: BorrowedFd<'_>, destination: &str, of_dir: bool, options: Options<'_>) -> Result<Self> {
        let say = || format!("copying to `{destination}`");
        let path = behind_links(root, destination.trim_matches('/').as_bytes()).context(say)?;
        let there = match dir::open_in_root(root, &path, OFlags::PATH) {
            Ok(fd) => Some(FileType::from_raw_mode(rustix::fs::fstat(&fd).context(say)?.st_mode)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(say),
        };
        let is_dir = destination.ends_with('/') || of_dir || there == Some(FileType::Directory);
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

/// What a destination that is a link leads to, there or not: that is what is replaced, and not the link.
fn behind_links(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let mut path = path.to_vec();
    // As many as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        let parent = match dir::open_in_root(root, parent_of(&path), OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        };
        let name = c_name(base_name(&path))?;
        let link = match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
            Ok(link) => link.into_bytes(),
            // No link, or nothing.
            Err(_) => return Ok(path),
        };
        path = match link.strip_prefix(b"/") {
            Some(absolute) => absolute.to_vec(),
            None => join(&real_path(root, parent.as_fd())?, &link),
        };
    }
    Err(rustix::io::Errno::LOOP.into())
}

pub(super) fn parent_of(path: &[u8]) -> &[u8] {
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
    /// Where it goes.
    base: Vec<u8>,
    root: BorrowedFd<'c>,
    options: Options<'c>,
    job: &'c Job,
    from: Option<(Vec<u8>, OwnedFd)>,
    to: Option<Open>,
    /// Their times are set when nothing more goes into them.
    directories: Vec<(Vec<u8>, &'c Item)>,
}

/// A directory that is being copied to.
struct Open {
    path: Vec<u8>,
    /// The same with all links followed.
    real: Vec<u8>,
    fd: OwnedFd,
    /// It is sure to be in the draft's own tree.
    raised: bool,
}

impl<'c> Copying<'c> {
    fn run(mut self, copies: &mut Copies) -> Result<()> {
        for (n, item) in self.source.items.iter().enumerate() {
            if n % 256 == 0 {
                self.job.check()?;
            }
            let to = join(&self.base, &item.path);
            let from = join(&self.source.path, &item.path);
            let done = match item.kind {
                Kind::Dir if item.path.is_empty() => Ok(()),
                Kind::Dir => self.directory(&to, item),
                _ => match item.link {
                    Some(first) => self.link(first, &to),
                    None => match self.held(&to, item) {
                        Ok(Some(path)) => {
                            copies.links.add(path);
                            Ok(())
                        }
                        Ok(None) => self.file(&from, &to, item),
                        Err(error) => Err(error),
                    },
                },
            };
            done.context(|| {
                format!("copying `{}` from {} to `/{}`", lossy(&from), self.tree.what, lossy(&to))
            })?;
            if let Some(open) = self.to.as_ref().filter(|_| item.kind != Kind::Dir || !item.path.is_empty()) {
                copies.files.push(Copied { path: join(&open.real, base_name(&to)), digest: item.digest });
            }
        }
        for (path, item) in std::mem::take(&mut self.directories).into_iter().rev() {
            let fd = dir::open_in_root(self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)
                .context(|| format!("setting the times of `/{}`", lossy(&path)))?;
            rustix::fs::futimens(&fd, &times(item.mtime))
                .context(|| format!("setting the times of `/{}`", lossy(&path)))?;
            if !copies.links.is_empty() {
                let real = real_path(self.root, fd.as_fd())
                    .context(|| format!("finding the directory `/{}`", lossy(&path)))?;
                copies.links.directory(real, item.mtime);
            }
        }
        Ok(())
    }

    fn owner(&self, item: &Item) -> (u32, u32) {
        let own = if self.tree.keeps_owners() { (item.uid, item.gid) } else { (0, 0) };
        self.options.owner.unwrap_or(own)
    }

    /// Of the copy of `item` that goes to `to`.
    fn time(&mut self, to: &[u8], item: &Item) -> Result<(i64, i64)> {
        let Some(pins) = self.options.pins else { return Ok(item.mtime) };
        let parent = self.opened(parent_of(to))?;
        Ok(pins.time(&join(&parent.real, base_name(to)), item))
    }

    /// Where the copy of `item` goes, if nothing is there and it is to be a name of what an earlier layer has.
    fn held(&mut self, to: &[u8], item: &Item) -> Result<Option<Vec<u8>>> {
        let Some(pins) = self.options.pins.filter(|_| self.options.link) else { return Ok(None) };
        let (mode, owner) = (self.mode(item), self.owner(item));
        let open = self.opened(parent_of(to))?;
        let real = join(&open.real, base_name(to));
        let name = c_name(base_name(to)).context(|| "naming the copy")?;
        if !pins.holds(&real, item, mode, owner) || dir::lstat(open.fd.as_fd(), &name).is_ok() {
            return Ok(None);
        }
        if !open.raised {
            // Any change brings a directory of a layer below up into the draft.
            let there = rustix::fs::fstat(&open.fd).context(|| "looking at the directory to copy to")?;
            let mode = Mode::from_raw_mode(there.st_mode & 0o7777);
            rustix::fs::fchmod(&open.fd, mode).context(|| "changing the directory to copy to")?;
            open.raised = true;
        }
        Ok(Some(real))
    }

    fn mode(&self, item: &Item) -> Mode {
        let directory = item.kind == Kind::Dir;
        Mode::from_raw_mode(self.options.mode.map_or(item.mode, |chmod| chmod.apply(item.mode, directory)))
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
        let time = self.time(to, item)?;
        let parent = self.destination(parent_of(to))?;
        let draft = make(parent, &name, item, mode, source)?;
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
            tree::own(fd.as_fd(), (uid, gid), mode.as_raw_mode())
                .context(|| "setting the owner and the mode")?;
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
            Some(fd) => rustix::fs::futimens(fd, &times(time)),
            None => rustix::fs::utimensat(parent, &name, &times(time), AtFlags::SYMLINK_NOFOLLOW),
        }
        .context(|| "setting the times")
    }

    /// One more name of a file that was copied.
    fn link(&mut self, first: usize, to: &[u8]) -> Result<()> {
        let first = join(&self.base, &self.source.items[first].path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let from = dir::open_in_root(self.root, parent_of(&first), flags)
            .context(|| "opening the directory of the file's first name")?;
        let (first, name) = (c_name(base_name(&first)), c_name(base_name(to)));
        let (first, name) = (first.context(|| "naming the first copy")?, name.context(|| "naming the copy")?);
        let parent = self.destination(parent_of(to))?;
        replacing(parent, &name, || rustix::fs::linkat(&from, &first, parent, &name, AtFlags::empty()))
    }

    fn open_source(&mut self, from: &[u8]) -> Result<OwnedFd> {
        // The source itself may be a link, which is followed; what lies below it is not.
        if from == self.source.path {
            return dir::open_in_root(self.tree.root()?, from, OFlags::RDONLY)
                .context(|| "opening the source");
        }
        let parent = parent_of(from);
        if self.from.as_ref().is_none_or(|(path, _)| path != parent) {
            let fd = dir::open_in_root(self.tree.root()?, parent, OFlags::RDONLY | OFlags::DIRECTORY)
                .context(|| "opening the source's directory")?;
            self.from = Some((parent.to_vec(), fd));
        }
        let (_, fd) = self.from.as_ref().expect("set above");
        let name = c_name(base_name(from)).context(|| "naming the source")?;
        dir::open_entry(fd.as_fd(), &name, OFlags::RDONLY | OFlags::NONBLOCK).context(|| "opening the source")
    }

    fn destination(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        self.opened(path).map(|open| open.fd.as_fd())
    }

    fn opened(&mut self, path: &[u8]) -> Result<&mut Open> {
        if self.to.as_ref().is_none_or(|open| open.path != path) {
            let fd = dir::open_in_root(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
                .context(|| "opening the directory to copy to")?;
            let real = real_path(self.root, fd.as_fd()).context(|| "finding the directory to copy to")?;
            self.to = Some(Open { path: path.to_vec(), real, fd, raised: false });
        }
        Ok(self.to.as_mut().expect("set above"))
    }
}

/// Where a directory below `root` really is, without leading slash.
fn real_path(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let path = |fd: BorrowedFd<'_>| -> io::Result<Vec<u8>> {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        Ok(rustix::fs::readlink(link, Vec::new())?.into_bytes())
    };
    let (root, dir) = (path(root)?, path(dir)?);
    let below = dir.strip_prefix(&root[..]).unwrap_or(&dir);
    Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
}

/// Makes the entry anew, in place of whatever no directory is there; gives a regular file's descriptor.
fn make(
    parent: BorrowedFd<'_>,
    name: &CStr,
    item: &Item,
    mode: Mode,
    source: Option<OwnedFd>,
) -> Result<Option<OwnedFd>> {
    let attempt = || -> rustix::io::Result<Option<OwnedFd>> {
        Ok(match item.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Some(rustix::fs::openat(parent, name, flags, mode & Mode::from_raw_mode(0o777))?)
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
    let made = replacing(parent, name, attempt)?;
    if let (Some(to), Some(from)) = (&made, source) {
        copy_bytes(from.as_fd(), to.as_fd()).context(|| "copying the bytes")?;
    }
    Ok(made)
}

/// Whatever is there and no directory goes.
fn replacing<T>(
    parent: BorrowedFd<'_>,
    name: &CStr,
    attempt: impl Fn() -> rustix::io::Result<T>,
) -> Result<T> {
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
    made.context(|| "making the copy")
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

fn write_inline(root: BorrowedFd<'_>, to: &[u8], file: &InlineFile, options: Options<'_>) -> Result<()> {
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
        link: None,
        inode: None,
    };
    let mode = Mode::from_raw_mode(options.mode.map_or(file.mode, |chmod| chmod.apply(file.mode, false)));
    let fd = make(parent.as_fd(), &name, &item, mode, None).context(say)?.expect("a regular file");
    let mut out = std::fs::File::from(fd);
    io::Write::write_all(&mut out, &file.bytes).context(say)?;
    tree::own(out.as_fd(), options.owner.unwrap_or((0, 0)), mode.as_raw_mode()).context(say)
}

pub(super) fn times((seconds, nanoseconds): (i64, i64)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn lossy(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

#[cfg(test)]
mod tests {
    use super::super::{Choice, Digests, Input, StatCache};
    use super::*;
    use crate::sys::mount::{self, Mount};
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};

    struct Temp(PathBuf);
    impl Temp {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("outcrop-copy-{}-{name}", std::process::id()));
            drop(fs::remove_dir_all(&dir));
            fs::create_dir_all(&dir).unwrap();
            Temp(dir)
        }
        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    impl Drop for Temp {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn open(path: &Path) -> OwnedFd {
        super::super::open(path).unwrap()
    }

    fn copy(from: &Path, sources: &[&str], root: BorrowedFd<'_>, destination: &str) -> Result<Vec<String>> {
        let stats = StatCache::in_memory();
        let input = |source: &&str| -> Result<Input<'_>> {
            let tree = Tree::new(open(from), "the build context", Digests::Stat(&stats));
            let selection = tree.select(source, Choice::default(), &Job::silent())?;
            Ok(Input { selection, tree, identity: None })
        };
        let inputs = sources.iter().map(input).collect::<Result<Vec<_>>>()?;
        let parts: Vec<_> = inputs.iter().map(Input::reference).collect();
        let copied = into(root, destination, &parts, &[], Options::default(), &Job::silent())?;
        Ok(copied
            .files
            .into_iter()
            .filter(|copied| copied.digest.is_some())
            .map(|copied| String::from_utf8(copied.path).unwrap())
            .collect())
    }

    #[test]
    fn destinations_follow_links_below_the_root_and_are_told_where_they_really_are() {
        let temp = Temp::new("links");
        temp.file("context/a.txt", "a");
        temp.file("lower/run/keep", "");
        fs::create_dir_all(temp.0.join("lower/var")).unwrap();
        symlink("/run", temp.0.join("lower/var/run")).unwrap();
        for dir in ["upper", "work"] {
            fs::create_dir(temp.0.join(dir)).unwrap();
        }
        let overlay = Mount::Overlay {
            lowers: vec![temp.0.join("lower")],
            upper: Some(temp.0.join("upper")),
            work: Some(temp.0.join("work")),
            volatile: false,
            user: false,
        };
        let root = mount::detached(&overlay).unwrap();
        let copied = copy(&temp.0.join("context"), &["a.txt"], root.as_fd(), "/var/run/deep/b.txt").unwrap();
        assert_eq!(copied, ["run/deep/b.txt"]);
        assert_eq!(fs::read_to_string(temp.0.join("upper/run/deep/b.txt")).unwrap(), "a");
    }

    #[test]
    fn what_a_destination_means_follows_buildkit() {
        let temp = Temp::new("rules");
        temp.file("context/a.txt", "a");
        temp.file("context/dir/b.txt", "b");
        temp.file("context/dir/sub/c.txt", "c");
        fs::set_permissions(temp.0.join("context/dir/sub"), fs::Permissions::from_mode(0o2750)).unwrap();
        fs::create_dir_all(temp.0.join("root/there")).unwrap();
        let (context, root) = (temp.0.join("context"), open(&temp.0.join("root")));
        let go = |sources: &[&str], to: &str| copy(&context, sources, root.as_fd(), to);
        assert_eq!(go(&["a.txt"], "/file").unwrap(), ["file"]);
        assert_eq!(go(&["a.txt"], "/new/").unwrap(), ["new/a.txt"]);
        assert_eq!(go(&["a.txt"], "/there").unwrap(), ["there/a.txt"]);
        assert_eq!(go(&["dir"], "/copied").unwrap(), ["copied/b.txt", "copied/sub/c.txt"]);
        assert_eq!(go(&["*.txt", "d?r"], "/many/").unwrap(), ["many/a.txt", "many/b.txt", "many/sub/c.txt"]);
        let sub = fs::metadata(temp.0.join("root/copied/sub")).unwrap();
        assert_eq!((sub.mode() & 0o7777, sub.uid(), sub.gid()), (0o2750, 0, 0));
        let problem = go(&["dir"], "/file").unwrap_err();
        assert_eq!(problem.message(), "copying to `/file`: it is there and no directory");
        let problem = go(&["../x"], "/").unwrap_err();
        assert_eq!(problem.message(), "`../x` is not in the build context");
        let problem = go(&["nothing"], "/").unwrap_err();
        assert_eq!(problem.message(), "`nothing` is not in the build context");
    }

    #[test]
    fn a_selection_s_digest_sees_names_modes_and_bytes_but_no_times() {
        let temp = Temp::new("digest");
        temp.file("d/a", "a");
        let digest = || {
            let stats = StatCache::in_memory();
            let tree = Tree::new(open(&temp.0), "the build context", Digests::Stat(&stats));
            tree.select("d", Choice::default(), &Job::silent()).unwrap().digest(false)
        };
        let first = digest();
        temp.file("d/a", "a");
        assert_eq!(first, digest(), "written again");
        temp.file("d/a", "b");
        let second = digest();
        assert_ne!(first, second, "other bytes");
        fs::set_permissions(temp.0.join("d/a"), fs::Permissions::from_mode(0o600)).unwrap();
        let third = digest();
        assert_ne!(second, third, "other mode");
        fs::rename(temp.0.join("d/a"), temp.0.join("d/b")).unwrap();
        assert_ne!(third, digest(), "other name");
    }
}
