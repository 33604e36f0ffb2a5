//! Blobs by digest: `blobs/sha256/<hex>`, written once, verified when written and when read.
//!
//! The row in the index says what is there. A blob in the making is a file without a name, so whoever dies leaves
//! nothing; it gets its name in the transaction that inserts its row, and is durable after the barrier. One that comes from
//! elsewhere lies in `ingest/` meanwhile, to go on where it stopped ([`Incoming`]). Files get
//! and lose their names only while the index's write lock is held, so that a blob being removed and the same blob coming
//! back never meet.

mod incoming;
mod read;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::db::{Db, Lease, Writer};
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest};
use crate::job::Job;
use crate::transfer::Stream;

pub use incoming::{Growing, Incoming};
pub use read::BlobReader;
pub use write::{BlobWriter, Staged};

/// Whether a blob comes.
pub enum Coming<T> {
    /// It has not to.
    IsHere,
    Now(T),
    /// Somebody else is bringing it.
    ByAnother,
}

impl<T> Coming<T> {
    /// What comes; the stream is told of a blob that does not come by it.
    pub fn by(self, stream: &mut Stream<'_>, blobs: &Blobs) -> Option<T> {
        match self {
            Coming::Now(what) => return Some(what),
            Coming::IsHere => stream.is_here(),
            Coming::ByAnother => stream.comes_by_another(blobs.come(stream.digest())),
        }
        None
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    db: Db,
}

impl Blobs {
    pub fn open(db: &Db) -> Blobs {
        Blobs { db: db.clone() }
    }

    /// Where the bytes lie, whether they do or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        path(self.db.root(), digest)
    }

