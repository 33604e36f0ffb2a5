//! Trees on disk: what stands at a name, in the form the tree has. Everything is opened below a directory's
//! descriptor and no symbolic link is ever followed.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Form, Kind};
use crate::error::{Context, Result};

pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Never waits for a fifo's other end.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

pub(super) fn open_dir(at: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let name = if name.is_empty() { b"." } else { name };
    fs::openat(at, name, DIR, Mode::empty())
}

pub(super) fn open_file(at: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    fs::openat(at, name, FILE, Mode::empty())
}

/// `None` where nothing stands.
pub(super) fn stat(at: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// `None` for a socket.
pub(super) fn kind(stat: &Stat) -> Option<Kind> {
    Some(match file_type(stat) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        _ => return None,
    })
}

pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(super) fn rdev(stat: &Stat) -> (u32, u32) {
    (fs::major(stat.st_rdev), fs::minor(stat.st_rdev))
}

/// Splits a path into its parent and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Bytes of a path that the kernel takes at once, with some to spare.
const LONGEST: usize = 4000;

/// Opens a directory deep below `root`, by a path of any length; a symbolic link on the way is an error.
pub(super) fn open_below(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    if path.is_empty() {
        return open_dir(root, b".");
    }
    if path.len() > LONGEST {
        let cut = path[..LONGEST].iter().rposition(|byte| *byte == b'/').expect("names end at 255 bytes");
        return open_below(open_below(root, &path[..cut])?.as_fd(), &path[cut + 1..]);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, path, DIR, Mode::empty(), resolve) {
        // Before Linux 5.6.
        Err(Errno::NOSYS) => {}
        other => return other,
    }
    let mut names = path.split(|byte| *byte == b'/');
    let mut dir = open_dir(root, names.next().unwrap_or_default())?;
    for name in names {
        dir = open_dir(&dir, name)?;
    }
    Ok(dir)
}

/// The directory opened last, as archives go through a tree one directory after the other.
pub(super) struct Parents<'a> {
    root: BorrowedFd<'a>,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Parents<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Parents { root, last: None }
    }
    /// After a directory may have gone.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
    /// The directory `path`.
    pub(super) fn dir(&mut self, path: &[u8]) -> rustix::io::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = Some((path.to_vec(), open_below(self.root, path)?));
        }
        Ok(self.last.as_ref().expect("set above").1.as_fd())
    }
}

/// The names in a directory, sorted bytewise, with their types.
pub(super) fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    // The descriptor may have been read before.
    let mut entries = fs::RawDir::new(open_dir(dir, b".")?, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    for (name, kind) in &mut names {
        if *kind == FileType::Unknown
            && let Some(stat) = stat(dir, name)?
        {
            *kind = file_type(&stat);
        }
    }
    names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(names)
}

/// The names union filesystems keep their own marks under.
pub(super) fn marks(form: Form) -> Option<&'static [u8]> {
    match form {
        Form::Overlay => Some(b"trusted.overlay."),
        Form::OverlayUser => Some(b"user.overlay."),
        Form::Aufs | Form::Whole => None,
    }
}

/// Whether an attribute belongs to the file, and not to the host's policy (SELinux, IMA) or its filesystem.
pub(super) fn is_content(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// What an attribute of the layer is called on disk. overlayfs hides its own marks, and shows those that a user
/// set as escaped ones (overlayfs.rst, "Nested overlayfs mounts").
pub(super) fn escaped(form: Form, name: &[u8]) -> Vec<u8> {
    match marks(form).and_then(|marks| Some((marks, name.strip_prefix(marks)?))) {
        Some((marks, rest)) => [marks, b"overlay.", rest].concat(),
        None => name.to_vec(),
    }
}

/// The other way; `None` for the union filesystem's own.
fn unescaped(form: Form, name: &[u8]) -> Option<Vec<u8>> {
    match marks(form).and_then(|marks| Some((marks, name.strip_prefix(marks)?))) {
        Some((marks, rest)) => rest.strip_prefix(b"overlay.").map(|rest| [marks, rest].concat()),
        None => Some(name.to_vec()),
    }
}

/// Something whose attributes can be read: an open file, or a name that cannot be opened without side effects.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    Open(BorrowedFd<'a>),
    Name(BorrowedFd<'a>, &'a [u8]),
}

/// `/proc/self/fd/N/name`: attributes of what stands at a name have no system call of their own before Linux 6.13.
fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

