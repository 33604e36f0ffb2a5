//! An untrusted archive written into a directory.

use std::io::{Read, Write};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid};
use rustix::io::Errno;

use super::target::{Below, Saver, Target};
use super::tree::{self, Node, Parents};
use super::twins::{Shared, Twins};
use super::unpack::unpack;
use super::{Form, Kind, Row, RowSink};
use crate::error::{Context, Error, Result};
use crate::image::{DiffId, Hasher};
use crate::job::Job;
use crate::sys::tree::own;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the files in it, each inode once.
    pub bytes: u64,
    pub rows: u64,
    /// The archive leaves out parent directories or links to files it does not hold: what it means depends on what
    /// lies below. Unless nothing does, the tree is to be thrown away and made again with `Form::Whole` over the
    /// mounted parent.
    pub leans: bool,
    /// What the first hard link that leads nowhere names; on top of nothing, such a layer is broken.
    pub dangling: Option<Vec<u8>>,
    /// The layer is opaque at its root: it hides all that lies below.
    pub opaque_root: bool,
}

/// Writes the archive's changes below `tree` in the given form. Nothing outside `tree` is touched, whatever the
/// archive says. On error `tree` holds some part of it and is to be thrown away.
/// The digest is the caller's to compare, before anything is made visible.
pub fn apply(
    job: &Job,
    tar: &mut dyn Read,
    tree: BorrowedFd<'_>,
    form: Form,
    rows: &mut dyn RowSink,
    recipe: &mut dyn Write,
) -> Result<Applied> {
    apply_sharing(job, tar, None, tree, form, rows, recipe)
}

/// The same; `files` is a tree that has the archive's files at the paths that it says: their blocks are shared with it where
/// the filesystem can (ioctl_ficlone(2)). Each is read back and compared with the archive.
pub fn apply_sharing(
    job: &Job,
    tar: &mut dyn Read,
    files: Option<BorrowedFd<'_>>,
    tree: BorrowedFd<'_>,
    form: Form,
    rows: &mut dyn RowSink,
    recipe: &mut dyn Write,
) -> Result<Applied> {
    let twins = files.map(Twins::new);
    let mut disk = Disk { form, parents: Parents::new(tree), dirs: Vec::new(), file: None, twins };
    let done = unpack(job, tar, &mut disk, rows, Some(recipe))?;
    Ok(Applied {
        diff_id: done.diff_id,
        size: done.size,
        bytes: done.bytes,
        rows: done.rows,
        leans: done.leans,
        dangling: done.dangling,
        opaque_root: done.opaque_root,
    })
}

/// Zeros from here on are left out of a file.
const HOLE: u64 = 64 << 10;
const PAGE: u64 = 4 << 10;
static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

struct Disk<'a> {
    form: Form,
    parents: Parents<'a>,
    /// What directories get at the very end: their times, which every change in them moves, and the attributes that
    /// new files would inherit.
    dirs: Vec<(Vec<u8>, i64, Option<Vec<u8>>)>,
    file: Option<OpenFile>,
    twins: Option<Twins<'a>>,
}

struct OpenFile {
    file: OwnedFd,
    /// Where the bytes so far end.
    end: u64,
    /// Zeros not written yet begin here.
    zeros: Option<u64>,
    small: bool,
    /// It has all its bytes already: they are compared in place of being written.
    shared: Option<Shared>,
}

fn failed(doing: &str, path: &[u8]) -> impl FnOnce() -> String {
    let text = format!("{doing} `{}`", path.escape_ascii());
    move || text
}

/// A privilege we lack is worth a hint.
fn explain<T>(result: rustix::io::Result<T>, doing: &str, path: &[u8]) -> Result<T> {
    let hint = match &result {
        Err(Errno::PERM) => "only root may do that: run as root, or in a user namespace with enough ids",
        Err(Errno::OPNOTSUPP) => {
            "the filesystem below the store cannot keep this: put the store on another one"
        }
        Err(Errno::MLINK) => "the filesystem below the store allows no more names for one file",
        _ => return result.context(failed(doing, path)),
    };
    result.context(failed(doing, path)).map_err(|error| error.hint(hint))
}

