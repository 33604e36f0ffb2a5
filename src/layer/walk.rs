//! Two trees side by side, or an upper directory and what it stands on: what changed goes into the archive.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Stat};

use super::archive::{Archive, Inode};
use super::pack::Root;
use super::touched::{Scope, Touched};
use super::tree::{self, Attributes, Node, OPAQUE};
use super::unpack::check_path;
use super::{Form, Kind, Packed, Row};
use crate::error::{Context, Error, Result};

pub(super) struct Walk<'a> {
    pub(super) archive: Archive<'a>,
    pub(super) new: BorrowedFd<'a>,
    /// The form of `new`; a whole tree's is compared with its parent name by name.
    pub(super) form: Form,
    pub(super) parent: Option<BorrowedFd<'a>>,
    /// What need be compared with the parent; `None`: all.
    pub(super) touched: Option<Touched>,
    pub(super) settle: bool,
    /// Times on disk become those of the archive.
    pub(super) stamp: bool,
    pub(super) clamp: Option<i64>,
    /// Changed, whatever stood there before.
    pub(super) always: HashSet<Vec<u8>>,
    /// All times are this one.
    pub(super) time: Option<i64>,
    pub(super) root: Root<'a>,
    pub(super) way: Way,
}

/// How far it came.
#[derive(Default)]
pub(super) struct Way {
    path: Vec<u8>,
    /// Directories on the way that did not change themselves: in the archive once something in them did.
    pending: Vec<Row>,
    written: usize,
    /// The names of files with several.
    pub(super) names: Option<HashMap<Inode, Vec<Vec<u8>>>>,
    /// Whether one of a file's names changed.
    pub(super) groups: HashMap<Inode, bool>,
}

/// What stood at the place of a directory.
#[derive(Clone, Copy)]
enum Old<'o> {
    /// Nobody says.
    Unknown,
    Nothing,
    Dir(BorrowedFd<'o>),
    /// Something that is no directory.
    Other,
}

/// A directory to go through.
struct Here<'h> {
    dir: BorrowedFd<'h>,
    row: Row,
    old: Old<'h>,
    scope: Scope<'h>,
    /// Nothing of the same name shows from below.
    covered: bool,
    /// Itself, apart from what is in it.
    changed: bool,
    /// As marked on disk.
    opaque: bool,
    mtime_on_disk: i64,
}

