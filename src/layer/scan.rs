//! An archive read for its rows, without writing anything.

use std::io::Read;

use rustix::fd::BorrowedFd;

use super::RowSink;
use crate::error::{Error, Result};
use crate::image::DiffId;
use crate::job::Job;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the files in it, each inode once.
    pub bytes: u64,
    pub rows: u64,
    /// See [`super::Applied::leans`].
    pub leans: bool,
    pub dangling: Option<Vec<u8>>,
    pub opaque_root: bool,
}

/// The rows that [`super::apply`] makes of the same archive. `below`: the merged tree it stands on (or the
/// stack's own), for archives that lean on it.
pub fn scan(
    _job: &Job,
    _tar: &mut dyn Read,
    _below: Option<BorrowedFd<'_>>,
    _rows: &mut dyn RowSink,
) -> Result<Scanned> {
    Err(Error::unsupported("scanning"))
}