impl Node<'_> {
    fn list(self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Node::Open(file) => fs::flistxattr(file, buffer),
            Node::Name(dir, name) => fs::llistxattr(proc_path(dir, name), buffer),
        }
    }
    fn get_into(self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Node::Open(file) => fs::fgetxattr(file, name, buffer),
            Node::Name(dir, path) => fs::lgetxattr(proc_path(dir, path), name, buffer),
        }
    }
    /// `None` where there is no such attribute.
    pub(super) fn get(self, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; 1 << 10];
        loop {
            match self.get_into(name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) if value.len() < 64 << 10 => value.resize(64 << 10, 0),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
    pub(super) fn set(self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Node::Open(file) => fs::fsetxattr(file, name, value, fs::XattrFlags::empty()),
            Node::Name(dir, path) => {
                fs::lsetxattr(proc_path(dir, path), name, value, fs::XattrFlags::empty())
            }
        }
    }
    pub(super) fn unset(self, name: &[u8]) -> rustix::io::Result<()> {
        let result = match self {
            Node::Open(file) => fs::fremovexattr(file, name),
            Node::Name(dir, path) => fs::lremovexattr(proc_path(dir, path), name),
        };
        match result {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }
    /// Names on disk, all of them.
    pub(super) fn names(self) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut small = [0; 1 << 10];
        let mut large;
        let list: &[u8] = match self.list(&mut small) {
            Ok(length) => &small[..length],
            Err(Errno::RANGE) => {
                large = vec![0; 64 << 10];
                let length = self.list(&mut large)?;
                &large[..length]
            }
            Err(Errno::OPNOTSUPP) => &[],
            Err(error) => return Err(error),
        };
        Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }
    /// The file's own attributes, by the names they have in an archive, and what the union filesystem says of it.
    pub(super) fn attributes(self, form: Form) -> rustix::io::Result<Attributes> {
        let mut attributes = Attributes::default();
        for on_disk in self.names()? {
            match unescaped(form, &on_disk) {
                Some(name) if is_content(&name) => {
                    if let Some(value) = self.get(&on_disk)? {
                        attributes.xattrs.insert(name, value);
                    }
                }
                Some(_) => {}
                None if on_disk.ends_with(b".opaque") => {
                    attributes.opaque = self.get(&on_disk)?.is_some_and(|value| value == b"y");
                }
                None => {
                    attributes.elsewhere |=
                        on_disk.ends_with(b".redirect") || on_disk.ends_with(b".metacopy");
                }
            }
        }
        Ok(attributes)
    }
    pub(super) fn xattrs(self, form: Form) -> rustix::io::Result<Xattrs> {
        Ok(self.attributes(form)?.xattrs)
    }
}

#[derive(Default)]
pub(super) struct Attributes {
    pub(super) xattrs: Xattrs,
    pub(super) opaque: bool,
    /// Its content stands at another path, or below (`redirect_dir`, `metacopy`).
    pub(super) elsewhere: bool,
}

/// The mark of a deleted name.
pub(super) fn is_whiteout(
    form: Form,
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
) -> rustix::io::Result<bool> {
    match form {
        Form::Overlay | Form::OverlayUser if kind == FileType::CharacterDevice => {
            Ok(stat(dir, name)?.is_some_and(|stat| stat.st_rdev == 0))
        }
        _ => Ok(false),
    }
}

pub(super) fn make_whiteout(form: Form, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match form {
        Form::Aufs => touch(dir, &[b".wh.", name].concat()),
        _ => fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0),
    }
}

pub(super) fn remove_whiteout(form: Form, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let name = if form == Form::Aufs { [b".wh.", name].concat() } else { name.to_vec() };
    fs::unlinkat(dir, &name[..], AtFlags::empty())
}

/// Not for whole trees, which have no such mark.
pub(super) fn set_opaque(form: Form, dir: BorrowedFd<'_>, opaque: bool) -> rustix::io::Result<()> {
    match (marks(form), opaque) {
        (Some(marks), true) => Node::Open(dir).set(&[marks, b"opaque"].concat(), b"y"),
        (Some(marks), false) => Node::Open(dir).unset(&[marks, b"opaque"].concat()),
        (None, true) => touch(dir, OPAQUE),
        (None, false) => fs::unlinkat(dir, OPAQUE, AtFlags::empty()),
    }
}

/// The name of aufs' mark, and the archive's (image-spec layer.md, "Opaque Whiteout").
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// An empty file, as aufs makes its marks.
fn touch(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(0o444)).map(drop)
}

/// Changes the modification time alone, in nanoseconds.
pub(super) fn modified(mtime: i64) -> fs::Timestamps {
    fs::Timestamps {
        last_access: fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        last_modification: fs::Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000),
        },
    }
}

/// A file's path, and where it stands.
pub(super) type BeforeRemoval<'a> = dyn FnMut(&[u8], BorrowedFd<'_>, &[u8]) -> Result<()> + 'a;

/// Removes what stands at a name, whatever it is; `before` is told each file's path first.
pub(super) fn remove(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &mut Vec<u8>,
    before: &mut BeforeRemoval<'_>,
) -> Result<()> {
    let doing = |path: &[u8]| format!("removing `{}`", path.escape_ascii());
    let Some(stat) = stat(dir, name).context(|| doing(path))? else { return Ok(()) };
    if file_type(&stat) != FileType::Directory {
        if file_type(&stat) == FileType::RegularFile {
            before(path, dir, name)?;
        }
        return fs::unlinkat(dir, name, AtFlags::empty()).context(|| doing(path));
    }
    let inner = open_dir(dir, name).context(|| doing(path))?;
    for (child, _) in list(inner.as_fd()).context(|| doing(path))? {
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(&child);
        remove(inner.as_fd(), &child, path, before)?;
        path.truncate(length);
    }
    drop(inner);
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR).context(|| doing(path))
}
