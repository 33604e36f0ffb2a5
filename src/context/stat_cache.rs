//! Digests of files that have not changed since they were read, so that an unchanged context is not read again.
//!
//! A file is trusted when device, inode, size, mtime and ctime are what they were, and when it had been at rest for
//! a while when it was read: a change in the same clock tick leaves every time stamp as it was. One file per
//! context; a pure cache: whatever is wrong with it, it is empty.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

use crate::error::{Context as _, Result};
use crate::image::{Digest, Hasher};

const MAGIC: &[u8] = b"outcrop stat cache 1\n";
/// Nanoseconds a file must have been at rest before it was read. A clock tick is 10 ms at most; file systems with
/// whole-second times are asked for two seconds.
const AT_REST: i128 = 50_000_000;
const AT_REST_COARSE: i128 = 2_000_000_000;
/// Uses of the cache after which an entry that was not asked for is dropped.
const KEEP: u8 = 8;

pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `None` for what is no regular file.
    pub digest: Option<Digest>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: i128,
    ctime: i128,
}

struct Entry {
    stamp: Stamp,
    known: Known,
    unused: u8,
}

pub struct StatCache {
    file: Option<PathBuf>,
    /// Where a new one is written; what lies there may go at any moment.
    scratch: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Vec<u8>, Entry>,
    changed: bool,
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        let ns = |seconds: i64, nanos: i128| i128::from(seconds) * 1_000_000_000 + nanos;
        Stamp {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: ns(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
            ctime: ns(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
        }
    }

    fn at_rest(&self, now: i128) -> bool {
        let needed = if self.ctime % 1_000_000_000 == 0 { AT_REST_COARSE } else { AT_REST };
        now - self.ctime > needed
    }
}

fn now() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(now.as_nanos()).unwrap_or(i128::MAX)
}

impl StatCache {
    /// Remembers for this run alone.
    pub fn in_memory() -> Self {
        StatCache { file: None, scratch: PathBuf::new(), state: Mutex::default() }
    }

    /// The cache of the context at `context` (an absolute path), kept in `dir`; `scratch` is a directory on the same
    /// filesystem for what is rubbish when its process dies.
    pub fn open(dir: &Path, scratch: &Path, context: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let file = dir.join(Digest::of(context.as_os_str().as_bytes()).hex());
        let entries = fs::read(&file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        StatCache {
            file: Some(file),
            scratch: scratch.to_owned(),
            state: Mutex::new(State { entries, changed: false }),
        }
    }

    /// What is known of the file at `path` if `stat` says that it is the same.
    pub fn get(&self, path: &[u8], stat: &Stat) -> Option<Known> {
        let mut state = self.state.lock().expect("no holder panics");
        let entry = state.entries.get_mut(path)?;
        if entry.stamp != Stamp::of(stat) {
            return None;
        }
        entry.unused = 0;
        Some(entry.known.clone())
    }

    /// `before` is the file's state as it was before it was read.
    pub fn put(&self, path: &[u8], before: &Stat, known: Known) {
        let stamp = Stamp::of(before);
        if !stamp.at_rest(now()) {
            return;
        }
        let mut state = self.state.lock().expect("no holder panics");
        state.changed = true;
        state.entries.insert(path.to_vec(), Entry { stamp, known, unused: 0 });
    }

    /// Writes what was learned; replaces the file whole.
    pub fn save(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut state = self.state.lock().expect("no holder panics");
        if !state.changed {
            return Ok(());
        }
        state.entries.retain(|_, entry| entry.unused < KEEP);
        let bytes = encode(&state.entries);
        let say = || format!("writing the stat cache `{}`", file.display());
        let dir = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).context(say)?;
        let draft = self.scratch.join(format!("stat-cache-{}", crate::db::random_name()));
        let written = fs::File::create(&draft).and_then(|mut to| to.write_all(&bytes));
        let placed = match written.and_then(|()| fs::rename(&draft, file)) {
            // Taken for rubbish before it had its name: the next build tries again.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            placed => placed,
        };
        if placed.is_err() {
            drop(fs::remove_file(&draft));
        }
        state.changed = false;
        placed.context(say)
    }
}

fn encode(entries: &HashMap<Vec<u8>, Entry>) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 160);
    out.extend_from_slice(MAGIC);
    let blob = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    for (path, entry) in entries {
        blob(&mut out, path);
        let stamp = &entry.stamp;
        for number in [stamp.dev, stamp.ino, stamp.size] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&stamp.mtime.to_le_bytes());
        out.extend_from_slice(&stamp.ctime.to_le_bytes());
        out.push(entry.unused + 1);
        blob(&mut out, entry.known.digest.as_ref().map_or(&[][..], |digest| &digest.as_bytes()[..]));
        out.extend_from_slice(&u32::try_from(entry.known.xattrs.len()).unwrap_or(0).to_le_bytes());
        for (key, value) in &entry.known.xattrs {
            blob(&mut out, key);
            blob(&mut out, value);
        }
    }
    let mut hasher = Hasher::new();
    hasher.update(&out);
    out.extend_from_slice(hasher.finish().as_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<HashMap<Vec<u8>, Entry>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != sum {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut entries = HashMap::with_capacity(rest.len() / 140);
    while !rest.is_empty() {
        let path = take_blob(&mut rest)?.to_vec();
        let mut number = || Some(u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?));
        let (dev, ino, size) = (number()?, number()?, number()?);
        let mut wide = || Some(i128::from_le_bytes(take(&mut rest, 16)?.try_into().ok()?));
        let (mtime, ctime) = (wide()?, wide()?);
        let unused = take(&mut rest, 1)?[0];
        let digest = match take_blob(&mut rest)? {
            [] => None,
            bytes => Some(Digest::from_bytes(bytes.try_into().ok()?)),
        };
        let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
        let mut xattrs = Vec::new();
        for _ in 0..count {
            xattrs.push((take_blob(&mut rest)?.to_vec(), take_blob(&mut rest)?.to_vec()));
        }
        let stamp = Stamp { dev, ino, size, mtime, ctime };
        entries.insert(path, Entry { stamp, known: Known { digest, xattrs }, unused });
    }
    Some(entries)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn take_blob<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, usize::try_from(count).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back_and_a_flipped_bit_is_an_empty_cache() {
        let stamp = Stamp { dev: 1, ino: 2, size: 3, mtime: -4, ctime: 5 };
        let known =
            Known { digest: Some(Digest::of(b"x")), xattrs: vec![(b"user.a".to_vec(), b"\0\n".to_vec())] };
        let entries = HashMap::from([(b"a/\xff".to_vec(), Entry { stamp, known: known.clone(), unused: 0 })]);
        let mut bytes = encode(&entries);
        let back = decode(&bytes).unwrap();
        assert_eq!(back[&b"a/\xff"[..]].stamp, stamp);
        assert_eq!(back[&b"a/\xff"[..]].known, known);
        assert_eq!(back[&b"a/\xff"[..]].unused, 1);
        bytes[30] ^= 1;
        assert!(decode(&bytes).is_none());
    }

    #[test]
    fn a_file_that_changed_just_now_is_not_remembered() {
        let just_now = Stamp { dev: 1, ino: 1, size: 1, mtime: 0, ctime: now() };
        assert!(!just_now.at_rest(now()));
        assert!(Stamp { ctime: now() - 100_000_001, ..just_now }.at_rest(now()));
    }
}
