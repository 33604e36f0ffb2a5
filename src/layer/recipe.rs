//! All it takes to make a layer's archive again, bit for bit, from its files.

use std::io::{Read, Seek, Write};

use rustix::fd::BorrowedFd;

use crate::error::{Error, Result};
use crate::image::DiffId;
use crate::job::Job;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
}

/// Writes the archive to `out` and checks it against the digest in the recipe; `Corrupt` when a file is missing or
/// not what it was. `tree` is the layer's own tree, in any form, or that of a stack with the layer on top.
pub fn replay<R: Read + Seek>(
    _job: &Job,
    _recipe: &mut R,
    _tree: BorrowedFd<'_>,
    _out: &mut dyn Write,
) -> Result<Replayed> {
    Err(Error::unsupported("replaying"))
}
