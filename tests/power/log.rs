//! Every write of a disk, in the order in which it came to be durable: the log of the kernel's `log-writes` target
//! (Documentation/admin-guide/device-mapper/log-writes.rst; the format is in drivers/md/dm-log-writes.c).
//!
//! A write is logged once a flush behind it has ended, or as it ends if it was forced (FUA). So what stands before a
//! place in the log is what a disk with a volatile cache has for certain when the power is cut there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

pub(super) struct Log {
    file: File,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Of the disk, in bytes.
    at: u64,
    /// In bytes.
    length: u64,
    flags: u64,
    /// Where in the log its bytes are.
    bytes: u64,
    /// What `dmsetup message ... mark` said.
    pub(super) mark: Option<String>,
}

impl Entry {
    pub(super) fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
    pub(super) fn is_forced(&self) -> bool {
        self.flags & FUA != 0
    }
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Log {
    pub(super) fn read(path: &Path) -> Log {
        let file = File::open(path).unwrap();
        let number = |at: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!((number(0), number(8)), (MAGIC, 1), "a log of `log-writes`");
        let count = number(16);
        assert_eq!(number(24) & 0xffff_ffff, SECTOR, "its sectors");
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..count {
            let (sector, sectors, flags, length) =
                (number(at), number(at + 8), number(at + 16), number(at + 24));
            let mark = (flags & MARK != 0).then(|| {
                let mut text = vec![0; usize::try_from(length).unwrap()];
                file.read_exact_at(&mut text, at + 32).unwrap();
                String::from_utf8(text).unwrap().trim_end_matches('\0').to_owned()
            });
            at += SECTOR;
            entries.push(Entry { at: sector * SECTOR, length: sectors * SECTOR, flags, bytes: at, mark });
            if flags & DISCARD == 0 {
                at += sectors * SECTOR;
            }
        }
        Log { file, entries }
    }

    /// Does it to a disk. A discard may as well not have happened.
    pub(super) fn apply(&self, entry: &Entry, disk: &File) {
        if entry.is_empty() || entry.flags & (DISCARD | MARK) != 0 {
            return;
        }
        let mut bytes = vec![0; usize::try_from(entry.length).unwrap()];
        self.file.read_exact_at(&mut bytes, entry.bytes).unwrap();
        disk.write_all_at(&bytes, entry.at).unwrap();
    }
}
