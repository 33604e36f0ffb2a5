//! What an archive has put where so far: some 100 bytes for each member, and no paths.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use super::tree::Xattrs;
use super::{Kind, Row};
use crate::error::{Error, Result};
use crate::image::Digest;

/// Members of one archive. The largest layers known have two million.
const MEMBERS: usize = 4 << 20;
/// Bytes of link targets, xattrs and paths that are remembered.
const HELD: usize = 64 << 20;
const NONE: u32 = u32::MAX;

/// What stands at a path. Numbers index the table.
#[derive(Clone)]
pub(super) struct Slot {
    parent: u32,
    pub(super) kind: Kind,
    dead: bool,
    pub(super) implied: bool,
    pub(super) opaque: bool,
    mode: u16,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    /// The number its data has in the recipe.
    recipe: u32,
    link: u32,
    extra: u32,
    digest: u32,
}

#[derive(Default)]
struct Extra {
    target: Vec<u8>,
    rdev: (u32, u32),
    xattrs: Xattrs,
}

pub(super) struct Seen {
    slots: Vec<Slot>,
    /// By the keyed hash of the path: nobody can choose paths that collide, and by chance they do not.
    by_path: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    key: RandomState,
    extras: Vec<Extra>,
    digests: Vec<Digest>,
    links: u32,
    held: usize,
    most: usize,
}

#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) const ROOT: u32 = 0;

impl Seen {
    /// The root alone, implied.
    pub(super) fn new() -> Self {
        let mut seen = Seen {
            slots: Vec::new(),
            by_path: HashMap::default(),
            key: RandomState::new(),
            extras: Vec::new(),
            digests: Vec::new(),
            links: 0,
            held: 0,
            most: MEMBERS,
        };
        seen.put(ROOT, &implied_dir(Vec::new())).expect("the first of many");
        seen
    }

