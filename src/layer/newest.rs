//! When the newest file of an archive was changed.

use std::io::Read;

use super::{Kind, Row, RowSink, scan};
use crate::error::Result;
use crate::job::Job;

/// Looks on while an archive is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newest(Option<i64>);

impl Newest {
    /// In seconds since 1970; `None` without a regular file.
    pub fn seconds(self) -> Option<i64> {
        self.0
    }

    pub fn of(job: &Job, tar: &mut dyn Read) -> Result<Newest> {
        let mut newest = Newest::default();
        scan(job, tar, None, &mut newest)?;
        Ok(newest)
    }
}

impl RowSink for Newest {
    fn row(&mut self, row: Row) -> Result<()> {
        if row.kind == Kind::File && !row.implied {
            self.0 = self.0.max(Some(row.mtime.div_euclid(1_000_000_000)));
        }
        Ok(())
    }
    fn forget(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}