impl<'a> Disk<'a> {
    fn at<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p [u8])> {
        let (parent, name) = tree::split(path);
        let dir = self.parents.dir(parent).context(failed("opening the directory", parent))?;
        Ok((dir, name))
    }

    /// Over the mounted parent something may stand where the archive puts its own.
    fn make(
        &mut self,
        path: &[u8],
        doing: &str,
        mut make: impl FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<()> {
        let whole = self.form == Form::Whole;
        let (dir, name) = self.at(path)?;
        match make(dir, name) {
            Err(Errno::EXIST) if whole => {
                tree::remove(dir, name, &mut path.to_vec(), &mut |_, _, _| Ok(()))?;
                self.parents.forget();
                let (dir, name) = self.at(path)?;
                explain(make(dir, name), doing, path)
            }
            other => explain(other, doing, path),
        }
    }

    /// Owner, mode, attributes: a change of owner clears set-id bits and capabilities, so they come after it.
    fn describe(&self, file: BorrowedFd<'_>, row: &Row) -> Result<()> {
        let path = &row.path;
        let (uid, gid) = (Uid::from_raw(row.uid), Gid::from_raw(row.gid));
        explain(fs::fchown(file, Some(uid), Some(gid)), "changing the owner of", path)?;
        explain(fs::fchmod(file, Mode::from_raw_mode(row.mode)), "changing the mode of", path)?;
        self.attribute(file, row)
    }

    fn attribute(&self, file: BorrowedFd<'_>, row: &Row) -> Result<()> {
        if self.form == Form::Whole {
            self.drop_inherited(Node::Open(file), row)?;
        }
        self.set_xattrs(Node::Open(file), row)
    }

    /// What a directory of the parent had, or gave to what was made in it.
    fn drop_inherited(&self, node: Node<'_>, row: &Row) -> Result<()> {
        for name in node.names().context(failed("reading the attributes of", &row.path))? {
            if tree::is_content(&name) && !row.xattrs.contains_key(&name) {
                explain(node.unset(&name), "removing an attribute of", &row.path)?;
            }
        }
        Ok(())
    }

    fn set_xattrs(&self, node: Node<'_>, row: &Row) -> Result<()> {
        for (name, value) in row.xattrs.iter().filter(|(name, _)| *name != DEFAULT_ACL) {
            let doing = || format!("setting `{}` on", name.escape_ascii());
            explain(node.set(&tree::escaped(self.form, name), value), &doing(), &row.path)?;
        }
        Ok(())
    }
}

