//! gzip (RFC 1952), members in a row included. Written by several threads, each a block of its own.
//!
//! The input is cut into blocks of one size. Each becomes deflate data (RFC 1951) by itself, with the 32 KiB before it
//! as dictionary and a flush to a whole byte at its end, so that all of them in a row are one stream: the same bytes
//! whatever the number of threads.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Crc, FlushCompress};

use super::{Compression, Encoder};
use crate::error::Result;

/// Bytes of the input in one block: smaller ones are compressed a little worse, larger ones occupy fewer threads.
const BLOCK: usize = 512 << 10;

/// As far back as deflate looks.
const WINDOW: usize = 32 << 10;

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
        threads: usize,
    ) -> Result<Box<dyn Encoder + 'a>> {
        Ok(Box::new(Gzipped {
            output,
            blocks: Blocks::new(level.unwrap_or(6).min(9), threads),
            block: Vec::with_capacity(BLOCK),
            window: Vec::new(),
            sum: Crc::new(),
            begun: false,
        }))
    }
}

struct Gzipped<W: Write> {
    output: W,
    blocks: Blocks,
    /// What is not handed on yet.
    block: Vec<u8>,
    /// The end of the block before.
    window: Vec<u8>,
    /// Of what is written.
    sum: Crc,
    begun: bool,
}

impl<W: Write> Gzipped<W> {
    fn hand_on(&mut self, is_last: bool) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.block);
        let window = bytes[bytes.len().saturating_sub(WINDOW)..].to_vec();
        let block = Block { dictionary: std::mem::replace(&mut self.window, window), bytes, is_last };
        let ready = self.blocks.push(block)?;
        self.put(ready)?;
        self.block = if is_last { Vec::new() } else { Vec::with_capacity(BLOCK) };
        Ok(())
    }

    fn put(&mut self, ready: Vec<Deflated>) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            // No name, no time, an unknown system (RFC 1952, 2.3).
            self.output.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        }
        for Deflated { bytes, sum } in ready {
            self.output.write_all(&bytes)?;
            self.sum.combine(&sum);
        }
        Ok(())
    }
}

impl<W: Write> Write for Gzipped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.hand_on(false)?;
        }
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    /// Does nothing: a flush would move the borders of the blocks.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Send> Encoder for Gzipped<W> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.hand_on(true)?;
        let rest = self.blocks.rest()?;
        self.put(rest)?;
        self.output.write_all(&self.sum.sum().to_le_bytes())?;
        self.output.write_all(&self.sum.amount().to_le_bytes())?;
        self.output.flush()
    }
}

/// A part of the input.
struct Block {
    dictionary: Vec<u8>,
    bytes: Vec<u8>,
    is_last: bool,
}

/// What comes of it.
struct Deflated {
    bytes: Vec<u8>,
    /// Of the input.
    sum: Crc,
}

struct Task {
    block: Block,
    done: SyncSender<io::Result<Deflated>>,
}

/// Blocks under way, at most two for each thread, in order.
struct Blocks {
    level: u32,
    threads: usize,
    /// Begun with the second block: most layers are smaller.
    workers: Vec<JoinHandle<()>>,
    tasks: Option<SyncSender<Task>>,
    under_way: VecDeque<Receiver<io::Result<Deflated>>>,
}

impl Blocks {
    fn new(level: u32, threads: usize) -> Self {
        Blocks { level, threads, workers: Vec::new(), tasks: None, under_way: VecDeque::new() }
    }

    /// Takes a block; what has come of earlier ones.
    fn push(&mut self, block: Block) -> io::Result<Vec<Deflated>> {
        if self.threads <= 1 || (block.is_last && self.tasks.is_none()) {
            return Ok(vec![deflate(self.level, &block)?]);
        }
        let (done, result) = sync_channel(1);
        self.tasks().send(Task { block, done }).map_err(|_gone| panicked())?;
        self.under_way.push_back(result);
        let mut ready = Vec::new();
        while self.under_way.len() > self.threads * 2 {
            ready.extend(self.next()?);
        }
        Ok(ready)
    }

