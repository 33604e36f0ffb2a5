//! Times that COPY gives: what did not change since the last build keeps the time it had, and what changed is not older
//! than that build. So tools that compare times, as make does, neither do everything again after a fresh clone nor
//! take something changed for old.

use std::collections::HashMap;

use super::select::Item;
use crate::image::Digest;
use crate::layer::{Kind, Row};

/// What the last builds copied, by path in the image.
#[derive(Debug)]
pub struct Pins {
    files: HashMap<Vec<u8>, Pin>,
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
    },
    /// They copied several contents to this place.
    Several,
}

impl Pins {
    pub fn new(last: i64, now: i64) -> Self {
        Pins { files: HashMap::new(), last, now }
    }

    /// One file that was copied; the latest build's come first.
    pub fn add(&mut self, row: Row) {
        use std::collections::hash_map::Entry;
        if !matches!(row.kind, Kind::File | Kind::Symlink) {
            return;
        }
        let seconds = row.mtime.div_euclid(1_000_000_000);
        match self.files.entry(row.path) {
            Entry::Vacant(place) => {
                place.insert(Pin::Same { digest: row.digest, target: row.target, seconds });
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
            Some(Pin::Same { digest, target, seconds })
                if *digest == item.digest && *target == item.target =>
            {
                (*seconds, 0)
            }
            Some(_) if item.mtime.0 <= self.last => (self.now, 0),
            _ => item.mtime,
        }
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