    /// Whether the index has it, to stay.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.db.read(|reader| reader.find_blob(digest))?.is_some())
    }

    /// Whether its bytes are here, though it may be about to go: nothing goes that was seen by a process that is at work.
    pub fn is_here(&self, digest: &Digest) -> Result<bool> {
        self.db.read(|reader| {
            Ok(reader.find_blob(digest)?.is_some() || reader.blob(digest)?.is_some_and(|row| row.durable))
        })
    }

    /// In bytes; `None` if it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.db.read(|reader| reader.find_blob(digest))?.map(|row| row.size))
    }

    /// Takes the bytes of a blob. What is expected and does not come out so is `Corrupt`.
    pub fn writer(&self, digest: Option<Digest>, size: Option<u64>) -> Result<BlobWriter> {
        BlobWriter::new(self.db.clone(), digest, size)
    }

    /// A blob that comes from elsewhere, as far as it came before.
    pub fn incoming(&self, digest: &Digest, size: u64) -> Result<Coming<Incoming>> {
        if !self.contains(digest)? {
            match self.db.try_incoming(digest)? {
                None => return Ok(Coming::ByAnother),
                // It may have come between our looking and our taking.
                Some(lease) if !self.contains(digest)? => {
                    return Incoming::open(&self.db, digest, size, lease).map(Coming::Now);
                }
                Some(_) => return Ok(Coming::IsHere),
            }
        }
        incoming::forget(&self.db, digest)?;
        Ok(Coming::IsHere)
    }

    /// The blob from the stream, as far as it did not come before. The lease is [`Incoming::receive`]'s.
    pub fn bring(&self, blob: &Descriptor, stream: &mut Stream<'_>, job: &Job) -> Result<Coming<Lease>> {
        match self.incoming(&blob.digest, blob.size)? {
            Coming::Now(incoming) => {
                incoming.receive(&mut |incoming| incoming.fill(stream, job)).map(Coming::Now)
            }
            Coming::IsHere => Ok(Coming::IsHere),
            Coming::ByAnother => Ok(Coming::ByAnother),
        }
    }

    /// The bytes of a blob that is not to stay, as a file; they come as in `bring`, and lie in `ingest/` until they are `spent`.
    /// It is looked whether they `are_needed` when nobody else can take them away any more: those who shared them may be done.
    pub fn spool(
        &self,
        blob: &Descriptor,
        stream: &mut Stream<'_>,
        are_needed: &dyn Fn() -> Result<bool>,
        job: &Job,
    ) -> Result<Coming<File>> {
        match self.incoming(&blob.digest, blob.size)? {
            Coming::Now(incoming) => match are_needed() {
                Ok(false) => incoming.discard().map(|()| Coming::IsHere),
                needed => {
                    needed?;
                    incoming.spool(&mut |incoming| incoming.fill(stream, job)).map(Coming::Now)
                }
            },
            Coming::IsHere => File::open(self.path(&blob.digest))
                .map(Coming::Now)
                .context(|| format!("opening the blob {}", blob.digest)),
            Coming::ByAnother => Ok(Coming::ByAnother),
        }
    }

    /// What was spooled is needed no more.
    pub fn spent(&self, digest: &Digest) -> Result<()> {
        incoming::spent(&self.db, digest)
    }

    /// Bytes that have come so far of a blob on its way here.
    pub fn come(&self, digest: &Digest) -> u64 {
        let path = self.db.root().join("ingest").join(digest.hex());
        std::fs::metadata(path).map_or(0, |file| file.len())
    }

    /// A blob of bytes in memory, not yet named: see [`Staged`].
    pub fn stage(&self, bytes: &[u8]) -> Result<Staged> {
        let mut writer = self.writer(None, Some(bytes.len() as u64))?;
        std::io::Write::write_all(&mut writer, bytes).context(|| "writing a blob")?;
        writer.finish()
    }

    /// A small blob from memory, published.
    pub fn put(&self, bytes: &[u8], media_type: Option<&str>) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.db.read(|reader| reader.find_blob(&digest))?.is_some() {
            return Ok(digest);
        }
        let staged = self.stage(bytes)?;
        self.db.write(|writer| staged.publish(writer, media_type))
    }

    /// Its bytes; the last read fails (`Corrupt`) if they are not what the digest says.
    pub fn read(&self, digest: &Digest) -> Result<BlobReader> {
        let row = self.db.read(|reader| reader.blob(digest))?;
        let row = row.ok_or_else(|| missing(digest))?;
        match File::open(self.path(digest)) {
            Ok(file) => Ok(BlobReader::new(file, *digest, row.size)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Err(missing(digest)
                .hint("`outcrop system check` says what is wrong with the store")
                .because(cause)),
            Err(cause) => Err(cause).context(|| format!("opening the blob {digest}")),
        }
    }

    /// All of it, verified. `Invalid` where it is longer than `most` bytes: for manifests and configs.
    pub fn read_all(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let mut reader = self.read(digest)?;
        if reader.size() > most {
            return Err(Error::invalid(format!(
                "the blob {digest} has {} bytes; at most {most} are read here",
                reader.size()
            )));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes)
            .context(|| format!("reading the blob {digest}"))?;
        Ok(bytes)
    }

    /// Reads it all and says whether it is what its digest says.
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        std::io::copy(&mut self.read(digest)?, &mut std::io::sink())
            .map(drop)
            .context(|| format!("verifying the blob {digest}"))
    }

    /// Files among the blobs that no row knows: for `system check`.
    pub fn strangers(&self) -> Result<Vec<PathBuf>> {
        let listing = || "listing the blobs";
        let mut strangers = Vec::new();
        for entry in std::fs::read_dir(self.db.root().join("blobs/sha256")).context(listing)? {
            let path = entry.context(listing)?.path();
            let digest = path.file_name().and_then(|name| name.to_str()).and_then(Digest::from_hex);
            let known = match digest {
                // In a write transaction: a blob gets its name and its row in one.
                Some(digest) => {
                    self.db.write(|writer| Ok(writer.blob(&digest)?.is_some() || !path.exists()))?
                }
                None => false,
            };
            if !known {
                strangers.push(path);
            }
        }
        strangers.sort();
        Ok(strangers)
    }

    /// Fills the index from a file that lies there already, verified by the caller: when the index is made again.
    pub fn adopt(&self, writer: &Writer<'_>, digest: &Digest, media_type: Option<&str>) -> Result<()> {
        let metadata =
            std::fs::metadata(self.path(digest)).context(|| format!("looking at the blob {digest}"))?;
        writer.insert_blob(digest, metadata.len(), media_type)
    }
}

fn path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format!("the store has no blob {digest}"))
}
