//! What may differ between a tree and the one that it began as a snapshot of, by inode numbers and ctimes: no content is
//! read. Directories side by side, a thread per core.
//!
//! Every change of a file moves its ctime, but clocks of filesystems tick: what is written twice within a tick has one ctime
//! (of files written, snapshotted and written again at once with the same size 58 of 100 had the same inode number, ctime,
//! mtime and size). So a ctime says nothing that is not surely before the snapshot.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Stat};

use super::linked::is_the_same;
use super::touched::Touched;
use super::tree::{self, Node};
use super::{Form, Kind};
use crate::error::{Context, Error, Result};

/// What is known of two trees of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinship {
    /// The newer tree was made later than this, and the older one not changed since then: nanoseconds since 1970.
    pub sealed: i64,
    /// A change of an extended attribute moves the ctime, too.
    pub xattrs_move_ctime: bool,
}

/// `tree` was snapshotted of `parent`: the same file has the same inode number in both.
pub fn compare(tree: BorrowedFd<'_>, parent: BorrowedFd<'_>, kinship: Kinship) -> Result<Touched> {
    let doing = || "opening the trees to compare";
    let (tree, parent) =
        (tree::open_dir(tree, b".").context(doing)?, tree::open_dir(parent, b".").context(doing)?);
    let comparison = Comparison {
        new: tree.as_fd(),
        old: parent.as_fd(),
        kinship,
        state: Mutex::new(State {
            waiting: vec![Vec::new()],
            busy: 0,
            touched: Touched::nothing(),
            failed: None,
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 1..threads {
            scope.spawn(|| comparison.work());
        }
        comparison.work();
    });
    let state = comparison.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(state.touched), Err)
}

struct Comparison<'a> {
    new: BorrowedFd<'a>,
    old: BorrowedFd<'a>,
    kinship: Kinship,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Directories that are in both trees.
    waiting: Vec<Vec<u8>>,
    busy: usize,
    touched: Touched,
    failed: Option<Error>,
}

/// What was found in one directory: paths.
#[derive(Default)]
struct Found {
    touched: Vec<Vec<u8>>,
    /// With all that stands below.
    trees: Vec<Vec<u8>>,
    dirs: Vec<Vec<u8>>,
}

impl Comparison<'_> {
    fn work(&self) {
        // A thread that panics poisons the lock; the panic itself is passed on by the scope.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.failed.is_some() {
                break;
            }
            if let Some(path) = state.waiting.pop() {
                state.busy += 1;
                drop(state);
                let found = self.directory(&path).context(|| format!("comparing `{}`", path.escape_ascii()));
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.busy -= 1;
                state.take(found);
                self.changed.notify_all();
            } else if state.busy == 0 {
                break;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn directory(&self, path: &[u8]) -> rustix::io::Result<Found> {
        let (new, old) = (tree::open_below(self.new, path)?, tree::open_below(self.old, path)?);
        let (stat, before) = (fs::fstat(&new)?, fs::fstat(&old)?);
        let mut found = Found::default();
        let names = tree::list(new.as_fd())?;
        // Where nothing came or went, what is here was there.
        if !self.unmoved(&stat, &before) {
            let known = |name: &[u8]| names.binary_search_by(|(here, _)| here.as_slice().cmp(name)).is_ok();
            if tree::list(old.as_fd())?.iter().any(|(name, _)| !known(name)) {
                found.touched.push(path.to_vec());
            }
        }
        for (name, kind) in names {
            let inner = if path.is_empty() { name.clone() } else { [path, &name].join(&b'/') };
            let now = tree::stat(&new, &name)?;
            let then = tree::stat(&old, &name)?;
            let was_dir = then.as_ref().is_some_and(|then| tree::kind(then) == Some(Kind::Dir));
            let same = match (&now, &then) {
                (Some(now), Some(then)) => {
                    self.unmoved(now, then) && self.same_xattrs((new.as_fd(), old.as_fd()), &name)?
                }
                _ => false,
            };
            match kind {
                FileType::Directory if !was_dir => found.trees.push(inner),
                FileType::Directory if same => found.dirs.push(inner),
                FileType::Directory => {
                    found.touched.push(inner.clone());
                    found.dirs.push(inner);
                }
                _ if same => {}
                _ => found.touched.push(inner),
            }
        }
        Ok(found)
    }

    /// Whether nothing happened to it since.
    fn unmoved(&self, new: &Stat, old: &Stat) -> bool {
        is_the_same(new, old) && is_before(new, self.kinship.sealed)
    }

    fn same_xattrs(
        &self,
        (new, old): (BorrowedFd<'_>, BorrowedFd<'_>),
        name: &[u8],
    ) -> rustix::io::Result<bool> {
        if self.kinship.xattrs_move_ctime {
            return Ok(true);
        }
        let xattrs = |dir| Node::Name(dir, name).xattrs(Form::Whole);
        Ok(xattrs(new)? == xattrs(old)?)
    }
}

impl State {
    fn take(&mut self, found: Result<Found>) {
        match found {
            Ok(found) => {
                found.touched.iter().for_each(|path| self.touched.add(path));
                found.trees.iter().for_each(|path| self.touched.add_tree(path));
                self.waiting.extend(found.dirs);
            }
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }
}

/// Whether a ctime tells: a later change has a later one. Kernels stamp by the tick, which is 10 ms at the most; zfs-fuse
/// knows seconds alone.
fn is_before(stat: &Stat, sealed: i64) -> bool {
    const MARGIN: i64 = 20_000_000;
    const SECOND: i64 = 1_000_000_000;
    let tick = if stat.st_ctime_nsec == 0 { SECOND } else { 0 };
    let ctime =
        stat.st_ctime.saturating_mul(SECOND).saturating_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0));
    ctime.saturating_add(tick + MARGIN) < sealed
}
