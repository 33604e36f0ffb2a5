//! Moving images: where they come from, and the flow that brings one here.
//!
//! A [`Source`] knows names, manifests and blobs, and promises nothing about their bytes. What reads from one verifies:
//! [`find`] the manifests and the config, [`Found::fetch`] the layers, whose [`Layer`] streams end in an error unless
//! size and digest are the promised ones. Where things go is the caller's: it takes children before parents, and the
//! name last, so that a name never points at an image that is not all there.

mod fetch;
mod stream;

use std::io::Read;

use crate::error::Result;
use crate::image::{Descriptor, Reference};
use crate::job::Job;

pub use fetch::{Found, Layer, find};
pub use stream::Stream;

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

    /// The job was cancelled: calls that block in other threads must return soon. The source is spent after it.
    fn interrupt(&self) {}
}
