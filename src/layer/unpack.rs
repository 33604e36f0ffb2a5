//! What an archive's members mean, one after the other: the same for who writes them down and for who only reads.
//!
//! * A path is made of names; symbolic links in its directories are followed inside the root, so that rows and files
//!   stand at the same place. `..` and absolute names are refused.
//! * What comes later stands; what it replaces is gone, except that a directory keeps its content when it comes again.
//! * Whiteouts delete from below the layer, never from the layer itself, in whatever order they come
//!   (image-spec layer.md). For a directory of the layer a whiteout means that it is opaque.
//! * A 0:0 character device is a whiteout, as it would be one on overlayfs.
//! * A hard link is another name; the metadata in its header counts for nothing.

use std::io::{Read, Write};

use super::hashing::{Hashing, RowQueue, SMALL};
use super::read::{Member, Reader, Type};
use super::recipe::Recipe;
use super::seen::{ROOT, Seen, implied_dir};
use super::target::{Below, Saver, Target};
use super::tree::{self, OPAQUE, Xattrs};
use super::{Kind, Row, RowSink};
use crate::error::{Context, Error, Result};
use crate::image::{DiffId, Hasher};
use crate::job::Job;

/// Symbolic links followed on the way to one member (Linux: 40).
const FOLLOWED: usize = 40;
/// Names in one path; every one costs a descriptor when the tree is removed.
const DEPTH: usize = 500;
/// Bytes of a path (PATH_MAX, with its NUL) and of a name (NAME_MAX).
const PATH: usize = 4095;
const NAME: usize = 255;
/// Bytes of holes in an archive: they cost it nothing, and us time.
const HOLES: u64 = 1 << 40;
const HARM: &str = "this archive is damaged, or made to do harm";

#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) diff_id: DiffId,
    pub(super) size: u64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) leans: bool,
    pub(super) dangling: Option<Vec<u8>>,
    pub(super) opaque_root: bool,
}

pub(super) fn unpack(
    job: &Job,
    tar: &mut dyn Read,
    target: &mut dyn Target,
    rows: &mut dyn RowSink,
    recipe: Option<&mut dyn Write>,
) -> Result<Unpacked> {
    std::thread::scope(|scope| {
        let archive = Hashing::start(scope, None);
        let files = Hashing::start(scope, None);
        let mut unpack = Unpack {
            job,
            reader: Reader::new(tar, &archive),
            files: &files,
            target,
            rows: RowQueue::new(rows),
            recipe: match recipe {
                Some(out) => Some(Recipe::new(out)?),
                None => None,
            },
            seen: Seen::new(),
            implied: Vec::new(),
            last_parent: None,
            holes: 0,
            leans: false,
            dangling: None,
        };
        unpack.run()?;
        let Unpack { reader, recipe, seen, leans, dangling, .. } = unpack;
        let size = reader.offset();
        archive.end()?;
        let digest = archive.digest()?;
        if let Some(recipe) = recipe {
            recipe.finish(size, &digest)?;
        }
        let (rows, bytes) = seen.totals();
        let opaque_root = seen.slot(ROOT).opaque;
        Ok(Unpacked { diff_id: DiffId(digest), size, bytes, rows, leans, dangling, opaque_root })
    })
}

struct Unpack<'a> {
    job: &'a Job,
    reader: Reader<'a>,
    files: &'a Hashing,
    target: &'a mut dyn Target,
    rows: RowQueue<'a>,
    recipe: Option<Recipe<'a>>,
    seen: Seen,
    /// Paths that got no row yet.
    implied: Vec<Vec<u8>>,
    /// The directory of the member before, as the archive names it and as it is.
    last_parent: Option<(Vec<u8>, Vec<u8>, u32)>,
    holes: u64,
    leans: bool,
    dangling: Option<Vec<u8>>,
}

/// Where a member belongs: canonical path, the slot of its directory, what the archive put there before.
struct Place {
    path: Vec<u8>,
    parent: u32,
    before: Option<u32>,
}