fn mknod(dir: BorrowedFd<'_>, name: &[u8], row: &Row) -> rustix::io::Result<()> {
    let kind = match row.kind {
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = fs::makedev(row.rdev.0, row.rdev.1);
    fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
}

impl Target for Disk<'_> {
    fn below(&mut self, path: &[u8]) -> Result<Below> {
        // A layer alone holds nothing but what the archive put there.
        if self.form != Form::Whole {
            return Ok(Below::Nothing);
        }
        let (dir, name) = self.at(path)?;
        look(dir, name).context(failed("looking at", path))
    }

    fn below_row(&mut self, path: &[u8]) -> Result<Option<Row>> {
        if self.form != Form::Whole {
            return Ok(None);
        }
        let (parent, name) = tree::split(path);
        match self.parents.dir(parent) {
            Ok(dir) => row_on_disk(dir, name, path, self.form),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).context(failed("opening the directory", parent)),
        }
    }

    fn dangling(&mut self, _: &[u8], target: &[u8]) -> Result<()> {
        if self.form == Form::Whole {
            let target = target.escape_ascii();
            return Err(Error::invalid(format!("a hard link to `{target}`, which is not in the image"))
                .hint("this layer belongs on top of another one, or is damaged"));
        }
        Ok(())
    }

    fn dir(&mut self, row: &Row, came_before: bool) -> Result<()> {
        let form = self.form;
        if row.path.is_empty() {
            let root = self.parents.dir(b"").context(failed("opening", b"/"))?;
            let root = tree::open_dir(root, b".").context(failed("opening", b"/"))?;
            self.describe(root.as_fd(), row)?;
            if row.implied {
                return Ok(());
            }
        } else {
            let (dir, name) = self.at(&row.path)?;
            let mut made = false;
            if !came_before {
                match fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) => made = true,
                    Err(Errno::EXIST) if form == Form::Whole => {
                        let stat = tree::stat(dir, name).context(failed("looking at", &row.path))?;
                        if stat.is_none_or(|stat| tree::file_type(&stat) != FileType::Directory) {
                            tree::remove(dir, name, &mut row.path.clone(), &mut |_, _, _| Ok(()))?;
                            fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))
                                .context(failed("making the directory", &row.path))?;
                            made = true;
                        } else if row.implied {
                            // It stays what it is, times too.
                            let stat = stat.expect("matched");
                            let mtime = stat.st_mtime.saturating_mul(1_000_000_000);
                            let mtime = mtime.saturating_add(stat.st_mtime_nsec.try_into().unwrap_or(0));
                            self.dirs.push((row.path.clone(), mtime, None));
                            return Ok(());
                        }
                    }
                    other => return explain(other, "making the directory", &row.path),
                }
            }
            let dir = tree::open_dir(dir, name).context(failed("opening the directory", &row.path))?;
            debug_assert!(made || !row.implied, "implied directories are new or left alone");
            self.describe(dir.as_fd(), row)?;
        }
        self.dirs.push((row.path.clone(), row.mtime, row.xattrs.get(DEFAULT_ACL).cloned()));
        Ok(())
    }

    fn node(&mut self, row: &Row) -> Result<()> {
        match row.kind {
            Kind::Symlink => self.make(&row.path, "making the symbolic link", |dir, name| {
                fs::symlinkat(&row.target[..], dir, name)
            })?,
            _ => self.make(&row.path, "making the device or fifo", |dir, name| mknod(dir, name, row))?,
        }
        let path = &row.path;
        let whole = self.form == Form::Whole;
        let (dir, name) = self.at(path)?;
        let owner = (Some(Uid::from_raw(row.uid)), Some(Gid::from_raw(row.gid)));
        explain(
            fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW),
            "changing the owner of",
            path,
        )?;
        if row.kind != Kind::Symlink {
            let mode = Mode::from_raw_mode(row.mode);
            explain(fs::chmodat(dir, name, mode, AtFlags::empty()), "changing the mode of", path)?;
        }
        let time = tree::modified(row.mtime);
        // The directory's descriptor outlives the borrow that says so.
        let dir = dir.try_clone_to_owned().context(failed("opening", path))?;
        let node = Node::Name(dir.as_fd(), name);
        if whole && row.kind != Kind::Symlink {
            self.drop_inherited(node, row)?;
        }
        self.set_xattrs(node, row)?;
        explain(fs::utimensat(&dir, name, &time, AtFlags::SYMLINK_NOFOLLOW), "setting the time of", path)
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let (parent, target_name) = tree::split(target);
        let from = self.parents.dir(parent).context(failed("opening the directory", parent))?;
        let from = from.try_clone_to_owned().context(failed("opening", parent))?;
        self.make(path, "making the hard link", |dir, name| {
            fs::linkat(&from, target_name, dir, name, AtFlags::empty())
        })
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let form = self.form;
        let (dir, name) = self.at(path)?;
        match form {
            Form::Whole => {
                tree::remove(dir, name, &mut path.to_vec(), &mut |_, _, _| Ok(()))?;
                self.parents.forget();
                Ok(())
            }
            _ => explain(tree::make_whiteout(form, dir, name), "making the whiteout of", path),
        }
    }

    fn opaque(&mut self, path: &[u8], ours: &dyn Fn(&[u8]) -> bool) -> Result<()> {
        let form = self.form;
        let dir = self.parents.dir(path).context(failed("opening the directory", path))?;
        if form != Form::Whole {
            return explain(tree::set_opaque(form, dir, true), "marking as opaque", path);
        }
        remove_foreign(dir, &mut path.to_vec(), ours)?;
        self.parents.forget();
        Ok(())
    }

    fn remove(&mut self, path: &[u8], kind: Kind, saver: &mut dyn Saver) -> Result<()> {
        let form = self.form;
        let (dir, name) = self.at(path)?;
        if kind == Kind::Whiteout {
            if form != Form::Whole {
                explain(tree::remove_whiteout(form, dir, name), "removing the whiteout of", path)?;
            }
            return Ok(());
        }
        tree::remove(dir, name, &mut path.to_vec(), &mut |path, dir, name| {
            if saver.wants(path) { save(dir, name, path, saver) } else { Ok(()) }
        })?;
        self.parents.forget();
        Ok(())
    }

    fn create(&mut self, row: &Row) -> Result<()> {
        let access = if self.twins.is_some() { OFlags::RDWR } else { OFlags::WRONLY };
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        self.make(&row.path, "making the file", |dir, name| {
            file = Some(fs::openat(dir, name, flags, Mode::from_raw_mode(row.mode & 0o777))?);
            Ok(())
        })?;
        let file = file.expect("made above");
        let small = row.size < HOLE;
        let shared = match &mut self.twins {
            // It costs more than it saves.
            Some(twins) if !small => {
                twins.share(&row.path, row.size, &file).context(failed("making", &row.path))?
            }
            _ => None,
        };
        self.file = Some(OpenFile { file, end: 0, zeros: None, small, shared });
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().expect("created before");
        if let Some(shared) = &mut file.shared {
            return shared.compare(&file.file, offset, bytes);
        }
        file.write(offset, bytes).context(|| "writing a file")
    }

    fn close(&mut self, row: &Row) -> Result<()> {
        let mut file = self.file.take().expect("created before");
        match &mut file.shared {
            Some(shared) => shared.end(&file.file, row.size)?,
            None => file.end(row.size).context(failed("writing", &row.path))?,
        }
        let owned = own(file.file.as_fd(), (row.uid, row.gid), row.mode);
        explain(owned, "changing the owner or mode of", &row.path)?;
        self.attribute(file.file.as_fd(), row)?;
        fs::futimens(&file.file, &tree::modified(row.mtime)).context(failed("setting the time of", &row.path))
    }

    fn finish(&mut self) -> Result<()> {
        for (path, mtime, acl) in std::mem::take(&mut self.dirs) {
            let (parent, name) = tree::split(&path);
            // A later member may have put something else there.
            let opened = self.parents.dir(parent).and_then(|dir| tree::open_dir(dir, name));
            let dir = match opened {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.context(failed("opening the directory", &path))?,
            };
            if let Some(acl) = acl {
                explain(Node::Open(dir.as_fd()).set(DEFAULT_ACL, &acl), "setting the access list of", &path)?;
            }
            fs::futimens(&dir, &tree::modified(mtime)).context(failed("setting the time of", &path))?;
        }
        Ok(())
    }
}