impl Walk<'_> {
    pub(super) fn run(mut self) -> Result<Packed> {
        let touched = match self.touched.take() {
            Some(touched) => self.with_links(touched)?,
            None => None,
        };
        self.root(touched.as_ref().map_or(Scope::All, Scope::of))?;
        self.archive.finish()
    }

    pub(super) fn doing(&self) -> impl FnOnce() -> String + use<> {
        let path = self.way.path.escape_ascii().to_string();
        move || format!("packing `{path}`")
    }

    fn root(&mut self, scope: Scope<'_>) -> Result<()> {
        let stat = fs::fstat(self.new).context(|| "packing the root")?;
        let (mut row, attributes) = self.describe(Kind::Dir, &stat, Node::Open(self.new))?;
        let mut base = Row { mode: 0o755, ..Row::bare("", Kind::Dir) };
        if let Some(parent) = self.parent {
            let stat = fs::fstat(parent).context(|| "packing the root")?;
            (base.mode, base.uid, base.gid) = (tree::permissions(&stat), stat.st_uid, stat.st_gid);
            base.xattrs = Node::Open(parent).xattrs(Form::Whole).context(|| "packing the root")?;
        }
        base.mtime = row.mtime;
        let changed = match self.root {
            Root::WhereItDiffers => base != row,
            Root::Left => false,
            Root::In(_) => {
                row = Row { mode: 0o755, mtime: row.mtime, ..Row::bare("", Kind::Dir) };
                true
            }
        };
        let here = Here {
            dir: self.new,
            changed,
            old: self.parent.map_or(Old::Unknown, Old::Dir),
            scope,
            covered: self.form == Form::Whole || attributes.opaque,
            opaque: attributes.opaque,
            mtime_on_disk: nanoseconds(&stat),
            row,
        };
        self.dir(here).map(drop)
    }

    /// Whether anything of it is in the archive.
    fn dir(&mut self, here: Here<'_>) -> Result<bool> {
        let Here { dir, mut row, old, scope, covered, changed, .. } = here;
        let is_root = row.path.is_empty();
        let mut names = Vec::new();
        let (mut whiteouts, mut sockets) = (Vec::new(), Vec::new());
        let mut marked = here.opaque;
        let mut touched = false;
        for (name, kind) in tree::list(dir).context(self.doing())? {
            if kind == FileType::Socket {
                touched |= self.drop_name(dir, &name, AtFlags::empty())?;
                sockets.push(name);
            } else if self.form == Form::Aufs && name.starts_with(b".wh.") {
                marked |= name == OPAQUE;
                if !name.starts_with(b".wh..wh.") {
                    whiteouts.push(name[b".wh.".len()..].to_vec());
                }
            } else if tree::is_whiteout(self.form, dir, &name, kind).context(self.doing())? {
                whiteouts.push(name);
            } else if name.starts_with(b".wh.") {
                let path = [&self.way.path[..], b"/", &name].concat();
                return Err(Error::unsupported(format!("`{}` cannot be in a layer", path.escape_ascii()))
                    .hint("in archives, names that begin with `.wh.` stand for deleted files: rename it"));
            } else {
                names.push((name, kind));
            }
        }
        let covered = covered || marked;
        let (mut gone, all_gone) = self.gone(&names, &whiteouts, &sockets, old, covered)?;
        row.opaque = match old {
            Old::Unknown => marked,
            Old::Nothing => false,
            Old::Other => true,
            Old::Dir(_) => !is_root && all_gone && gone.len() > 1,
        };
        if row.opaque && !matches!(old, Old::Unknown) {
            gone.clear();
        }
        let (opaque, mtime) = (row.opaque, row.mtime);
        let now = changed || opaque;
        if now {
            self.write_pending()?;
            self.archive.node(row, None)?;
        } else if !is_root {
            self.way.pending.push(row);
        }
        let (mut next_name, mut next_gone) = (names.iter().peekable(), gone.iter().peekable());
        loop {
            let order = match (next_name.peek(), next_gone.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((name, _)), Some(gone)) => name.cmp(gone),
            };
            if order == Ordering::Greater {
                let length = self.push(next_gone.next().expect("peeked"));
                self.write_pending()?;
                self.archive.whiteout(&self.way.path)?;
                self.way.path.truncate(length);
            } else {
                let (name, kind) = next_name.next().expect("peeked");
                let Some(scope) = scope.at(name) else { continue };
                let length = self.push(name);
                touched |= self.name(dir, name, *kind, old, scope, covered)?;
                self.way.path.truncate(length);
            }
        }
        let mut kept = true;
        if !now && !is_root {
            kept = self.way.pending.len() <= self.way.written;
            self.way.pending.pop();
            self.way.written = self.way.written.min(self.way.pending.len());
        }
        if self.settle {
            touched |= self.settle_marks(dir, &whiteouts, &gone, marked, opaque)?;
            if touched || mtime.div_euclid(SECOND) < here.mtime_on_disk.div_euclid(SECOND) {
                fs::futimens(dir, &tree::modified(mtime)).context(self.doing())?;
            }
        } else if self.stamp
            && if is_root { now } else { kept }
            && mtime.div_euclid(SECOND) < here.mtime_on_disk.div_euclid(SECOND)
        {
            fs::futimens(dir, &tree::modified(mtime)).context(self.doing())?;
        }
        Ok(kept)
    }

    fn push(&mut self, name: &[u8]) -> usize {
        let length = self.way.path.len();
        if length > 0 {
            self.way.path.push(b'/');
        }
        self.way.path.extend_from_slice(name);
        length
    }

    /// Names that stood there before and are gone, and whether no name of before is left.
    fn gone(
        &self,
        names: &[(Vec<u8>, FileType)],
        whiteouts: &[Vec<u8>],
        sockets: &[Vec<u8>],
        old: Old<'_>,
        covered: bool,
    ) -> Result<(Vec<Vec<u8>>, bool)> {
        let Old::Dir(old) = old else {
            let known = !matches!(old, Old::Unknown);
            return Ok((if known { Vec::new() } else { whiteouts.to_vec() }, false));
        };
        let before = || -> Result<Vec<Vec<u8>>> {
            let list = tree::list(old).context(self.doing())?;
            Ok(list.into_iter().filter(|(_, kind)| *kind != FileType::Socket).map(|(name, _)| name).collect())
        };
        if covered {
            let before = before()?;
            let count = before.len();
            let is_here = |name: &Vec<u8>| names.binary_search_by(|(here, _)| here.cmp(name)).is_ok();
            let gone: Vec<_> = before.into_iter().filter(|name| !is_here(name)).collect();
            let all = gone.len() == count;
            return Ok((gone, all));
        }
        // No archive has sockets: what one stands in place of is gone.
        let mut hidden = [whiteouts, sockets].concat();
        hidden.sort_unstable();
        let mut gone = Vec::new();
        for name in hidden {
            let stat = tree::stat(old, &name).context(self.doing())?;
            if stat.is_some_and(|stat| tree::kind(&stat).is_some()) {
                gone.push(name);
            }
        }
        // Listing the directory below is only worth it when it may have lost everything.
        let all = gone.len() > 1 && before()?.len() == gone.len();
        Ok((gone, all))
    }

    /// Whether the name was removed from disk.
    fn name(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        old: Old<'_>,
        scope: Scope<'_>,
        covered: bool,
    ) -> Result<bool> {
        let before = match old {
            Old::Dir(old) => tree::stat(old, name).context(self.doing())?,
            _ => None,
        };
        let before = before.filter(|stat| tree::kind(stat).is_some());
        if kind == FileType::Directory {
            return self.subdirectory(dir, name, old, before, scope, covered);
        }
        let (file, stat) = match kind {
            FileType::RegularFile => {
                let file = tree::open_file(dir, name).context(self.doing())?;
                let stat = fs::fstat(&file).context(self.doing())?;
                (Some(file), stat)
            }
            _ => {
                let stat = tree::stat(dir, name).context(self.doing())?;
                (None, stat.ok_or_else(|| Error::conflict("it went away")).context(self.doing())?)
            }
        };
        let node = file.as_ref().map_or(Node::Name(dir, name), |file| Node::Open(file.as_fd()));
        let kind =
            tree::kind(&stat).ok_or_else(|| Error::conflict("it became a socket")).context(self.doing())?;
        let (mut row, _) = self.describe(kind, &stat, node)?;
        if kind == Kind::Symlink {
            row.target = fs::readlinkat(dir, name, Vec::new()).context(self.doing())?.into_bytes();
        }
        let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        let unchanged = match (old, &before) {
            _ if self.is_said() => false,
            (Old::Dir(old), Some(before)) => self.equal(&row, &stat, file.as_ref(), old, name, before)?,
            _ => false,
        };
        if unchanged && !inode.map_or(Ok(false), |inode| self.group_changed(inode))? {
            return self.drop_name(dir, name, AtFlags::empty());
        }
        self.write_pending()?;
        if self.stamp && row.mtime.div_euclid(SECOND) < stat.st_mtime {
            fs::utimensat(dir, name, &tree::modified(row.mtime), AtFlags::SYMLINK_NOFOLLOW)
                .context(self.doing())?;
        }
        match file {
            Some(file) => self.archive.file(row, &file, inode).context(self.doing())?,
            None => self.archive.node(row, inode).context(self.doing())?,
        }
        Ok(false)
    }

    fn subdirectory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        old: Old<'_>,
        before: Option<Stat>,
        scope: Scope<'_>,
        covered: bool,
    ) -> Result<bool> {
        // It takes some of the stack, too.
        check_path(&self.way.path)?;
        let inner = tree::open_dir(dir, name).context(self.doing())?;
        let stat = fs::fstat(&inner).context(self.doing())?;
        let (row, attributes) = self.describe(Kind::Dir, &stat, Node::Open(inner.as_fd()))?;
        let old_inner;
        let (old, changed) = match (old, before) {
            (Old::Unknown, _) => (Old::Unknown, true),
            (_, None) => (Old::Nothing, true),
            (Old::Dir(old), Some(before)) if tree::kind(&before) == Some(Kind::Dir) => {
                old_inner = tree::open_dir(old, name).context(self.doing())?;
                let node = Node::Open(old_inner.as_fd());
                let changed = self.is_said() || !self.same_metadata(&row, &stat, &before, node)?;
                (Old::Dir(old_inner.as_fd()), changed)
            }
            _ => (Old::Other, true),
        };
        let kept = self.dir(Here {
            dir: inner.as_fd(),
            row,
            old,
            scope,
            covered: covered || attributes.opaque,
            changed,
            opaque: attributes.opaque,
            mtime_on_disk: nanoseconds(&stat),
        })?;
        drop(inner);
        if kept { Ok(false) } else { self.drop_name(dir, name, AtFlags::REMOVEDIR) }
    }

    fn is_said(&self) -> bool {
        self.always.contains(&self.way.path)
    }

    /// What is no change, or in no archive, goes when the upper is to say what the archive says.
    fn drop_name(&self, dir: BorrowedFd<'_>, name: &[u8], how: AtFlags) -> Result<bool> {
        if self.settle {
            fs::unlinkat(dir, name, how).context(self.doing())?;
        }
        Ok(self.settle)
    }

    fn write_pending(&mut self) -> Result<()> {
        for row in &self.way.pending[self.way.written..] {
            self.archive.node(row.clone(), None)?;
        }
        self.way.written = self.way.pending.len();
        Ok(())
    }

    /// A row without what only the content tells.
    pub(super) fn describe(&self, kind: Kind, stat: &Stat, node: Node<'_>) -> Result<(Row, Attributes)> {
        let attributes = node.attributes(self.form).context(self.doing())?;
        if attributes.elsewhere {
            let path = self.way.path.escape_ascii();
            return Err(Error::unsupported(format!("the content of `{path}` is not in the upper directory"))
                .hint("it was written by a mount with redirect_dir or metacopy"));
        }
        let mut row = Row::bare(self.way.path.clone(), kind);
        row.mode = if kind == Kind::Symlink { 0o777 } else { tree::permissions(stat) };
        (row.uid, row.gid) = (stat.st_uid, stat.st_gid);
        let clamped = self.clamp.map_or(stat.st_mtime, |clamp| clamp.min(stat.st_mtime));
        row.mtime = self.time.unwrap_or(clamped).saturating_mul(SECOND);
        match kind {
            Kind::File => row.size = tree::size(stat),
            Kind::Char | Kind::Block => row.rdev = tree::rdev(stat),
            _ => {}
        }
        row.xattrs.clone_from(&attributes.xattrs);
        Ok((row, attributes))
    }

    /// To the nanosecond, though archives say seconds: what is written twice within one second changed twice, and whether a
    /// layer has it must not depend on when the clock ticked. Where times are clamped the clamped ones count, too.
    fn same_time(&self, new: &Stat, old: &Stat) -> bool {
        let clamped = self.clamp.is_some_and(|clamp| clamp < new.st_mtime && clamp == old.st_mtime);
        // What nobody touched since a layer below, whose times are not ours to clamp.
        clamped || (new.st_mtime, new.st_mtime_nsec) == (old.st_mtime, old.st_mtime_nsec)
    }

    fn same_metadata(&self, row: &Row, new: &Stat, old: &Stat, node: Node<'_>) -> Result<bool> {
        let mode = if row.kind == Kind::Symlink { row.mode } else { tree::permissions(old) };
        Ok(tree::kind(old) == Some(row.kind)
            && (row.mode, row.uid, row.gid) == (mode, old.st_uid, old.st_gid)
            && self.same_time(new, old)
            && row.xattrs == node.xattrs(Form::Whole).context(self.doing())?)
    }

    /// Whether it is what stood there before, its bytes too.
    pub(super) fn equal(
        &self,
        row: &Row,
        new: &Stat,
        file: Option<&OwnedFd>,
        old: BorrowedFd<'_>,
        name: &[u8],
        before: &Stat,
    ) -> Result<bool> {
        // What costs nothing first.
        let kind = tree::kind(before);
        if kind != Some(row.kind)
            || !self.same_time(new, before)
            || (kind == Some(Kind::File) && row.size != tree::size(before))
            || (matches!(kind, Some(Kind::Char | Kind::Block)) && row.rdev != tree::rdev(before))
        {
            return Ok(false);
        }
        if !self.same_metadata(row, new, before, Node::Name(old, name))? {
            return Ok(false);
        }
        match (row.kind, file) {
            (Kind::Symlink, _) => {
                let target = fs::readlinkat(old, name, Vec::new()).context(self.doing())?;
                Ok(target.as_bytes() == row.target)
            }
            (Kind::File, Some(file)) => {
                let old = tree::open_file(old, name).context(self.doing())?;
                same_bytes(file, &old).context(self.doing())
            }
            _ => Ok(true),
        }
    }

    /// Whiteouts and the opaque mark on disk become those of the archive.
    fn settle_marks(
        &self,
        dir: BorrowedFd<'_>,
        on_disk: &[Vec<u8>],
        wanted: &[Vec<u8>],
        marked: bool,
        opaque: bool,
    ) -> Result<bool> {
        let mut touched = false;
        for name in on_disk.iter().filter(|name| wanted.binary_search(name).is_err()) {
            tree::remove_whiteout(self.form, dir, name).context(self.doing())?;
            touched = true;
        }
        for name in wanted.iter().filter(|name| on_disk.binary_search(name).is_err()) {
            tree::make_whiteout(self.form, dir, name).context(self.doing())?;
            touched = true;
        }
        if marked != opaque {
            tree::set_opaque(self.form, dir, opaque).context(self.doing())?;
        }
        Ok(touched)
    }
}

const SECOND: i64 = 1_000_000_000;

fn nanoseconds(stat: &Stat) -> i64 {
    stat.st_mtime.saturating_mul(SECOND)
}

fn same_bytes(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut offset = 0;
    loop {
        let count = rustix::io::pread(a, &mut left, offset)?;
        if count == 0 {
            return Ok(rustix::io::pread(b, &mut right, offset)? == 0);
        }
        let mut done = 0;
        while done < count {
            let read = rustix::io::pread(b, &mut right[..count - done], offset + done as u64)?;
            if read == 0 || left[done..done + read] != right[..read] {
                return Ok(false);
            }
            done += read;
        }
        offset += count as u64;
    }
}
