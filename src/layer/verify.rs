//! A tree on disk compared with its rows.

use rustix::fd::BorrowedFd;

use super::{Form, Row};
use crate::error::{Error, Result};
use crate::job::Job;

/// What is on disk and in no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    /// The rows are all there is in the tree.
    Report,
    /// The tree holds more: lower layers, in a whole tree.
    Ignore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: Vec<u8>,
    pub what: Difference,
}

/// How disk and row differ. Closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing,
    Extra,
    Kind,
    Mode,
    Owner,
    Size,
    Content,
    Time,
    Target,
    Device,
    Xattrs,
    Opaque,
    Link,
    /// It cannot be read; the system's answer.
    Unreadable(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first thousand, in the order of their paths.
    pub list: Vec<Finding>,
    /// How many there are in all.
    pub total: u64,
    /// Rows compared, and bytes read for it.
    pub rows: u64,
    pub bytes: u64,
}

/// Compares everything rows say, contents too, times at whole seconds. Rows come in the order of their paths' bytes.
pub fn verify(
    _job: &Job,
    _tree: BorrowedFd<'_>,
    _form: Form,
    _extras: Extras,
    _rows: impl IntoIterator<Item = Result<Row>>,
) -> Result<Findings> {
    Err(Error::unsupported("verifying"))
}
