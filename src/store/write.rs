//! Writing a blob: hashed while it passes, nameless until it is published.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::path;
use crate::db::{Db, Lease, Writer};
use crate::error::{Context as _, Error, Result};
use crate::image::{Digest, Hasher};

/// Dropped before `finish`, nothing is left of it.
pub struct BlobWriter {
    db: Db,
    body: Body,
    hasher: Hasher,
    written: u64,
    digest: Option<Digest>,
    size: Option<u64>,
}

/// Bytes that are verified and complete, and have no name yet. Dropped, nothing is left of them.
///
/// `publish` belongs into the transaction that refers to the blob: then it is never there without being needed.
pub struct Staged {
    db: Db,
    body: Body,
    digest: Digest,
    size: u64,
}

/// The file in the making.
struct Body {
    file: File,
    /// Where the filesystem cannot make files without a name: one in ingest/, removed by the sweep if we die.
    named: Option<Named>,
}

struct Named {
    db: Db,
    path: PathBuf,
    intent: u64,
    _lease: Lease,
}

impl Drop for Named {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
        // Inside of a transaction this fails; the sweep does it then.
        drop(self.db.write(|writer| writer.fulfil(self.intent)));
    }
}

impl Body {
    fn new(db: &Db) -> Result<Body> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(db.root().join("blobs/sha256"), flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Body { file: file.into(), named: None }),
            // Filesystems without O_TMPFILE say one of these (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => Self::named(db),
            Err(cause) => Err(cause).context(|| "making a file for a blob"),
        }
    }

    fn named(db: &Db) -> Result<Body> {
        let lease = db.lease()?;
        let intent = db.write(|writer| writer.intend("ingest", None, Some(lease.name()), &lease))?;
        let path = db.root().join("ingest").join(lease.name());
        let making = || format!("making {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context(making)?;
        Ok(Body { file, named: Some(Named { db: db.clone(), path, intent, _lease: lease }) })
    }

    /// Gives it its name; nothing has that name.
    fn link(&self, to: &Path) -> io::Result<()> {
        match &self.named {
            Some(named) => fs::hard_link(&named.path, to),
            // open(2), "O_TMPFILE": the way that takes no privileges.
            None => rustix::fs::linkat(
                CWD,
                format!("/proc/self/fd/{}", self.file.as_raw_fd()),
                CWD,
                to,
                AtFlags::SYMLINK_FOLLOW,
            )
            .map_err(io::Error::from),
        }
    }
}

/// In one piece, and a full disk is found out now. Some filesystems cannot.
pub(super) fn make_room(file: &File, size: u64) -> Result<()> {
    if size <= 1 << 20 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, size) {
        Err(cause @ (Errno::NOSPC | Errno::DQUOT)) => {
            Err(cause).context(|| format!("making room for a blob of {size} bytes"))
        }
        _ => Ok(()),
    }
}

impl BlobWriter {
    pub(super) fn new(db: Db, digest: Option<Digest>, size: Option<u64>) -> Result<Self> {
        let body = Body::new(&db)?;
        if let Some(size) = size {
            make_room(&body.file, size)?;
        }
        Ok(BlobWriter { db, body, hasher: Hasher::new(), written: 0, digest, size })
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// All bytes are there: are they the expected ones?
    pub fn finish(self) -> Result<Staged> {
        let found = self.hasher.finish();
        let name = || self.digest.map_or_else(|| "a blob".to_owned(), |digest| format!("the blob {digest}"));
        if let Some(size) = self.size.filter(|size| *size != self.written) {
            return Err(Error::corrupt(format!("{} has {} bytes in place of {size}", name(), self.written)));
        }
        if self.digest.is_some_and(|digest| digest != found) {
            return Err(Error::corrupt(format!("{} came with bytes of another digest, {found}", name())));
        }
        let size = self.written;
        self.db.write(|writer| writer.expect_blob(&found, size))?;
        Ok(Staged { db: self.db, body: self.body, digest: found, size })
    }

    /// `finish`, and published in a transaction of its own.
    pub fn commit(self, media_type: Option<&str>) -> Result<Digest> {
        let db = self.db.clone();
        let staged = self.finish()?;
        db.write(|writer| staged.publish(writer, media_type))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.body.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        if let Some(size) = self.size.filter(|size| self.written > *size) {
            return Err(Error::corrupt(format!("a blob of {size} bytes goes on beyond its end")).into());
        }
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Staged {
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// In bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives the bytes their name. Visible when the transaction commits, durable after the barrier. Where the blob is
    /// there already, it stays as it is.
    pub fn publish(&self, writer: &Writer<'_>, media_type: Option<&str>) -> Result<Digest> {
        publish(&self.db, writer, &self.digest, self.size, media_type, &|path| self.body.link(path))
    }
}

/// `link` gives the bytes a name that nothing has.
pub(super) fn publish(
    db: &Db,
    writer: &Writer<'_>,
    digest: &Digest,
    size: u64,
    media_type: Option<&str>,
    link: &dyn Fn(&Path) -> io::Result<()>,
) -> Result<Digest> {
    let path = path(db.root(), digest);
    let naming = || format!("naming {}", path.display());
    let known = writer.blob(digest)?;
    let usable = known.is_some_and(|row| row.durable) || writer.find_blob(digest)?.is_some();
    if usable && path.try_exists().context(naming)? {
        writer.keep_blob(digest)?;
        return Ok(*digest);
    }
    match link(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            // Left there by a power cut, or on its way out: nobody vouches for it.
            fs::remove_file(&path).context(naming)?;
            link(&path).context(naming)?;
        }
        linked => linked.context(naming)?,
    }
    writer.insert_blob(digest, size, media_type)?;
    Ok(*digest)
}