impl Unpack<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(member) = self.reader.next()? {
            self.job.check()?;
            self.keep_literal()?;
            self.member(&member).context(|| format!("unpacking `{}`", member.name.escape_ascii()))?;
            self.rows.advance(self.files, |slot, digest| self.seen.learn(slot, digest))?;
        }
        self.keep_literal()?;
        while self.reader.junk()? {
            self.job.check()?;
            self.keep_literal()?;
        }
        self.flush()?;
        if self.seen.slot(ROOT).opaque && self.seen.slot(ROOT).implied {
            self.implied.push(Vec::new());
        }
        for path in std::mem::take(&mut self.implied) {
            if let Some(at) = self.seen.find(&path).filter(|at| self.seen.slot(*at).implied) {
                self.rows.row(self.seen.row(at, &path), false)?;
            }
        }
        self.target.finish()
    }

    fn keep_literal(&mut self) -> Result<()> {
        if let Some(recipe) = &mut self.recipe {
            recipe.literal(&self.reader.literal)?;
        }
        self.reader.literal.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.rows.flush(self.files, |slot, digest| self.seen.learn(slot, digest))
    }

    fn member(&mut self, member: &Member) -> Result<()> {
        let names = names(&member.name)?;
        let marks: Vec<usize> = (0..names.len()).filter(|at| names[*at].starts_with(b".wh.")).collect();
        let last = names.last().copied().unwrap_or_default();
        // What aufs keeps for itself at the root of a branch, and what is in it.
        let private = names.first().is_some_and(|first| first.starts_with(b".wh..wh.") && *first != OPAQUE);
        if private || member.kind == Type::Other || (last.starts_with(b".wh..wh.") && last != OPAQUE) {
            return self.skip_data();
        }
        if marks.iter().any(|at| at + 1 != names.len()) {
            return Err(Error::invalid("a name inside a whiteout").hint(HARM));
        }
        if names.is_empty() {
            if member.kind != Type::Dir {
                return Err(Error::invalid("the root is not a directory").hint(HARM));
            }
            let place = Place { path: Vec::new(), parent: ROOT, before: Some(ROOT) };
            return self.dir(member, place);
        }
        let (parent_path, parent) = self.parent(&names[..names.len() - 1])?;
        if last == OPAQUE {
            self.opaque(parent, &parent_path)?;
            return self.skip_data();
        }
        if let Some(deleted) = last.strip_prefix(b".wh.") {
            if matches!(deleted, b"" | b"." | b"..") {
                return Err(Error::invalid("a whiteout of nothing").hint(HARM));
            }
            self.whiteout(self.place(parent_path, parent, deleted))?;
            return self.skip_data();
        }
        let place = self.place(parent_path, parent, last);
        match member.kind {
            Type::Dir => self.dir(member, place),
            Type::File => self.file(member, place),
            Type::Link => self.link(member, place),
            Type::Char if member.rdev == (0, 0) => self.whiteout(place),
            Type::Symlink => self.node(member, Kind::Symlink, place),
            Type::Char => self.node(member, Kind::Char, place),
            Type::Block => self.node(member, Kind::Block, place),
            Type::Fifo => self.node(member, Kind::Fifo, place),
            Type::Other => unreachable!("skipped above"),
        }
    }

    fn skip_data(&mut self) -> Result<()> {
        loop {
            let more = self.reader.data_as_literal()?;
            self.keep_literal()?;
            if !more {
                return Ok(());
            }
            self.job.check()?;
        }
    }

    fn place(&self, parent_path: Vec<u8>, parent: u32, name: &[u8]) -> Place {
        let path = join(parent_path, name);
        let before = self.seen.find(&path);
        Place { path, parent, before }
    }

    /// The directory that names lead to; those that the archive left out are made.
    fn parent(&mut self, names: &[&[u8]]) -> Result<(Vec<u8>, u32)> {
        let as_named = names.join(&b'/');
        if let Some((last, path, slot)) = &self.last_parent
            && *last == as_named
        {
            return Ok((path.clone(), *slot));
        }
        let path = self.walk(names, true)?.expect("missing directories are made");
        let slot = self.seen.find(&path).expect("made or found on the way");
        self.last_parent = Some((as_named, path.clone(), slot));
        Ok((path, slot))
    }

    /// Follows names from the root through directories and symbolic links; `None` when one is missing and not to
    /// be made.
    fn walk(&mut self, names: &[&[u8]], make: bool) -> Result<Option<Vec<u8>>> {
        let mut path = Vec::new();
        // The slot of `path` when `make`; what only exists below needs one no sooner.
        let mut slot = ROOT;
        let mut todo: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    path.truncate(tree::split(&path).0.len());
                    slot = if make { self.seen.find(&path).expect("walked through") } else { ROOT };
                    continue;
                }
                _ => {}
            }
            let next = join(path.clone(), &name);
            let seen = self.seen.find(&next);
            let below = match seen.map(|at| self.seen.slot(at).kind) {
                Some(Kind::Dir) => Below::Dir,
                Some(Kind::Symlink) => {
                    Below::Symlink(self.seen.symlink(seen.expect("matched")).expect("matched").to_vec())
                }
                Some(Kind::Whiteout) => Below::Nothing,
                Some(_) => Below::Other,
                None => self.target.below(&next)?,
            };
            match below {
                Below::Symlink(target) => {
                    self.leans |= seen.is_none();
                    followed += 1;
                    if followed > FOLLOWED {
                        return Err(Error::invalid("too many symbolic links on the way").hint(HARM));
                    }
                    if target.starts_with(b"/") {
                        (path, slot) = (Vec::new(), ROOT);
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                    continue;
                }
                Below::Other => {
                    return Err(Error::invalid(format!("`{}` is not a directory", next.escape_ascii())));
                }
                Below::Nothing if !make => return Ok(None),
                Below::Nothing | Below::Dir => {}
            }
            if make {
                slot = match seen {
                    Some(at) if self.seen.slot(at).kind == Kind::Dir => at,
                    _ => self.imply(slot, next.clone(), seen)?,
                };
            }
            path = next;
        }
        Ok(Some(path))
    }

    /// A directory that the archive leaves out; over a whiteout it hides what that deleted.
    fn imply(&mut self, parent: u32, path: Vec<u8>, before: Option<u32>) -> Result<u32> {
        self.leans = true;
        let mut row = implied_dir(path);
        if let Some(at) = before {
            self.clear(&row.path, at)?;
            row.opaque = true;
        }
        self.target.dir(&row, false)?;
        let at = self.seen.put(parent, &row)?;
        if row.opaque {
            self.target.opaque(&row.path, &|_| false)?;
        }
        self.seen.hold(row.path.len() + 32)?;
        self.implied.push(row.path);
        Ok(at)
    }

    /// Removes what the archive put there before; its data goes into the recipe.
    fn clear(&mut self, path: &[u8], before: u32) -> Result<()> {
        let kind = self.seen.slot(before).kind;
        let mut saver = Shadows { seen: &self.seen, recipe: self.recipe.as_mut(), file: 0 };
        self.target.remove(path, kind, &mut saver)?;
        self.last_parent = None;
        if kind == Kind::Dir { self.rows.forget(path) } else { Ok(()) }
    }

    /// Makes room for something that is no directory; whether the row to come replaces one.
    fn make_room(&mut self, place: &Place) -> Result<bool> {
        let Some(before) = place.before else { return Ok(false) };
        self.clear(&place.path, before)?;
        Ok(self.seen.slot(before).kind != Kind::Dir)
    }

    fn dir(&mut self, member: &Member, place: Place) -> Result<()> {
        let mut row = Row { digest: None, size: 0, ..row_of(member, place.path, Kind::Dir) };
        let mut replace = false;
        let mut hides = false;
        match place.before {
            Some(at) if self.seen.slot(at).kind == Kind::Dir => {
                row.opaque = self.seen.slot(at).opaque;
                replace = !self.seen.slot(at).implied;
                self.target.dir(&row, true)?;
                self.seen.update_dir(at, &row)?;
            }
            before => {
                if let Some(at) = before {
                    hides = self.seen.slot(at).kind == Kind::Whiteout;
                    self.clear(&row.path, at)?;
                    replace = true;
                }
                row.opaque = hides;
                self.target.dir(&row, false)?;
                self.seen.put(place.parent, &row)?;
            }
        }
        if hides {
            self.target.opaque(&row.path, &|_| false)?;
        }
        self.seen.hold(row.path.len() + 32)?;
        self.rows.row(row, replace)?;
        self.skip_data()
    }

    fn node(&mut self, member: &Member, kind: Kind, place: Place) -> Result<()> {
        let replace = self.make_room(&place)?;
        let mut row = row_of(member, place.path, kind);
        if kind == Kind::Symlink {
            if member.link.is_empty() {
                return Err(Error::invalid("a symbolic link without target").hint(HARM));
            }
            row.mode = 0o777;
            row.target.clone_from(&member.link);
        }
        self.target.node(&row)?;
        self.seen.put(place.parent, &row)?;
        self.rows.row(row, replace)
    }

    fn file(&mut self, member: &Member, place: Place) -> Result<()> {
        let replace = self.make_room(&place)?;
        let mut row = Row { size: member.size, ..row_of(member, place.path, Kind::File) };
        self.target.create(&row)?;
        let number = match &mut self.recipe {
            Some(recipe) if member.stored > 0 => Some(recipe.file(&row.path)?),
            _ => None,
        };
        let whole = [(0, member.size)];
        let regions = member.regions.as_deref().unwrap_or(&whole);
        // Small ones are hashed here: handing them on would cost more.
        let mut small = (member.size <= SMALL).then(Hasher::new);
        let mut hashed = 0;
        for (offset, length) in regions {
            self.hash_hole(&mut small, *offset - hashed)?;
            if let Some(recipe) = self.recipe.as_mut().filter(|_| *length > 0) {
                recipe.data(*offset, *length)?;
            }
            let mut done = 0;
            while done < *length {
                let piece = self.reader.data(*length - done)?;
                self.target.write(offset + done, &piece)?;
                done += piece.len() as u64;
                match &mut small {
                    Some(hasher) => hasher.update(&piece),
                    None => {
                        self.files.bytes(piece)?;
                        self.job.check()?;
                    }
                }
            }
            hashed = offset + length;
        }
        self.hash_hole(&mut small, member.size - hashed)?;
        self.target.close(&row)?;
        row.digest = small.map(Hasher::finish);
        let at = self.seen.put(place.parent, &row)?;
        if let Some(number) = number {
            self.seen.set_recipe(at, number);
        }
        if row.digest.is_some() {
            return self.rows.row(row, replace);
        }
        self.files.end()?;
        self.rows.waiting(row, replace, at)
    }

    fn hash_hole(&mut self, small: &mut Option<Hasher>, mut length: u64) -> Result<()> {
        self.holes = self.holes.saturating_add(length);
        if self.holes > HOLES {
            return Err(Error::unsupported(format!("sparse files with more than {HOLES} bytes of holes"))
                .hint("no real layer has so many; this one may be made to do harm"));
        }
        while length > 0 {
            let part = length.min(SMALL);
            match small {
                Some(hasher) => hasher.update(&vec![0; usize::try_from(part).expect("small")]),
                None => self.files.zeros(part)?,
            }
            length -= part;
            self.job.check()?;
        }
        Ok(())
    }

    fn link(&mut self, member: &Member, place: Place) -> Result<()> {
        // Some builders write the targets of hard links as absolute paths of the image.
        let named = member.link.strip_prefix(b"/").unwrap_or(&member.link);
        let names =
            names(named).context(|| format!("following its target `{}`", member.link.escape_ascii()))?;
        let Some((last, dirs)) = names.split_last() else {
            return Err(Error::invalid("a hard link to a directory").hint(HARM));
        };
        let target = match self.walk(dirs, false)? {
            Some(dir) => join(dir, last),
            None => names.join(&b'/'),
        };
        if target.starts_with(&[&place.path[..], b"/"].concat()) {
            return Err(Error::invalid("a hard link to what it would replace").hint(HARM));
        }
        let mut to = self.seen.find(&target);
        if to.is_some() && target == place.path {
            return Ok(());
        }
        // Its digest may still be in the making.
        self.flush()?;
        if to.is_none() {
            self.leans = true;
            if let Some(row) = self.target.below_row(&target)? {
                to = Some(self.seen.put(ROOT, &row)?);
                self.seen.hold(row.path.len() + 32)?;
                self.implied.push(row.path);
            }
        }
        let Some(to) = to.filter(|to| self.seen.slot(*to).kind != Kind::Whiteout) else {
            self.target.dangling(&place.path, &target)?;
            self.dangling.get_or_insert(target);
            return Ok(());
        };
        if self.seen.slot(to).kind == Kind::Dir {
            return Err(Error::invalid("a hard link to a directory").hint(HARM));
        }
        let replace = self.make_room(&place)?;
        self.target.link(&place.path, &target)?;
        let (_, new) = self.seen.group(to);
        if new && !self.seen.slot(to).implied {
            self.rows.row(self.seen.row(to, &target), true)?;
        }
        let row = Row { implied: false, ..self.seen.row(to, &place.path) };
        self.seen.put(place.parent, &row)?;
        self.rows.row(row, replace)
    }

    fn whiteout(&mut self, place: Place) -> Result<()> {
        match place.before {
            Some(at) if self.seen.slot(at).kind == Kind::Dir => self.opaque(at, &place.path),
            Some(_) => Ok(()),
            None => {
                self.target.whiteout(&place.path)?;
                let row = Row::bare(place.path, Kind::Whiteout);
                self.seen.put(place.parent, &row)?;
                self.rows.row(row, false)
            }
        }
    }

    fn opaque(&mut self, at: u32, path: &[u8]) -> Result<()> {
        if self.seen.slot(at).opaque {
            return Ok(());
        }
        self.target.opaque(path, &|path| self.seen.find(path).is_some())?;
        self.seen.slot_mut(at).opaque = true;
        if self.seen.slot(at).implied {
            // Nothing of `/` below shows, either.
            return if path.is_empty() { self.target.dir(&implied_dir(Vec::new()), true) } else { Ok(()) };
        }
        self.rows.row(self.seen.row(at, path), true)
    }
}

