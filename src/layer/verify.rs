//! A tree on disk compared with its rows.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{self, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType};
use rustix::io::Errno;

use super::tree::{self, Node, OPAQUE, Parents};
use super::{Form, Kind, Row};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Hasher};
use crate::job::Job;

/// What is on disk and in no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    /// The rows are all there is in the tree.
    Report,
    /// The tree holds more: lower layers, in a whole tree.
    Ignore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: Vec<u8>,
    pub what: Difference,
}

/// How disk and row differ. Closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing,
    Extra,
    Kind,
    Mode,
    Owner,
    Size,
    Content,
    Time,
    Target,
    Device,
    Xattrs,
    Opaque,
    Link,
    /// It cannot be read; the system's answer.
    Unreadable(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first thousand, in the order of their paths.
    pub list: Vec<Finding>,
    /// How many there are in all.
    pub total: u64,
    /// Rows compared, and bytes read for it.
    pub rows: u64,
    pub bytes: u64,
}

impl Finding {
    /// As a sentence without its subject: `content differs`.
    pub fn text(&self) -> String {
        match &self.what {
            Difference::Missing => "is missing".into(),
            Difference::Extra => "should not be there".into(),
            Difference::Kind => "is of another kind".into(),
            Difference::Mode => "mode differs".into(),
            Difference::Owner => "owner differs".into(),
            Difference::Size => "size differs".into(),
            Difference::Content => "content differs".into(),
            Difference::Time => "modification time differs".into(),
            Difference::Target => "points elsewhere".into(),
            Difference::Device => "device number differs".into(),
            Difference::Xattrs => "extended attributes differ".into(),
            Difference::Opaque => "opaque mark differs".into(),
            Difference::Link => "is not linked to what it should be".into(),
            Difference::Unreadable(why) => format!("cannot be read: {why}"),
        }
    }
}

/// Findings that are kept.
const LISTED: usize = 1000;
/// Open files on their way to the threads that read them.
const AHEAD: usize = 64;

/// Compares everything rows say, contents too, times at whole seconds. Rows come in the order of their paths' bytes.
/// Of implied rows only the kind counts.
pub fn verify(
    job: &Job,
    tree: BorrowedFd<'_>,
    form: Form,
    extras: Extras,
    rows: impl IntoIterator<Item = Result<Row>>,
) -> Result<Findings> {
    let mut rows = rows.into_iter();
    verify_rows(job, tree, form, extras, &mut rows)
}

fn verify_rows(
    job: &Job,
    tree: BorrowedFd<'_>,
    form: Form,
    extras: Extras,
    rows: &mut dyn Iterator<Item = Result<Row>>,
) -> Result<Findings> {
    let found = Found::default();
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(AHEAD);
        let receive = std::sync::Arc::new(Mutex::new(receive));
        for _ in 0..job.budget.threads.max(1) {
            let receive = receive.clone();
            scope.spawn(|| read_all(receive, &found));
        }
        drop(receive);
        let mut verify = Verify { job, form, send, found: &found, groups: HashMap::new(), rows: 0 };
        match extras {
            Extras::Report => verify.both_ways(tree, rows)?,
            Extras::Ignore => verify.one_way(tree, rows)?,
        }
        Ok(verify.rows)
    })
    .map(|rows| found.into_findings(rows))
}

/// Collected from several threads.
#[derive(Default)]
struct Found {
    list: Mutex<Vec<Finding>>,
    total: AtomicU64,
    bytes: AtomicU64,
}

impl Found {
    fn add(&self, path: &[u8], what: Difference) {
        let total = self.total.fetch_add(1, atomic::Ordering::Relaxed);
        if total < LISTED as u64 {
            let mut list = self.list.lock().expect("nobody panics with it");
            list.push(Finding { path: path.to_vec(), what });
        }
    }
    fn into_findings(self, rows: u64) -> Findings {
        let mut list = self.list.into_inner().expect("nobody panics with it");
        list.sort_by(|a, b| a.path.cmp(&b.path));
        Findings { list, total: self.total.into_inner(), rows, bytes: self.bytes.into_inner() }
    }
}

/// A file whose content is to be compared.
struct Content {
    path: Vec<u8>,
    file: OwnedFd,
    digest: Digest,
}

fn read_all(contents: std::sync::Arc<Mutex<Receiver<Content>>>, found: &Found) {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let next = contents.lock().expect("nobody panics with it").recv();
        let Ok(Content { path, file, digest }) = next else { return };
        let mut file = std::fs::File::from(file);
        let mut hasher = Hasher::new();
        let result = loop {
            match file.read(&mut buffer) {
                Ok(0) => break Ok(hasher.finish()),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    found.bytes.fetch_add(count as u64, atomic::Ordering::Relaxed);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(is) if is == digest => {}
            Ok(_) => found.add(&path, Difference::Content),
            Err(error) => found.add(&path, Difference::Unreadable(error.to_string())),
        }
    }
}

