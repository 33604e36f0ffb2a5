//! An untrusted archive written into a directory.

use std::io::{Read, Write};

use rustix::fd::BorrowedFd;

use super::{Form, RowSink};
use crate::error::{Error, Result};
use crate::image::DiffId;
use crate::job::Job;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the files in it, each inode once.
    pub bytes: u64,
    pub rows: u64,
    /// The archive leaves out parent directories or links to files it does not hold: what it means depends on what
    /// lies below. Unless nothing does, the tree is to be thrown away and made again with `Form::Whole` over the
    /// mounted parent.
    pub leans: bool,
    /// The first hard link whose target is nowhere; on top of nothing, such a layer is broken.
    pub dangling: Option<Vec<u8>>,
    /// The layer is opaque at its root: it hides all that lies below.
    pub opaque_root: bool,
}

/// Writes the archive's changes below `tree` in the given form. Nothing outside `tree` is touched, whatever the
/// archive says. On error `tree` holds some part of it and is to be thrown away.
/// The digest is the caller's to compare, before anything is made visible.
pub fn apply(
    _job: &Job,
    _tar: &mut dyn Read,
    _tree: BorrowedFd<'_>,
    _form: Form,
    _rows: &mut dyn RowSink,
    _recipe: &mut dyn Write,
) -> Result<Applied> {
    Err(Error::unsupported("applying"))
}