/// Saves what a later member replaces.
struct Shadows<'a, 'b> {
    seen: &'a Seen,
    recipe: Option<&'a mut Recipe<'b>>,
    file: u32,
}

impl Saver for Shadows<'_, '_> {
    fn wants(&mut self, path: &[u8]) -> bool {
        let number = self.seen.find(path).and_then(|at| self.seen.recipe(at));
        self.file = number.unwrap_or_default();
        number.is_some() && self.recipe.is_some()
    }
    fn save(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match &mut self.recipe {
            Some(recipe) => recipe.shadowed(self.file, offset, bytes),
            None => Ok(()),
        }
    }
}

fn join(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The names of a path, checked.
fn names(path: &[u8]) -> Result<Vec<&[u8]>> {
    // Some builders call the root `/`, which is where it belongs.
    if path.starts_with(b"/") && path.iter().any(|byte| *byte != b'/') {
        return Err(Error::invalid("an absolute name")
            .hint("names in a layer are relative to its root: make the archive without `-P`"));
    }
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    for name in &names {
        if *name == b".." {
            return Err(Error::invalid("a name with `..` in it, which may lead out of the layer").hint(HARM));
        }
        if name.contains(&0) {
            return Err(Error::invalid("a name with a NUL in it").hint(HARM));
        }
        // A whiteout's is longer than that of the file which it deletes.
        let length = name.strip_prefix(b".wh.").unwrap_or(name).len();
        if length > NAME {
            return Err(Error::invalid(format!("a name of {length} bytes; Linux allows {NAME}")));
        }
    }
    // What the marks of a layer are called comes to stand nowhere.
    let (stands, mark) = match names.split_last() {
        Some((last, above)) if *last == OPAQUE => (above, 0),
        Some((last, _)) if last.starts_with(b".wh.") => (&names[..], b".wh.".len()),
        _ => (&names[..], 0),
    };
    let bytes = stands.iter().map(|name| name.len() + 1).sum::<usize>().saturating_sub(1 + mark);
    if let Some(why) = too_far(bytes, stands.len()) {
        return Err(Error::invalid(why).hint(HARM));
    }
    Ok(names)
}

/// Whether a path can stand in a layer, for those who make one: what is refused here nobody could unpack again.
pub fn check_path(path: &[u8]) -> Result<()> {
    match too_far(path.len(), path.split(|byte| *byte == b'/').count()) {
        None => Ok(()),
        Some(why) => Err(Error::unsupported(format!("`{}` cannot be in a layer: {why}", beginning(path)))
            .hint("put it where fewer or shorter directories lead to it")),
    }
}

fn too_far(bytes: usize, names: usize) -> Option<String> {
    if bytes > PATH {
        return Some(format!("a path of {bytes} bytes; Linux allows {PATH}"));
    }
    (names > DEPTH).then(|| format!("{names} directories in each other; {DEPTH} are allowed"))
}

/// As much of a long path as a person wants to read.
fn beginning(path: &[u8]) -> String {
    match path.get(..60) {
        Some(first) => format!("{}...", first.escape_ascii()),
        None => path.escape_ascii().to_string(),
    }
}

/// What all kinds have in common. Attributes of the host's policy are no content.
fn row_of(member: &Member, path: Vec<u8>, kind: Kind) -> Row {
    let is_device = matches!(kind, Kind::Char | Kind::Block);
    let xattrs: Xattrs = member
        .xattrs
        .iter()
        .filter(|(name, _)| tree::is_content(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Row {
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        rdev: if is_device { member.rdev } else { (0, 0) },
        xattrs,
        ..Row::bare(path, kind)
    }
}
