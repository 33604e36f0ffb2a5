//! Times that COPY gives: what did not change since the last build keeps the time it had, and what changed is not older
//! than that build. So tools that compare times, as make does, neither do everything again after a fresh clone nor
//! take something changed for old.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, RawMode, Stat};

use super::select::Item;
use crate::image::Digest;
use crate::layer::{Kind, Row};

/// What the last builds copied, by path in the image.
#[derive(Debug)]
pub struct Pins {
    files: HashMap<Vec<u8>, Pin>,
    /// The tree of a layer among theirs, from which files may be linked.
    tree: Option<OwnedFd>,
    /// When the last of them ended, and now; in seconds since 1970.
    last: i64,
    now: i64,
}

#[derive(Debug)]
enum Pin {
    Same {
        digest: Option<Digest>,
        target: Vec<u8>,
        seconds: i64,
        /// Its permission bits and owner in `tree`, if it is a file there and has no other name.
        held: Option<(u32, u32, u32)>,
    },
    /// They copied several contents to this place.
    Several,
}

impl Pins {
    pub fn new(last: i64, now: i64) -> Self {
        Pins { files: HashMap::new(), tree: None, last, now }
    }

    /// The tree of the layer whose rows are [`Pins::add_held`]: where its files can have further names.
    pub fn hold(&mut self, tree: OwnedFd) {
        self.tree = Some(tree);
    }

    /// One file of the layer whose tree is held.
    pub fn add_held(&mut self, row: Row) {
        let plain = row.kind == Kind::File && row.link.is_none() && row.xattrs.is_empty() && !row.implied;
        let held = plain.then_some((row.mode, row.uid, row.gid));
        self.insert(row, held);
    }

    /// One file that was copied; the latest build's come first.
    pub fn add(&mut self, row: Row) {
        self.insert(row, None);
    }

    fn insert(&mut self, row: Row, held: Option<(u32, u32, u32)>) {
        use std::collections::hash_map::Entry;
        if !matches!(row.kind, Kind::File | Kind::Symlink) {
            return;
        }
        let seconds = row.mtime.div_euclid(1_000_000_000);
        match self.files.entry(row.path) {
            Entry::Vacant(place) => {
                place.insert(Pin::Same { digest: row.digest, target: row.target, seconds, held });
            }
            Entry::Occupied(mut place) => match place.get() {
                Pin::Same { digest, target, .. } if *digest == row.digest && *target == row.target => {}
                _ => drop(place.insert(Pin::Several)),
            },
        }
    }

    /// Seconds and nanoseconds, for the copy of `item` at `path`.
    pub(super) fn time(&self, path: &[u8], item: &Item) -> (i64, i64) {
        match self.files.get(path) {
            Some(Pin::Same { digest, target, seconds, .. })
                if *digest == item.digest && *target == item.target =>
            {
                (*seconds, 0)
            }
            Some(_) if item.mtime.0 <= self.last => (self.now, 0),
            _ => item.mtime,
        }
    }

    pub(super) fn tree(&self) -> Option<BorrowedFd<'_>> {
        self.tree.as_ref().map(OwnedFd::as_fd)
    }

    /// Whether the copy of `item` at `path` is what the held tree has there.
    pub(super) fn holds(&self, path: &[u8], item: &Item, mode: Mode, (uid, gid): (u32, u32)) -> bool {
        let plain = item.kind == Kind::File && item.xattrs.is_empty();
        plain
            && self.tree.is_some()
            && matches!(self.files.get(path), Some(Pin::Same { digest, held: Some(held), .. })
                if digest.is_some() && *digest == item.digest && *held == (mode.as_raw_mode(), uid, gid))
    }

    /// Whether a file that was found at `path` of the held tree is what its row says, its bytes aside.
    pub(super) fn is_held(&self, path: &[u8], stat: &Stat) -> bool {
        let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let mode: RawMode = stat.st_mode & 0o7777;
        matches!(self.files.get(path), Some(Pin::Same { held: Some(held), seconds, .. })
            if file && *held == (mode, stat.st_uid, stat.st_gid) && *seconds == stat.st_mtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(content: &str, seconds: i64) -> Item {
        Item {
            path: Vec::new(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            digest: Some(Digest::of(content.as_bytes())),
            mtime: (seconds, 5),
            rdev: 0,
            target: Vec::new(),
            xattrs: Vec::new(),
            link: None,
            inode: None,
        }
    }

    fn row(path: &str, content: &str, seconds: i64) -> Row {
        let digest = Some(Digest::of(content.as_bytes()));
        Row { digest, mtime: seconds * 1_000_000_000, ..Row::bare(path, Kind::File) }
    }

    #[test]
    fn what_is_equal_keeps_its_time_and_what_changed_is_newer_than_the_last_build() {
        let mut pins = Pins::new(1000, 2000);
        pins.add(row("f", "one", 50));
        assert_eq!(pins.time(b"f", &item("one", 1500)), (50, 0));
        assert_eq!(pins.time(b"f", &item("two", 1500)), (1500, 5));
        assert_eq!(pins.time(b"f", &item("two", 1000)), (2000, 0));
        assert_eq!(pins.time(b"new", &item("two", 10)), (10, 5));
    }

    #[test]
    fn what_builds_do_not_agree_on_is_new() {
        let mut pins = Pins::new(1000, 2000);
        pins.add(row("f", "one", 50));
        pins.add(row("f", "one", 60));
        assert_eq!(pins.time(b"f", &item("one", 70)), (50, 0));
        pins.add(row("f", "two", 60));
        assert_eq!(pins.time(b"f", &item("one", 70)), (2000, 0));
        assert_eq!(pins.time(b"f", &item("two", 70)), (2000, 0));
    }
}
