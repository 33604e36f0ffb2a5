//! An archive read for its rows, without writing anything.

use std::io::Read;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::apply::{look, row_on_disk};
use super::target::{Below, Saver, Target};
use super::tree::{self, Parents};
use super::unpack::unpack;
use super::{Form, Kind, Row, RowSink};
use crate::error::{Context, Result};
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
    /// See [`super::Applied::dangling`].
    pub dangling: Option<Vec<u8>>,
    pub opaque_root: bool,
}

/// The rows that [`super::apply`] makes of the same archive. `below`: the merged tree it stands on (or the
/// stack's own), for archives that lean on it.
pub fn scan(
    job: &Job,
    tar: &mut dyn Read,
    below: Option<BorrowedFd<'_>>,
    rows: &mut dyn RowSink,
) -> Result<Scanned> {
    let done = unpack(job, tar, &mut Nowhere { below: below.map(Parents::new) }, rows, None)?;
    Ok(Scanned {
        diff_id: done.diff_id,
        size: done.size,
        bytes: done.bytes,
        rows: done.rows,
        leans: done.leans,
        dangling: done.dangling,
        opaque_root: done.opaque_root,
    })
}

struct Nowhere<'a> {
    below: Option<Parents<'a>>,
}

impl Nowhere<'_> {
    fn parent_of(&mut self, path: &[u8]) -> Result<Option<BorrowedFd<'_>>> {
        let Some(below) = &mut self.below else { return Ok(None) };
        let parent = tree::split(path).0;
        match below.dir(parent) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).context(|| format!("opening the directory `{}`", parent.escape_ascii())),
        }
    }
}

impl Target for Nowhere<'_> {
    fn below(&mut self, path: &[u8]) -> Result<Below> {
        let Some(dir) = self.parent_of(path)? else { return Ok(Below::Nothing) };
        look(dir, tree::split(path).1).context(|| format!("looking at `{}`", path.escape_ascii()))
    }
    fn below_row(&mut self, path: &[u8]) -> Result<Option<Row>> {
        let Some(dir) = self.parent_of(path)? else { return Ok(None) };
        row_on_disk(dir, tree::split(path).1, path, Form::Whole)
    }
    fn dangling(&mut self, _: &[u8], _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn dir(&mut self, _: &Row, _: bool) -> Result<()> {
        Ok(())
    }
    fn node(&mut self, _: &Row) -> Result<()> {
        Ok(())
    }
    fn link(&mut self, _: &[u8], _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn whiteout(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn opaque(&mut self, _: &[u8], _: &dyn Fn(&[u8]) -> bool) -> Result<()> {
        Ok(())
    }
    fn remove(&mut self, _: &[u8], _: Kind, _: &mut dyn Saver) -> Result<()> {
        Ok(())
    }
    fn create(&mut self, _: &Row) -> Result<()> {
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn close(&mut self, _: &Row) -> Result<()> {
        Ok(())
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