    pub(super) fn slot(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }
    pub(super) fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }

    /// What this archive put at `path`, if nothing else has taken its place or that of a directory above it.
    pub(super) fn find(&self, path: &[u8]) -> Option<u32> {
        let at = *self.by_path.get(&self.key.hash_one(path))?;
        self.lives(at).then_some(at)
    }

    fn lives(&self, mut at: u32) -> bool {
        loop {
            let slot = self.slot(at);
            if slot.dead {
                return false;
            }
            if at == ROOT {
                return true;
            }
            at = slot.parent;
        }
    }

    /// Puts a row's file where it says; what stood there is dead.
    pub(super) fn put(&mut self, parent: u32, row: &Row) -> Result<u32> {
        if self.slots.len() >= self.most {
            return Err(Error::unsupported(format!("the archive has more than {} members", self.most))
                .hint("no real layer has so many; this one may be made to do harm"));
        }
        let plain = row.target.is_empty() && row.xattrs.is_empty() && row.rdev == (0, 0);
        let extra = if plain { NONE } else { self.hold_extra(row)? };
        let slot = Slot {
            parent,
            kind: row.kind,
            dead: false,
            implied: row.implied,
            opaque: row.opaque,
            mode: u16::try_from(row.mode & 0o7777).expect("masked"),
            uid: row.uid,
            gid: row.gid,
            size: row.size,
            mtime: row.mtime,
            recipe: NONE,
            link: row.link.unwrap_or(NONE),
            extra,
            digest: NONE,
        };
        let at = u32::try_from(self.slots.len()).expect("bounded above");
        self.slots.push(slot);
        if let Some(digest) = row.digest {
            self.learn(at, digest);
        }
        if let Some(old) = self.by_path.insert(self.key.hash_one(&row.path[..]), at) {
            self.slot_mut(old).dead = true;
        }
        Ok(at)
    }

    fn hold_extra(&mut self, row: &Row) -> Result<u32> {
        let xattrs: usize = row.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.hold(size_of::<Extra>() + row.target.len() + xattrs)?;
        self.extras.push(Extra { target: row.target.clone(), rdev: row.rdev, xattrs: row.xattrs.clone() });
        Ok(u32::try_from(self.extras.len() - 1).expect("fewer than slots"))
    }

    /// Accounts for bytes that are kept until the end.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<()> {
        self.held += bytes;
        if self.held > HELD {
            return Err(Error::unsupported(format!(
                "the archive has more than {HELD} bytes of link targets, extended attributes and directory names"
            ))
            .hint("no real layer has so many; this one may be made to do harm"));
        }
        Ok(())
    }

    /// A directory keeps what stands in it when it comes again.
    pub(super) fn update_dir(&mut self, at: u32, row: &Row) -> Result<()> {
        let plain = row.xattrs.is_empty();
        let extra = if plain { NONE } else { self.hold_extra(row)? };
        let slot = self.slot_mut(at);
        slot.implied = row.implied;
        slot.mode = u16::try_from(row.mode & 0o7777).expect("masked");
        (slot.uid, slot.gid, slot.mtime, slot.extra) = (row.uid, row.gid, row.mtime, extra);
        Ok(())
    }

    pub(super) fn learn(&mut self, at: u32, digest: Digest) {
        self.slot_mut(at).digest = u32::try_from(self.digests.len()).expect("fewer than slots");
        self.digests.push(digest);
    }

    pub(super) fn set_recipe(&mut self, at: u32, number: u32) {
        self.slot_mut(at).recipe = number;
    }
    pub(super) fn recipe(&self, at: u32) -> Option<u32> {
        Some(self.slot(at).recipe).filter(|number| *number != NONE)
    }

    /// The group of a file that now has two names, and whether it is new.
    pub(super) fn group(&mut self, at: u32) -> (u32, bool) {
        let new = self.slot(at).link == NONE;
        if new {
            self.slot_mut(at).link = self.links;
            self.links += 1;
        }
        (self.slot(at).link, new)
    }

    pub(super) fn symlink(&self, at: u32) -> Option<&[u8]> {
        let slot = self.slot(at);
        (slot.kind == Kind::Symlink).then(|| self.extras[slot.extra as usize].target.as_slice())
    }

    pub(super) fn row(&self, at: u32, path: &[u8]) -> Row {
        let slot = self.slot(at);
        let empty = Extra::default();
        let extra = self.extras.get(slot.extra as usize).unwrap_or(&empty);
        Row {
            path: path.to_vec(),
            kind: slot.kind,
            mode: slot.mode.into(),
            uid: slot.uid,
            gid: slot.gid,
            size: slot.size,
            digest: self.digests.get(slot.digest as usize).copied(),
            mtime: slot.mtime,
            rdev: extra.rdev,
            target: extra.target.clone(),
            link: Some(slot.link).filter(|link| *link != NONE),
            opaque: slot.opaque,
            implied: slot.implied,
            xattrs: extra.xattrs.clone(),
        }
    }

    /// How many rows there are at the end, and the bytes of their files, each inode once.
    pub(super) fn totals(&self) -> (u64, u64) {
        let mut groups = vec![false; self.links as usize];
        let (mut rows, mut bytes) = (0, 0);
        for (at, slot) in self.slots.iter().enumerate() {
            let silent_root = at == ROOT as usize && slot.implied && !slot.opaque;
            if silent_root || !self.lives(u32::try_from(at).expect("bounded by `put`")) {
                continue;
            }
            rows += 1;
            let counted =
                groups.get_mut(slot.link as usize).is_some_and(|seen| std::mem::replace(seen, true));
            if !counted && !slot.implied {
                bytes += slot.size;
            }
        }
        (rows, bytes)
    }
}

/// A directory the archive does not describe.
pub(super) fn implied_dir(path: Vec<u8>) -> Row {
    Row { mode: 0o755, implied: true, ..Row::bare(path, Kind::Dir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted_even_where_one_replaces_the_other() {
        let mut seen = Seen::new();
        seen.most = 1000;
        for _ in 0..999 {
            seen.put(ROOT, &Row::bare(*b"same", Kind::File)).unwrap();
        }
        let error = seen.put(ROOT, &Row::bare(*b"same", Kind::File)).unwrap_err();
        assert_eq!(error.message(), "the archive has more than 1000 members");
        assert_eq!(seen.totals(), (1, 0));
    }

    #[test]
    fn what_stood_in_a_directory_dies_with_it() {
        let mut seen = Seen::new();
        let dir = seen.put(ROOT, &Row::bare(*b"d", Kind::Dir)).unwrap();
        seen.put(dir, &Row::bare(*b"d/f", Kind::File)).unwrap();
        assert!(seen.find(b"d/f").is_some());
        seen.put(ROOT, &Row::bare(*b"d", Kind::File)).unwrap();
        assert!(seen.find(b"d/f").is_none());
        let dir = seen.put(ROOT, &Row::bare(*b"d", Kind::Dir)).unwrap();
        assert!(seen.find(b"d/f").is_none());
        seen.put(dir, &Row::bare(*b"d/f", Kind::File)).unwrap();
        assert!(seen.find(b"d/f").is_some());
        assert_eq!(seen.totals().0, 2);
    }
}
