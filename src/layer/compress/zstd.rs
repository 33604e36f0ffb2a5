//! zstd (RFC 8878), frames in a row included.

use std::io::{self, Read, Write};

use super::{Blocks, Compression, Encoder};
use crate::error::{Context, Result};

pub(super) struct Zstd;

impl Compression for Zstd {
    fn name(&self) -> &'static str {
        "zstd"
    }
    /// A frame, or a skippable frame (RFC 8878, 3.1.2), which zstd:chunked puts first at times.
    fn matches(&self, head: &[u8]) -> bool {
        head.starts_with(b"\x28\xb5\x2f\xfd")
            || matches!(head, [first, 0x2a, 0x4d, 0x18, ..] if first >> 4 == 5)
    }
    fn decoder<'a>(&self, input: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(zstd::Decoder::new(input).context(|| "opening a zstd stream")?))
    }
    /// Level 3 where nothing is said, the tools' own default. At least one thread besides: the library cuts the input for
    /// threads in a way of its own, the same for any number of them (zstd.h, "ZSTD_c_nbWorkers").
    fn encoder<'a>(
        &self,
        output: Box<dyn Write + Send + 'a>,
        level: Option<u32>,
        threads: usize,
    ) -> Result<Box<dyn Encoder + 'a>> {
        let opening = || "opening a zstd stream";
        let level = level.map_or(3, |level| level.min(22).cast_signed());
        let mut encoder = zstd::Encoder::new(output, level).context(opening)?;
        let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        encoder.multithread(threads).context(opening)?;
        Ok(Box::new(Blocks::new(encoder)))
    }
}

impl<W: Write + Send> Encoder for Blocks<zstd::Encoder<'_, W>> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        (*self).into_inner()?.finish()?.flush()
    }
}
