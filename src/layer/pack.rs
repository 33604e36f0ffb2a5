//! The archive of what changed: from an overlay's upper directory, or from two whole trees.

use std::io::Write;

use rustix::fd::BorrowedFd;

use super::{Form, RowSink};
use crate::error::{Error, Result};
use crate::image::DiffId;
use crate::job::Job;

/// Where the changes lie.
pub enum Changes<'a> {
    /// The changes alone, as a union filesystem leaves them. Must not be mounted for writing any more.
    Upper {
        upper: BorrowedFd<'a>,
        form: Form,
        /// What the upper stands on, merged and mounted for reading: what equals it is no change. `None`: nothing below.
        parent: Option<BorrowedFd<'a>>,
        /// Also makes the directory say exactly what the archive says: removes what is no change, adds whiteouts
        /// that an opaque mark stood for. Asked for when the upper becomes the layer's own tree.
        settle: bool,
    },
    /// A whole tree and the whole tree before; compares everything, contents too. `None`: all of it is new.
    Trees { tree: BorrowedFd<'a>, parent: Option<BorrowedFd<'a>> },
}

#[derive(Default)]
pub struct PackOptions<'a> {
    /// No time in the archive is later than this: seconds since the epoch (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// Gets the archive's bytes too.
    pub tee: Option<&'a mut (dyn Write + Send)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the files in it, each inode once.
    pub bytes: u64,
    pub rows: u64,
}

/// Hashes the archive of `changes` without keeping it; rows go to `rows`, the recipe to `recipe`.
pub fn pack(
    _job: &Job,
    _changes: Changes<'_>,
    _options: PackOptions<'_>,
    _rows: &mut dyn RowSink,
    _recipe: &mut dyn Write,
) -> Result<Packed> {
    Err(Error::unsupported("packing"))
}