impl OpenFile {
    /// Long runs of zeros become holes. A run may go over many calls.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> rustix::io::Result<()> {
        if self.small {
            self.end = offset + bytes.len() as u64;
            return write_all(&self.file, offset, bytes);
        }
        if offset != self.end {
            self.end_zeros()?;
        }
        // What is not written yet of `bytes`, unless zeros have begun.
        let mut from = 0;
        let mut at = 0;
        while at < bytes.len() {
            let to_border = usize::try_from(PAGE - (offset + at as u64) % PAGE).expect("a page");
            let end = bytes.len().min(at + to_border);
            let part = &bytes[at..end];
            if *part == ZEROS[..part.len()] {
                if self.zeros.is_none() {
                    write_all(&self.file, offset + from as u64, &bytes[from..at])?;
                    self.zeros = Some(offset + at as u64);
                }
            } else if self.zeros.is_some() {
                self.end = offset + at as u64;
                self.end_zeros()?;
                from = at;
            }
            at = end;
        }
        self.end = offset + bytes.len() as u64;
        match self.zeros {
            Some(_) => Ok(()),
            None => write_all(&self.file, offset + from as u64, &bytes[from..]),
        }
    }

    /// Zeros from `self.zeros` to `self.end` are left out, or written when they are few.
    fn end_zeros(&mut self) -> rustix::io::Result<()> {
        let Some(start) = self.zeros.take() else { return Ok(()) };
        let (first, last) = (start.next_multiple_of(PAGE), self.end - self.end % PAGE);
        let hole = last.checked_sub(first).is_some_and(|length| length >= HOLE);
        let written = if hole { [start..first, last..self.end] } else { [start..self.end, 0..0] };
        for mut range in written {
            while range.start < range.end {
                let length = (range.end - range.start).min(PAGE);
                write_all(&self.file, range.start, &ZEROS[..usize::try_from(length).expect("a page")])?;
                range.start += length;
            }
        }
        Ok(())
    }

    fn end(&mut self, size: u64) -> rustix::io::Result<()> {
        self.end_zeros()?;
        // What ends in a hole is as long as was said.
        if self.small && self.end == size { Ok(()) } else { fs::ftruncate(&self.file, size) }
    }
}

