//! A plain archive.

use std::io::{self, Read, Write};

use super::{Compression, Encoder};
use crate::error::Result;

pub(super) struct None;

impl Compression for None {
    fn name(&self) -> &'static str {
        "none"
    }
    fn matches(&self, _: &[u8]) -> bool {
        true
    }
    fn decoder<'a>(&self, input: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(input)
    }
    fn encoder<'a>(
        &self,
        output: Box<dyn Write + Send + 'a>,
        _: Option<u32>,
        _: usize,
    ) -> Result<Box<dyn Encoder + 'a>> {
        Ok(Box::new(Plain(output)))
    }
}

struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
impl<W: Write + Send> Encoder for Plain<W> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}
