//! The files of a cache mount: a list of them, and their bytes in packs.
//!
//! A pack is zstd over the bytes of files, one behind the other; which these are, another blob says. A file whose bytes stand in
//! a pack that the other side has is not sent again; a pack of which less than half is still needed is made anew.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Hasher};
use crate::layer::{Kind, Row, compress, split};

pub(super) const PACK: &str = "application/vnd.outcrop.cache.files.v1+zstd";
pub(super) const PACKS: &str = "application/vnd.outcrop.cache.packs.v1+json";

/// Bytes of files after which the next pack begins.
pub(super) const FULL: u64 = 32 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pack {
    pub(super) blob: Descriptor,
    /// Digest and size of each file, in order.
    pub(super) files: Vec<(Digest, u64)>,
}

impl Pack {
    /// At least half of its bytes, of those that are needed.
    pub(super) fn is_worth_it(&self, needed: &HashSet<Digest>) -> bool {
        let all: u64 = self.files.iter().map(|(_, size)| size).sum();
        let live: u64 =
            self.files.iter().filter(|(digest, _)| needed.contains(digest)).map(|(_, size)| size).sum();
        self.files.iter().any(|(digest, _)| needed.contains(digest)) && live.saturating_mul(2) >= all
    }
}

/// A pack in the making.
pub(super) struct Packing {
    file: File,
    files: Vec<(Digest, u64)>,
    bytes: u64,
}

impl Packing {
    /// `file`: empty, and nobody else's.
    pub(super) fn new(file: File) -> Self {
        Packing { file, files: Vec::new(), bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// `Conflict` where the file has other bytes by now.
    pub(super) fn add(&mut self, path: &Path, digest: Digest, size: u64) -> Result<()> {
        let doing = || format!("reading {}", path.display());
        let mut from = File::open(path).context(doing)?;
        let mut hashed = Hashed { out: &mut self.file, hasher: Hasher::new() };
        let copied = std::io::copy(&mut from, &mut hashed).context(doing)?;
        if copied != size || hashed.hasher.finish() != digest {
            return Err(Error::conflict(format!("{} changes while it is read", path.display())));
        }
        self.files.push((digest, size));
        self.bytes += size;
        Ok(())
    }

    /// The bytes, to be compressed, and whose they are.
    pub(super) fn finish(self) -> (File, Vec<(Digest, u64)>) {
        (self.file, self.files)
    }
}

struct Hashed<'o> {
    out: &'o mut dyn Write,
    hasher: Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Writes the files of an untrusted pack, each to the first of the paths that want its bytes.
pub(super) fn unpack(
    pack: &Pack,
    blob: impl Read + Send,
    wanted: &HashMap<Digest, Vec<&Row>>,
    written: &mut HashSet<Digest>,
    into: &Path,
) -> Result<()> {
    let doing = || "reading the files of a cache mount";
    let zstd = compress::by_name("zstd").expect("it is in the table");
    let mut reader = zstd.decoder(Box::new(blob))?;
    for (digest, size) in &pack.files {
        let first = wanted.get(digest).and_then(|rows| rows.first()).filter(|_| !written.contains(digest));
        let mut bytes = reader.by_ref().take(*size);
        let mut out: Box<dyn Write> = match first {
            Some(row) => {
                let path = place(into, row);
                Box::new(File::create_new(&path).context(|| format!("making {}", path.display()))?)
            }
            None => Box::new(std::io::sink()),
        };
        let mut hashed = Hashed { out: &mut out, hasher: Hasher::new() };
        let copied = std::io::copy(&mut bytes, &mut hashed).context(doing)?;
        if copied != *size || hashed.hasher.finish() != *digest {
            return Err(Error::corrupt("a pack of files has other bytes than its list says"));
        }
        if first.is_some() {
            written.insert(*digest);
        }
    }
    Ok(())
}

pub(super) fn place(into: &Path, row: &Row) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    into.join(std::ffi::OsStr::from_bytes(&row.path))
}

/// Every path stands in a directory of the list: nothing is written behind a link.
pub(super) fn check(rows: &[Row]) -> Result<()> {
    let dirs: HashSet<&[u8]> =
        rows.iter().filter(|row| row.kind == Kind::Dir).map(|row| &row.path[..]).collect();
    let stands = |row: &Row| {
        let above = split(&row.path).0;
        let plain = matches!(row.kind, Kind::Dir | Kind::File | Kind::Symlink) && !row.implied && !row.opaque;
        plain && dirs.contains(above) && (row.kind != Kind::File || row.digest.is_some())
    };
    match rows.iter().find(|row| !stands(row)) {
        None => Ok(()),
        Some(row) => Err(Error::corrupt(format!(
            "the list of a cache mount's files has `{}`, which cannot stand there",
            row.path.escape_ascii()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_behind_a_link_is_refused() {
        let file = |path: &str| Row { digest: Some(Digest::of(b"")), ..Row::bare(path, Kind::File) };
        let root = || Row::bare("", Kind::Dir);
        assert!(check(&[root(), file("a")]).is_ok());
        assert!(check(&[root(), Row::bare("a", Kind::Symlink), file("a/b")]).is_err());
        assert!(check(&[root(), file("a/b")]).is_err());
        assert!(check(&[root(), Row::bare("a", Kind::Block)]).is_err());
        assert!(check(&[file("a")]).is_err());
    }

    #[test]
    fn a_pack_is_kept_while_half_of_it_is_needed() {
        let blob = Descriptor::of(crate::image::MediaType::from(PACK), b"");
        let files = vec![(Digest::of(b"a"), 10), (Digest::of(b"b"), 10), (Digest::of(b"c"), 1)];
        let pack = Pack { blob, files };
        let worth =
            |needed: &[&[u8]]| pack.is_worth_it(&needed.iter().map(|bytes| Digest::of(bytes)).collect());
        assert!(worth(&[b"a", b"c"]));
        assert!(!worth(&[b"a"]));
        assert!(!worth(&[]));
    }
}
