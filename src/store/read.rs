//! Reading a blob: verified while it passes.

use std::fs::File;
use std::io::{self, Read};

use crate::error::Error;
use crate::image::{Digest, Hasher};

/// Memory stays flat. The end is not reported before all bytes were found to be the right ones.
pub struct BlobReader {
    file: File,
    digest: Digest,
    size: u64,
    read: u64,
    hasher: Option<Hasher>,
}

impl BlobReader {
    pub(super) fn new(file: File, digest: Digest, size: u64) -> Self {
        BlobReader { file, digest, size, read: 0, hasher: Some(Hasher::new()) }
    }

    /// As the index says, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        if read > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..read]);
            }
            return Ok(read);
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.digest || self.read != self.size => Err(Error::corrupt(format!(
                "the blob {} is damaged: its bytes have the digest {found}",
                self.digest
            ))
            .hint("`outcrop system check` says what else is; pulling or building again makes it anew")
            .into()),
            _ => Ok(0),
        }
    }
}
