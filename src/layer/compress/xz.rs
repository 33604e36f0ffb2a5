//! xz (tukaani.org/xz/xz-file-format.txt), streams in a row included: read where ADD and import meet it, never written.

use std::io::{Read, Write};

use super::{Compression, Encoder};
use crate::error::{Error, Result};

pub(super) struct Xz;

impl Compression for Xz {
    fn name(&self) -> &'static str {
        "xz"
    }
    fn matches(&self, head: &[u8]) -> bool {
        head.starts_with(b"\xfd7zXZ\0")
    }
    fn decoder<'a>(&self, input: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(lzma_rust2::XzReader::new(input, true)))
    }
    fn encoder<'a>(
        &self,
        _: Box<dyn Write + Send + 'a>,
        _: Option<u32>,
        _: usize,
    ) -> Result<Box<dyn Encoder + 'a>> {
        Err(Error::unsupported("layers are not compressed with xz").hint("there are: none, gzip, zstd"))
    }
}
