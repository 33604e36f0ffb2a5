//! bzip2, streams in a row included: read where ADD and import meet it, never written.

use std::io::{Read, Write};

use super::{Compression, Encoder};
use crate::error::{Error, Result};

pub(super) struct Bzip2;

impl Compression for Bzip2 {
    fn name(&self) -> &'static str {
        "bzip2"
    }
    /// A first block, or an empty stream's end.
    fn matches(&self, head: &[u8]) -> bool {
        head.starts_with(b"BZh") && head.get(3).is_some_and(|level| (b'1'..=b'9').contains(level))
    }
    fn decoder<'a>(&self, input: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(bzip2::read::MultiBzDecoder::new(input)))
    }
    fn encoder<'a>(
        &self,
        _: Box<dyn Write + Send + 'a>,
        _: Option<u32>,
        _: usize,
    ) -> Result<Box<dyn Encoder + 'a>> {
        Err(Error::unsupported("layers are not compressed with bzip2").hint("there are: none, gzip, zstd"))
    }
}