struct Verify<'a> {
    job: &'a Job,
    form: Form,
    send: SyncSender<Content>,
    found: &'a Found,
    /// The inode of each link group.
    groups: HashMap<u32, (u64, u64)>,
    rows: u64,
}

/// A directory on the way, and what is still to be seen in it. Entries are in the order of whole paths: a
/// directory's own at its name, its content at its name and a slash, which may be far behind.
struct Frame {
    dir: OwnedFd,
    path: Vec<u8>,
    entries: std::vec::IntoIter<Entry>,
}

struct Entry {
    key: Vec<u8>,
    name: Vec<u8>,
    whiteout: bool,
}

impl Verify<'_> {
    /// Each row looked up.
    fn one_way(&mut self, tree: BorrowedFd<'_>, rows: &mut dyn Iterator<Item = Result<Row>>) -> Result<()> {
        let mut parents = Parents::new(tree);
        for row in rows {
            let row = self.next(row?)?;
            let (parent, name) = tree::split(&row.path);
            match parents.dir(parent) {
                Ok(dir) => self.at(dir, name, &row)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.missing(&row),
                Err(error) => self.found.add(&row.path, unreadable(error)),
            }
        }
        Ok(())
    }

    fn next(&mut self, row: Row) -> Result<Row> {
        self.job.check()?;
        self.rows += 1;
        Ok(row)
    }

    fn missing(&self, row: &Row) {
        if row.kind != Kind::Whiteout || self.form != Form::Whole {
            self.found.add(&row.path, Difference::Missing);
        }
    }

    /// What stands at a name where a row says something.
    fn at(&mut self, dir: BorrowedFd<'_>, name: &[u8], row: &Row) -> Result<()> {
        let aufs_whiteout = self.form == Form::Aufs && row.kind == Kind::Whiteout;
        let marked;
        let name = if aufs_whiteout {
            marked = [b".wh.", name].concat();
            &marked
        } else {
            name
        };
        let stat = match tree::stat(dir, if name.is_empty() { b"." } else { name }) {
            Ok(stat) => stat,
            Err(error) => {
                self.found.add(&row.path, unreadable(error));
                return Ok(());
            }
        };
        let Some(stat) = stat else {
            self.missing(row);
            return Ok(());
        };
        let whiteout = aufs_whiteout
            || tree::is_whiteout(self.form, dir, name, tree::file_type(&stat))
                .context(|| format!("looking at `{}`", row.path.escape_ascii()))?;
        self.compare(dir, name, row, whiteout)
    }

    /// Rows and tree side by side, both in the order of paths.
    fn both_ways(&mut self, tree: BorrowedFd<'_>, rows: &mut dyn Iterator<Item = Result<Row>>) -> Result<()> {
        let mut rows = rows.peekable();
        let mut next = |verify: &mut Self| match rows.next() {
            Some(row) => verify.next(row?).map(Some),
            None => Ok(None),
        };
        let mut row = next(self)?;
        let root = tree::open_dir(tree, b".").context(|| "opening the tree of a layer")?;
        if let Some(root_row) = row.take_if(|row| row.path.is_empty()) {
            self.compare(root.as_fd(), b".", &root_row, false)?;
            row = next(self)?;
        }
        let mut frames = vec![self.frame(root, Vec::new())?];
        while let Some(frame) = frames.last_mut() {
            self.job.check()?;
            let Some(entry) = frame.entries.next() else {
                frames.pop();
                continue;
            };
            let path = if frame.path.is_empty() {
                entry.key.clone()
            } else {
                [&frame.path[..], b"/", &entry.key].concat()
            };
            if path.ends_with(b"/") {
                match tree::open_dir(&frame.dir, &entry.name) {
                    Ok(dir) => {
                        let frame = self.frame(dir, path[..path.len() - 1].to_vec())?;
                        frames.push(frame);
                    }
                    Err(error) => self.found.add(&path[..path.len() - 1], unreadable(error)),
                }
                continue;
            }
            let equal = loop {
                match row.as_ref().map(|row| row.path.cmp(&path)) {
                    Some(Ordering::Less) => {
                        self.missing(row.as_ref().expect("matched"));
                        row = next(self)?;
                    }
                    other => break other == Some(Ordering::Equal),
                }
            };
            if equal {
                let found = row.take().expect("compared");
                self.compare(frame.dir.as_fd(), &entry.name, &found, entry.whiteout)?;
                row = next(self)?;
                continue;
            }
            self.found.add(&path, Difference::Extra);
            // What is in it should not be there either: said once.
            let inside = [&entry.name[..], b"/"].concat();
            let rest: Vec<Entry> = frame.entries.by_ref().filter(|entry| entry.key != inside).collect();
            frame.entries = rest.into_iter();
        }
        while let Some(rest) = row {
            self.missing(&rest);
            row = next(self)?;
        }
        Ok(())
    }

    fn frame(&self, dir: OwnedFd, path: Vec<u8>) -> Result<Frame> {
        let doing = || format!("listing `{}`", path.escape_ascii());
        let mut entries = Vec::new();
        for (name, kind) in tree::list(dir.as_fd()).context(doing)? {
            if self.form == Form::Aufs && name.starts_with(b".wh.") {
                if !name.starts_with(b".wh..wh.") {
                    entries.push(Entry { key: name[b".wh.".len()..].to_vec(), name, whiteout: true });
                }
                continue;
            }
            if kind == FileType::Directory {
                let key = [&name[..], b"/"].concat();
                entries.push(Entry { key, name: name.clone(), whiteout: false });
            }
            let whiteout = tree::is_whiteout(self.form, dir.as_fd(), &name, kind).context(doing)?;
            entries.push(Entry { key: name.clone(), name, whiteout });
        }
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(Frame { dir, path, entries: entries.into_iter() })
    }

    fn compare(&mut self, dir: BorrowedFd<'_>, name: &[u8], row: &Row, whiteout: bool) -> Result<()> {
        let name = if name.is_empty() { b"." } else { name };
        if whiteout || row.kind == Kind::Whiteout {
            match (whiteout, row.kind == Kind::Whiteout) {
                (true, true) => {}
                (false, true) if self.form == Form::Whole => self.found.add(&row.path, Difference::Extra),
                _ => self.found.add(&row.path, Difference::Kind),
            }
            return Ok(());
        }
        match self.differences(dir, name, row) {
            Ok((differences, content)) => {
                for difference in differences {
                    self.found.add(&row.path, difference);
                }
                if let Some(content) = content {
                    let gone = |_| Error::internal("the threads that read files ended early");
                    self.send.send(content).map_err(gone)?;
                }
            }
            Err(error) => self.found.add(&row.path, unreadable(error)),
        }
        Ok(())
    }

    fn differences(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        row: &Row,
    ) -> rustix::io::Result<(Vec<Difference>, Option<Content>)> {
        let Some(stat) = tree::stat(dir, name)? else { return Ok((vec![Difference::Missing], None)) };
        if tree::kind(&stat) != Some(row.kind) {
            return Ok((vec![Difference::Kind], None));
        }
        let file = match row.kind {
            Kind::File => Some(tree::open_file(dir, name)?),
            Kind::Dir => Some(tree::open_dir(dir, name)?),
            _ => None,
        };
        let node = file.as_ref().map_or(Node::Name(dir, name), |file| Node::Open(file.as_fd()));
        let attributes = node.attributes(self.form)?;
        let mut differences = Vec::new();
        let mut check = |same: bool, difference| {
            if !same {
                differences.push(difference);
            }
        };
        if row.kind == Kind::Dir && self.form != Form::Whole {
            let mark = match self.form {
                Form::Aufs => tree::stat(file.as_ref().expect("a directory is open"), OPAQUE)?.is_some(),
                _ => attributes.opaque,
            };
            check(mark == row.opaque, Difference::Opaque);
        }
        if row.implied {
            return Ok((differences, None));
        }
        check(row.kind == Kind::Symlink || tree::permissions(&stat) == row.mode, Difference::Mode);
        check((stat.st_uid, stat.st_gid) == (row.uid, row.gid), Difference::Owner);
        check(stat.st_mtime == row.mtime.div_euclid(1_000_000_000), Difference::Time);
        check(attributes.xattrs == row.xattrs, Difference::Xattrs);
        if let Some(group) = row.link {
            let inode = (stat.st_dev, stat.st_ino);
            check(*self.groups.entry(group).or_insert(inode) == inode, Difference::Link);
        }
        let mut content = None;
        match (row.kind, file, row.digest) {
            (Kind::Symlink, ..) => {
                let target = fs::readlinkat(dir, name, Vec::new())?;
                check(target.as_bytes() == row.target, Difference::Target);
            }
            (Kind::Char | Kind::Block, ..) => check(tree::rdev(&stat) == row.rdev, Difference::Device),
            (Kind::File, Some(file), Some(digest)) => {
                if tree::size(&stat) == row.size {
                    content = Some(Content { path: row.path.clone(), file, digest });
                } else {
                    check(false, Difference::Size);
                }
            }
            _ => {}
        }
        Ok((differences, content))
    }
}

fn unreadable(error: Errno) -> Difference {
    Difference::Unreadable(std::io::Error::from(error).to_string())
}