    fn rest(&mut self) -> io::Result<Vec<Deflated>> {
        let mut rest = Vec::new();
        while let Some(next) = self.next()? {
            rest.push(next);
        }
        Ok(rest)
    }

    fn next(&mut self) -> io::Result<Option<Deflated>> {
        let Some(next) = self.under_way.pop_front() else { return Ok(None) };
        next.recv().map_err(|_gone| panicked())?.map(Some)
    }

    fn tasks(&mut self) -> &SyncSender<Task> {
        let Blocks { level, threads, workers, .. } = self;
        self.tasks.get_or_insert_with(|| {
            let (tasks, waiting) = sync_channel(*threads * 2);
            let waiting = Arc::new(Mutex::new(waiting));
            workers.extend((0..*threads).map(|_| {
                let (level, waiting) = (*level, Arc::clone(&waiting));
                std::thread::spawn(move || work(level, &waiting))
            }));
            tasks
        })
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.tasks = None;
        for worker in self.workers.drain(..) {
            // That it has panicked is known by the result that did not come.
            drop(worker.join());
        }
    }
}

fn work(level: u32, waiting: &Mutex<Receiver<Task>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = next else { return };
        // Nobody waits for it where writing has failed.
        drop(task.done.send(deflate(level, &task.block)));
    }
}

fn panicked() -> io::Error {
    io::Error::other("a thread that compresses panicked")
}

/// Deflate alone, without a header. Each block gets a compressor of its own: one that was used before and reset finds
/// other matches (zlib-rs 0.6).
fn deflate(level: u32, block: &Block) -> io::Result<Deflated> {
    let mut with = Compress::new(flate2::Compression::new(level), false);
    if !block.dictionary.is_empty() {
        with.set_dictionary(&block.dictionary).map_err(io::Error::other)?;
    }
    let flush = if block.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    // More than anything grows by: with too little room the flush would be written twice (zlib.h, "deflate").
    let mut bytes = Vec::with_capacity(block.bytes.len() + block.bytes.len() / 4 + 1024);
    with.compress_vec(&block.bytes, &mut bytes, flush).map_err(io::Error::other)?;
    if with.total_in() != block.bytes.len() as u64 || bytes.len() == bytes.capacity() {
        return Err(io::Error::other("deflate does not come to its end"));
    }
    let mut sum = Crc::new();
    sum.update(&block.bytes);
    Ok(Deflated { bytes, sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzipped(text: &[u8], level: u32, threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Gzip.encoder(Box::new(&mut out), Some(level), threads).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap();
        out
    }

    /// Some of it compresses well, some not at all.
    fn text(size: usize) -> Vec<u8> {
        let mut seed = 1_u32;
        let mut next = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0]
        };
        (0..size).map(|at| if at / 100_000 % 2 == 0 { next() } else { next() % 4 }).collect()
    }

    #[test]
    fn the_same_bytes_come_of_any_number_of_threads() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK + 77] {
            let text = text(size);
            for level in [0, 1, 6] {
                let alone = gzipped(&text, level, 1);
                for threads in [2, 5] {
                    assert!(gzipped(&text, level, threads) == alone, "{size} {level} {threads}");
                }
                let mut back = Vec::new();
                MultiGzDecoder::new(&alone[..]).read_to_end(&mut back).unwrap();
                assert!(back == text, "{size} {level}");
            }
        }
    }

    #[test]
    fn a_block_knows_what_stands_before_it() {
        // Noise, which is long only where it was not met before.
        let (once, other) = (&text(90_000)[..WINDOW / 2], &text(90_000)[WINDOW..][..WINDOW / 2]);
        let zeros = vec![0; BLOCK - once.len()];
        let after = |next: &[u8]| gzipped(&[&zeros, once, next].concat(), 6, 2).len();
        assert!(after(once) + WINDOW / 4 < after(other));
    }

    #[test]
    fn a_writer_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut encoder = Gzip.encoder(Box::new(Full), None, 4).unwrap();
        let outcome = encoder.write_all(&text(30 * BLOCK));
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
