//! Moving images: where they come from, the flow that brings one here, and where they go.
//!
//! A [`Source`] knows names, manifests and blobs, and promises nothing about their bytes. What reads from one verifies:
//! [`find`] the manifests and the config, [`Found::fetch`] the layers, whose [`Layer`] streams end in an error unless
//! size and digest are the promised ones. Where things go is the caller's: it takes children before parents, and the
//! name last, so that a name never points at an image that is not all there.

mod fetch;
mod pieces;
mod stream;
mod turns;

use std::io::{Read, Write};
use std::ops::Range;

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Reference};
use crate::job::Job;

pub use fetch::{Found, Layer, bring, find};
pub(crate) use fetch::{guarded, read_config};
pub use stream::Stream;
pub(crate) use turns::side_by_side;

/// Where images come from: a registry, a layout on disk, an archive.
///
/// Serves many threads at once. A name given here belongs to this source; `Descriptor`s come from its own manifests.
/// Every call may be repeated. Absence is an error of kind `NotFound` that says where was looked; what may come back is
/// `Unavailable`, after the source has retried as it sees fit.
pub trait Source: Send + Sync {
    /// For people, after "from" or "at": `registry-1.docker.io`, `the archive x.tar`.
    fn place(&self) -> String;

    /// What the name's digest, else its tag, points at: a manifest or an index, and its bytes. The descriptor's digest
    /// and size are those of the bytes; where the name holds a digest they have been compared.
    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)>;

    /// A manifest's bytes, at most [`crate::image::MAX_MANIFEST`].
    fn manifest(&self, job: &Job, name: &Reference, wanted: &Descriptor) -> Result<Vec<u8>>;

    /// A blob from byte `offset` on; the reader may give an error, too few bytes or wrong ones, and never more than
    /// `wanted.size - offset`. Reading continues over dropped connections where the source can.
    fn blob<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>>;

    /// What stands under another tag of the same repository; `None`: nothing, or the source knows no tags.
    fn tagged(&self, _: &Job, _: &Reference, _: &str) -> Result<Option<(Descriptor, Vec<u8>)>> {
        Ok(None)
    }

    /// All tags of the name's repository, in the source's order; empty where the source knows none.
    fn tags(&self, _: &Job, _: &Reference) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What refers to a manifest as its subject: signatures, SBOMs (distribution-spec, "Listing Referrers"). Their
    /// manifests are had by their digests.
    fn referrers(&self, _: &Job, _: &Reference, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }

    /// Some bytes of a blob, for whoever fetches several parts at once. Where the source gives no parts, it may refuse, or
    /// go on to the end of the blob.
    fn part<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        part: Range<u64>,
    ) -> Result<Given<'a>> {
        self.blob(job, name, wanted, part.start).map(Given::Rest)
    }

    /// The job was cancelled: calls that block in other threads must return soon. The source is spent after it.
    fn interrupt(&self) {}
}

/// What came of asking for a part.
pub enum Given<'a> {
    /// No byte more.
    Part(Box<dyn Read + Send + 'a>),
    /// All from where the part begins.
    Rest(Box<dyn Read + Send + 'a>),
}

/// Writes a blob's bytes, all of them.
pub type Fill<'a> = dyn FnMut(&mut dyn Write) -> Result<()> + 'a;

/// Where images go: a layout on disk, an archive, the store.
///
/// Children come before parents: layers and config, the manifest, the index. What is given twice is kept once. Nothing
/// of it has a name before the end, which each sink has in its own form.
pub trait Sink {
    /// Takes a blob. `fill` may be called once, or never where the bytes are there already; an error of it is passed
    /// on. Bytes that are not as many as the descriptor promises are an error; their digest is vouched for by `fill`.
    fn blob(&mut self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()>;
}

/// Counts what passes, against what was promised.
pub struct Counted<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl<'a> Counted<'a> {
    pub fn new(out: &'a mut dyn Write, size: u64) -> Self {
        Counted { out, left: size }
    }

    pub fn finish(self, blob: &Descriptor) -> Result<()> {
        match self.left {
            0 => Ok(()),
            left => Err(Error::internal(format!(
                "{} came with {left} bytes less than its descriptor says",
                blob.digest
            ))),
        }
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        match self.left.checked_sub(written as u64) {
            Some(left) => self.left = left,
            None => return Err(Error::internal("a blob goes on beyond its end").into()),
        }
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
