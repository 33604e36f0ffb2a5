//! What an instruction's sources name, walked in one order, each file with its digest.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FileType, OFlags, Stat};

use super::ignore::Ignore;
use super::stat_cache::{Known, Xattrs};
use super::{Digests, Listing, Tree, wildcard};
use crate::error::{Context as _, Error, Result};
use crate::image::{Digest, Hasher};
use crate::job::Job;
use crate::layer::Kind;
use crate::sys::dir;

/// What one source matched.
#[derive(Debug)]
pub struct Source {
    /// Below the tree's root, cleaned; links in it are followed. Empty for the root itself.
    pub path: Vec<u8>,
    pub is_dir: bool,
    /// Parents before children; the first is the source itself.
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Below the source; empty for the source itself.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub digest: Option<Digest>,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub rdev: u64,
    pub target: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Another name of this item of the source.
    pub link: Option<usize>,
    /// Device and inode of a file that has several names.
    pub(super) inode: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
pub struct Selection {
    pub sources: Vec<Source>,
}

impl Selection {
    /// All that the copying takes from the tree: names below each source, kinds, modes, owners where they count,
    /// content; never times. The name of a source counts because a file copied into a directory keeps it.
    pub fn digest(&self, owners: bool) -> Digest {
        let mut hasher = Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for source in &self.sources {
            field(b"source");
            field(if source.is_dir { b"" } else { base_name(&source.path) });
            for item in &source.items {
                field(&item.path);
                field(&[item.kind as u8]);
                field(&item.mode.to_le_bytes());
                if owners {
                    field(&item.uid.to_le_bytes());
                    field(&item.gid.to_le_bytes());
                }
                field(item.digest.as_ref().map_or(&[], |digest| digest.as_bytes()));
                field(&item.rdev.to_le_bytes());
                field(&item.target);
                if let Some(first) = item.link {
                    field(b"link");
                    field(&(first as u64).to_le_bytes());
                }
                field(&(item.xattrs.len() as u64).to_le_bytes());
                for (key, value) in &item.xattrs {
                    field(key);
                    field(value);
                }
            }
        }
        hasher.finish()
    }

    pub fn files(&self) -> impl Iterator<Item = (&Source, &Item)> {
        self.sources.iter().flat_map(|source| source.items.iter().map(move |item| (source, item)))
    }
}

pub(crate) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match (parent.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => parent.to_vec(),
        _ => [parent, b"/", name].concat(),
    }
}

/// What is taken of what a source names.
#[derive(Clone, Copy, Default)]
pub struct Choice<'c> {
    /// Left out, below the source.
    pub exclude: Option<&'c Ignore>,
    /// Directories of the source stay: those above what it names are taken along. What stands before `/./` does not.
    pub parents: bool,
}

/// [`Choice`] for one walk.
#[derive(Clone, Copy, Default)]
struct Filter<'f> {
    exclude: Option<&'f Ignore>,
    include: Option<&'f Include>,
}

/// What `--parents` names below its pivot.
struct Include {
    /// It and all below it match.
    matching: Ignore,
    parts: Vec<Vec<u8>>,
}

impl Include {
    /// Could something below the directory match?
    fn may_match_below(&self, dir: &[u8]) -> bool {
        for (at, name) in dir.split(|byte| *byte == b'/').enumerate() {
            match self.parts.get(at) {
                None => return false,
                Some(part) if part.windows(2).any(|pair| pair == b"**") => return true,
                Some(part) if wildcard::matches(part, name).unwrap_or(true) => {}
                Some(_) => return false,
            }
        }
        true
    }
}

impl Filter<'_> {
    /// Whether an entry is left out, and whether all below it is.
    fn leaves_out(&self, path: &[u8], is_dir: bool) -> (bool, bool) {
        if let Some(exclude) = self.exclude.filter(|exclude| exclude.excluded(path, is_dir)) {
            return (true, exclude.may_skip_dir(path));
        }
        match self.include {
            Some(include) if !include.matching.excluded(path, is_dir) => {
                (true, !include.may_match_below(path))
            }
            _ => (false, false),
        }
    }
}

