//! Some bytes of a file, read by their places.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

/// Readers of one file do not disturb each other: none uses the file's own position.
pub struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Part {
    /// From byte `at` to before byte `end`.
    pub fn of(file: &File, at: u64, end: u64) -> io::Result<Part> {
        Ok(Part { file: file.try_clone()?, at, end })
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