fn write_all(file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What stands at a name, for who walks through it.
pub(super) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Below> {
    let Some(stat) = tree::stat(dir, name)? else { return Ok(Below::Nothing) };
    Ok(match tree::kind(&stat) {
        Some(Kind::Dir) => Below::Dir,
        Some(Kind::Symlink) => Below::Symlink(fs::readlinkat(dir, name, Vec::new())?.into_bytes()),
        _ => Below::Other,
    })
}

/// The implied row of what stands below and has got another name.
pub(super) fn row_on_disk(dir: BorrowedFd<'_>, name: &[u8], path: &[u8], form: Form) -> Result<Option<Row>> {
    let doing = || format!("reading `{}`", path.escape_ascii());
    let Some(stat) = tree::stat(dir, name).context(doing)? else { return Ok(None) };
    let Some(kind) = tree::kind(&stat) else { return Ok(None) };
    let mut row = Row { implied: true, ..Row::bare(path.to_vec(), kind) };
    (row.mode, row.uid, row.gid) = (tree::permissions(&stat), stat.st_uid, stat.st_gid);
    row.mtime = stat.st_mtime.saturating_mul(1_000_000_000);
    match kind {
        Kind::File => {
            let file = tree::open_file(dir, name).context(doing)?;
            row.xattrs = Node::Open(file.as_fd()).xattrs(form).context(doing)?;
            row.size = tree::size(&stat);
            let mut hasher = Hasher::new();
            std::io::copy(&mut std::fs::File::from(file), &mut hasher).context(doing)?;
            row.digest = Some(hasher.finish());
            return Ok(Some(row));
        }
        Kind::Symlink => row.target = fs::readlinkat(dir, name, Vec::new()).context(doing)?.into_bytes(),
        Kind::Char | Kind::Block => row.rdev = tree::rdev(&stat),
        _ => {}
    }
    row.xattrs = Node::Name(dir, name).xattrs(form).context(doing)?;
    Ok(Some(row))
}

/// The data of a file, without its holes.
fn save(dir: BorrowedFd<'_>, name: &[u8], path: &[u8], saver: &mut dyn Saver) -> Result<()> {
    let doing = || format!("reading `{}`", path.escape_ascii());
    let file = tree::open_file(dir, name).context(doing)?;
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    loop {
        let start = match fs::seek(&file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error).context(doing),
        };
        let end = fs::seek(&file, SeekFrom::Hole(start)).context(doing)?;
        offset = start;
        while offset < end {
            let part = buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let count = rustix::io::pread(&file, &mut buffer[..part], offset).context(doing)?;
            if count == 0 {
                return Ok(());
            }
            saver.save(offset, &buffer[..count])?;
            offset += count as u64;
        }
    }
}

/// Removes what is not of this layer from a directory that is to hide what lies below.
fn remove_foreign(dir: BorrowedFd<'_>, path: &mut Vec<u8>, ours: &dyn Fn(&[u8]) -> bool) -> Result<()> {
    let doing = |path: &[u8]| format!("emptying `{}`", path.escape_ascii());
    for (name, _) in tree::list(dir).context(|| doing(path))? {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        if !ours(path) {
            tree::remove(dir, &name, path, &mut |_, _, _| Ok(()))?;
        } else if let Ok(inner) = tree::open_dir(dir, &name) {
            remove_foreign(inner.as_fd(), path, ours)?;
        }
        path.truncate(length);
    }
    Ok(())
}