impl Tree<'_> {
    /// Walks what `pattern` names; nothing where a wildcard matches nothing. An error where a source without wildcards is
    /// not there.
    pub fn select(&self, pattern: &str, choice: Choice<'_>, job: &Job) -> Result<Selection> {
        let mut selection = Selection::default();
        if choice.parents {
            selection.sources.extend(self.with_parents(pattern, choice, job)?);
        } else {
            let clean = self.clean(pattern, job);
            let filter = Filter { exclude: choice.exclude, include: None };
            if wildcard::is_pattern(&clean) {
                let above = fixed(&clean);
                for path in self.matching(&clean, pattern)? {
                    let below = path.get(above..).unwrap_or_default();
                    if !filter.leaves_out(below, false).0 {
                        selection.sources.extend(self.walk(path, pattern, filter, job)?);
                    }
                }
            } else {
                let source = self.walk(clean, pattern, filter, job)?.ok_or_else(|| self.ignored(pattern))?;
                selection.sources.push(source);
            }
        }
        self.fill_digests(&mut selection, job)?;
        Ok(selection)
    }

    /// The pivot's directories, and below each what matches with the directories above.
    fn with_parents(&self, pattern: &str, choice: Choice<'_>, job: &Job) -> Result<Vec<Source>> {
        let (pivot, below) = pattern.split_once("/./").unwrap_or(("/", pattern));
        let clean = self.clean(below, job);
        let parse = |pattern: &[u8]| {
            Ignore::parse(pattern)
                .context(|| format!("reading the source `{}`", String::from_utf8_lossy(pattern)))
        };
        let include = Include {
            matching: parse(if clean.is_empty() { b"**" } else { &clean })?,
            parts: if clean.is_empty() {
                vec![b"**".to_vec()]
            } else {
                clean.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
            },
        };
        let filter = Filter { exclude: choice.exclude, include: Some(&include) };
        let pivot = self.clean(pivot, job);
        let may_be_nothing = [&pivot, &clean].into_iter().any(|path| wildcard::is_pattern(path));
        let tops = match wildcard::is_pattern(&pivot) {
            true => self.matching(&pivot, pattern)?,
            false => vec![pivot],
        };
        let mut sources = Vec::new();
        for top in tops {
            let source = self.walk(top, pattern, filter, job)?;
            if source.is_none() && !may_be_nothing {
                return Err(self.ignored(pattern));
            }
            sources.extend(source.filter(|source| source.items.len() > 1));
        }
        match sources.is_empty() && !may_be_nothing && choice.exclude.is_none() {
            true => Err(self.absent(pattern)),
            false => Ok(sources),
        }
    }

    /// Walks one file or directory; wildcards mean nothing.
    pub fn subtree(&self, path: &str, job: &Job) -> Result<Selection> {
        let source = self.walk(self.clean(path, job), path, Filter::default(), job)?;
        let source = source.ok_or_else(|| self.ignored(path))?;
        let mut selection = Selection { sources: vec![source] };
        self.fill_digests(&mut selection, job)?;
        Ok(selection)
    }

    /// Go's path.Clean of a path taken from the root: `..` does not lead out of it. That is hardly meant, so it is told.
    fn clean(&self, pattern: &str, job: &Job) -> Vec<u8> {
        let mut parts: Vec<&str> = Vec::new();
        let mut told = false;
        for part in pattern.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() && !std::mem::replace(&mut told, true) {
                        job.warn(format!(
                            "`{pattern}` would lead out of {}; it is taken from its root",
                            self.what
                        ));
                    }
                }
                part => parts.push(part),
            }
        }
        parts.join("/").into_bytes()
    }

    fn matching(&self, pattern: &[u8], written: &str) -> Result<Vec<Vec<u8>>> {
        let mut found = vec![Vec::new()];
        let mut wild = false;
        for part in pattern.split(|byte| *byte == b'/') {
            let mut next = Vec::new();
            let is_pattern = wildcard::is_pattern(part);
            wild |= is_pattern;
            for parent in found {
                if !is_pattern {
                    // Before the first wildcard a name is a name; behind it a backslash quotes.
                    next.push(join(&parent, &if wild { unquoted(part) } else { part.to_vec() }));
                    continue;
                }
                for name in self.names(&parent)? {
                    let matches = super::wildcard::matches(part, &name)
                        .context(|| format!("`{written}` is not a valid pattern"))?;
                    if matches {
                        next.push(join(&parent, &name));
                    }
                }
            }
            found = next;
        }
        match self.listing() {
            Some(listing) => found.retain(|path| listing.resolve(path).is_some()),
            None => {
                let root = self.root()?;
                found.retain(|path| dir::open_in_root(root, path, OFlags::PATH).is_ok());
            }
        }
        Ok(found)
    }

    /// In a directory; none in what is no directory.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        if let Some(listing) = self.listing() {
            return Ok(listing.names(path).unwrap_or_default().to_vec());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Ok(fd) = dir::open_in_root(self.root()?, path, flags) else { return Ok(Vec::new()) };
        let names = dir::names(fd.as_fd()).context(|| format!("reading {}", self.what))?;
        Ok(names.into_iter().map(std::ffi::CString::into_bytes).collect())
    }

    fn is_excluded(&self, path: &[u8], is_dir: bool) -> bool {
        !path.is_empty() && self.excluded.is_some_and(|rules| rules.excluded(path, is_dir))
    }

    /// `None` where all of it is excluded.
    fn walk(&self, path: Vec<u8>, written: &str, filter: Filter<'_>, job: &Job) -> Result<Option<Source>> {
        if let Some(listing) = self.listing() {
            return self.walk_listing(listing, path, written, filter).map(Some);
        }
        let say = || format!("reading `{}` in {}", String::from_utf8_lossy(&path), self.what);
        let root = self.root()?;
        let top = match dir::open_in_root(root, &path, OFlags::PATH) {
            Ok(top) => top,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(self.absent(written));
            }
            Err(error) => return Err(error).context(say),
        };
        let stat = rustix::fs::fstat(&top).context(say)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let excluded = self.is_excluded(&path, is_dir);
        let mut items = Vec::new();
        // Reached through the descriptor: the links on the way have been followed.
        let known = self.known(&path, &stat, || dir::xattrs_of(top.as_fd()));
        let known = known.context(say)?;
        if is_dir {
            items.push(item(Vec::new(), Kind::Dir, &stat, Vec::new(), known));
            let fd = dir::open_in_root(root, &path, OFlags::RDONLY | OFlags::DIRECTORY).context(say)?;
            self.walk_dir(fd.as_fd(), (&path, b""), filter, &mut items, job)?;
            if excluded && items.len() == 1 {
                return Ok(None);
            }
        } else {
            if excluded {
                return Ok(None);
            }
            let kind = kind_of(&stat).ok_or_else(|| {
                Error::invalid(format!("`{written}` in {} is a socket; sockets cannot be copied", self.what))
            })?;
            items.push(item(Vec::new(), kind, &stat, Vec::new(), known));
        }
        link(&mut items);
        Ok(Some(Source { path, is_dir, items }))
    }

    /// As `walk` and `walk_dir`. Nothing of such a tree is excluded by rules of its own.
    fn walk_listing(
        &self,
        listing: &Listing,
        path: Vec<u8>,
        written: &str,
        filter: Filter<'_>,
    ) -> Result<Source> {
        let real = listing.resolve(&path).ok_or_else(|| self.absent(written))?;
        let top = listing.item(&real, Vec::new()).ok_or_else(|| self.absent(written))?;
        let is_dir = top.kind == Kind::Dir;
        let mut items = vec![top];
        if is_dir {
            list(listing, (&real, b""), filter, &mut items);
        }
        link(&mut items);
        Ok(Source { path, is_dir, items })
    }

    fn absent(&self, written: &str) -> Error {
        Error::not_found(format!("`{written}` is not in {}", self.what))
            .hint(format!("sources are looked for from the root of {}", self.what))
    }

    fn ignored(&self, written: &str) -> Error {
        Error::not_found(format!("`{written}` is excluded from {} by .dockerignore", self.what))
            .hint("take the pattern out of .dockerignore, or add one with `!` after it")
    }

    fn walk_dir(
        &self,
        fd: BorrowedFd<'_>,
        (source, below): (&[u8], &[u8]),
        filter: Filter<'_>,
        items: &mut Vec<Item>,
        job: &Job,
    ) -> Result<()> {
        job.check()?;
        let say = |name: &[u8]| {
            let path = join(&join(source, below), name);
            format!("reading `{}` in {}", String::from_utf8_lossy(&path), self.what)
        };
        for name in dir::names(fd).context(|| say(b""))? {
            let path = join(below, name.to_bytes());
            let whole = join(source, &path);
            let stat = match dir::lstat(fd, &name) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(|| say(name.to_bytes())),
            };
            let Some(kind) = kind_of(&stat) else { continue };
            let ignored = self.is_excluded(&whole, kind == Kind::Dir);
            let (left_out, all_of_it) = filter.leaves_out(&path, kind == Kind::Dir);
            let excluded = ignored || left_out;
            let skipped =
                all_of_it || ignored && self.excluded.is_some_and(|rules| rules.may_skip_dir(&whole));
            if excluded && (kind != Kind::Dir || skipped) {
                continue;
            }
            let target = match kind {
                Kind::Symlink => dir::read_link(fd, &name).context(|| say(name.to_bytes()))?,
                _ => Vec::new(),
            };
            let known =
                self.known(&whole, &stat, || dir::xattrs(fd, &name)).context(|| say(name.to_bytes()))?;
            let at = items.len();
            items.push(item(path.clone(), kind, &stat, target, known));
            if kind == Kind::Dir {
                let sub = dir::open_dir(fd, &name).context(|| say(name.to_bytes()))?;
                self.walk_dir(sub.as_fd(), (source, &path), filter, items, job)?;
                // An excluded directory is there only for what is included beneath it.
                if excluded && items.len() == at + 1 {
                    items.truncate(at);
                }
            }
        }
        Ok(())
    }

    /// Attributes, and the digest where it is known without reading.
    fn known(
        &self,
        path: &[u8],
        stat: &Stat,
        read: impl FnOnce() -> io::Result<Xattrs>,
    ) -> io::Result<Known> {
        if let Digests::Stat(cache) = &self.digests
            && let Some(known) = cache.get(path, stat)
        {
            return Ok(known);
        }
        let mut xattrs = read()?;
        xattrs.retain(|(key, _)| travels(key));
        let known = Known { digest: None, xattrs };
        if let Digests::Stat(cache) = &self.digests
            && FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            cache.put(path, stat, known.clone());
        }
        Ok(known)
    }

    /// Gives every regular file its digest; what no cache knows is read, on all threads.
    fn fill_digests(&self, selection: &mut Selection, job: &Job) -> Result<()> {
        struct Work<'w> {
            path: Vec<u8>,
            item: std::sync::Mutex<&'w mut Item>,
        }
        let mut open = Vec::new();
        for source in &mut selection.sources {
            for item in
                source.items.iter_mut().filter(|item| item.kind == Kind::File && item.digest.is_none())
            {
                let path = join(&source.path, &item.path);
                open.push(Work { path, item: std::sync::Mutex::new(item) });
            }
        }
        let next = AtomicUsize::new(0);
        let failed = std::sync::Mutex::new(None);
        let work = || {
            let mut buffer = vec![0u8; 256 * 1024];
            while let Some(work) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = job.check().and_then(|()| {
                    let mut item = work.item.lock().expect("no holder panics");
                    self.digest_of(&work.path, &mut item, &mut buffer)
                });
                if let Err(error) = done {
                    failed.lock().expect("no holder panics").get_or_insert(error);
                    next.store(open.len(), Ordering::Relaxed);
                }
            }
        };
        let threads = job.budget.threads.min(open.len() / 64 + 1);
        if threads < 2 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        failed.into_inner().expect("no holder panics").map_or(Ok(()), Err)
    }

    fn digest_of(&self, path: &[u8], item: &mut Item, buffer: &mut [u8]) -> Result<()> {
        let say = || format!("reading `{}` in {}", String::from_utf8_lossy(path), self.what);
        match &self.digests {
            Digests::Index(look_up) => {
                if let Some(digest) = look_up(path)? {
                    item.digest = Some(digest);
                    return Ok(());
                }
            }
            Digests::Stat(_) | Digests::Read => {}
        }
        let fd = dir::open_in_root(self.root()?, path, OFlags::RDONLY | OFlags::NONBLOCK).context(say)?;
        let before = rustix::fs::fstat(&fd).context(say)?;
        let mut file = std::fs::File::from(fd);
        let mut hasher = Hasher::new();
        let mut size = 0u64;
        loop {
            let count = file.read(buffer).context(say)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
        item.size = size;
        item.digest = Some(hasher.finish());
        if let Digests::Stat(cache) = &self.digests {
            cache.put(path, &before, Known { digest: item.digest, xattrs: item.xattrs.clone() });
        }
        Ok(())
    }
}

