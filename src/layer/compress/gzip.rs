//! gzip (RFC 1952), members in a row included.

use std::io::{self, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Blocks, Compression, Encoder};
use crate::error::Result;

pub(super) struct Gzip;

impl Compression for Gzip {
    fn name(&self) -> &'static str {
        "gzip"
    }
    fn matches(&self, head: &[u8]) -> bool {
        head.starts_with(b"\x1f\x8b")
    }
    fn decoder<'a>(&self, input: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, input))))
    }
    /// Level 6 where nothing is said. The bytes change with the library's version: blobs are kept, not made again.
    fn encoder<'a>(
        &self,
        output: Box<dyn Write + Send + 'a>,
        level: Option<u32>,
    ) -> Result<Box<dyn Encoder + 'a>> {
        Ok(Box::new(Blocks::new(GzEncoder::new(output, flate2::Compression::new(level.unwrap_or(6).min(9))))))
    }
}

impl<W: Write + Send> Encoder for Blocks<GzEncoder<W>> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        (*self).into_inner()?.finish()?.flush()
    }
}