/// What stands below a directory of a listing, in the order of `walk_dir`.
fn list(listing: &Listing, (real, below): (&[u8], &[u8]), filter: Filter<'_>, items: &mut Vec<Item>) {
    for name in listing.names_of(real) {
        let (real, path) = (join(real, name), join(below, name));
        let Some(item) = listing.item(&real, path.clone()) else { continue };
        let is_dir = item.kind == Kind::Dir;
        let (left_out, all_of_it) = filter.leaves_out(&path, is_dir);
        if left_out && (!is_dir || all_of_it) {
            continue;
        }
        let at = items.len();
        items.push(item);
        if is_dir {
            list(listing, (&real, &path), filter, items);
            // One that is left out is there only for what is included beneath it.
            if left_out && items.len() == at + 1 {
                items.truncate(at);
            }
        }
    }
}

fn item(path: Vec<u8>, kind: Kind, stat: &Stat, target: Vec<u8>, known: Known) -> Item {
    Item {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        digest: known.digest,
        mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        rdev: if matches!(kind, Kind::Char | Kind::Block) { stat.st_rdev } else { 0 },
        target,
        xattrs: known.xattrs,
        link: None,
        inode: (kind == Kind::File && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
    }
}

/// Names of one file within a source know each other.
fn link(items: &mut [Item]) {
    let mut first = HashMap::new();
    for (at, item) in items.iter_mut().enumerate() {
        if let Some(inode) = item.inode {
            let known = *first.entry(inode).or_insert(at);
            item.link = (known != at).then_some(known);
        }
    }
}

/// Bytes of a pattern before its first part with a wildcard.
fn fixed(pattern: &[u8]) -> usize {
    let parts = pattern.split(|byte| *byte == b'/');
    parts.take_while(|part| !wildcard::is_pattern(part)).map(|part| part.len() + 1).sum()
}

/// Without the backslashes that quote.
fn unquoted(part: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(part.len());
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    plain
}

/// Sockets are in no archive.
fn kind_of(stat: &Stat) -> Option<Kind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    })
}

/// Attributes that belong to the file and not to the machine it lies on.
pub(super) fn travels(key: &[u8]) -> bool {
    key == b"security.capability" || key.starts_with(b"user.") && !key.starts_with(b"user.overlay.")
}
