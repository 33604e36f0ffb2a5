//! All it takes to make a layer's archive again, bit for bit, from its files.
//!
//! A recipe is the line `outcrop recipe 1\n` and chunks; all fixed numbers are little-endian:
//!
//! ```text
//! 'M' raw:u32 length:u32 data     a zstd frame of `raw` bytes (at most 1 MiB): the next part of the instructions
//! 'S' file:u32 offset:u64 raw:u32 length:u32 data
//!                                 the same: bytes of the file with that number that are in no tree any more,
//!                                 because the archive went on to put something else at its path
//! 'E' size:u64 digest:32          the end: bytes and SHA-256 of the archive
//! ```
//!
//! The instructions, all chunks' together, with numbers as unsigned LEB128:
//!
//! ```text
//! 0 length bytes       literal bytes: headers, padding, what follows the end of the archive
//! 1 length path        from now on of this file; files are numbered from 0 in the order they appear
//! 2 offset length      these bytes of it
//! ```
//!
//! Chunks 'S' may come after the instructions that need them.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::content::put_number;
use super::tree::{self, Parents};
use crate::error::{Context, Error, Result};
use crate::image::{DiffId, Digest, Hasher};
use crate::job::Job;

const VERSION: &[u8] = b"outcrop recipe 1\n";
const CHUNK: usize = 1 << 20;
/// A chunk is cut between instructions, and a literal has this length at most.
const LITERAL: usize = 256 << 10;

const OP_LITERAL: u8 = 0;
const OP_FILE: u8 = 1;
const OP_DATA: u8 = 2;

/// A recipe in the making.
pub(super) struct Recipe<'a> {
    out: &'a mut dyn Write,
    zstd: zstd::bulk::Compressor<'static>,
    instructions: Vec<u8>,
    literal: Vec<u8>,
    files: u32,
}

impl<'a> Recipe<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Result<Self> {
        out.write_all(VERSION).context(|| WRITING)?;
        // Headers are so much alike that a higher level gains little.
        let zstd = zstd::bulk::Compressor::new(1).context(|| WRITING)?;
        Ok(Recipe { out, zstd, instructions: Vec::new(), literal: Vec::new(), files: 0 })
    }

    pub(super) fn literal(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(LITERAL) {
            if self.literal.len() + part.len() > LITERAL {
                self.end_literal()?;
            }
            self.literal.extend_from_slice(part);
        }
        Ok(())
    }

    /// The bytes that follow are of this file. Gives its number.
    pub(super) fn file(&mut self, path: &[u8]) -> Result<u32> {
        self.end_literal()?;
        self.instructions.push(OP_FILE);
        put_number(&mut self.instructions, path.len() as u64);
        self.instructions.extend_from_slice(path);
        self.files += 1;
        Ok(self.files - 1)
    }

    pub(super) fn data(&mut self, offset: u64, length: u64) -> Result<()> {
        self.instructions.push(OP_DATA);
        put_number(&mut self.instructions, offset);
        put_number(&mut self.instructions, length);
        self.end_literal()
    }

    /// Keeps bytes of a file that will be in no tree.
    pub(super) fn shadowed(&mut self, file: u32, mut offset: u64, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(CHUNK) {
            let mut head = vec![b'S'];
            head.extend_from_slice(&file.to_le_bytes());
            head.extend_from_slice(&offset.to_le_bytes());
            self.chunk(&head, part)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, size: u64, digest: &Digest) -> Result<()> {
        self.end_literal()?;
        self.end_chunk()?;
        let mut end = vec![b'E'];
        end.extend_from_slice(&size.to_le_bytes());
        end.extend_from_slice(digest.as_bytes());
        self.out.write_all(&end).and_then(|()| self.out.flush()).context(|| WRITING)
    }

    fn end_literal(&mut self) -> Result<()> {
        if !self.literal.is_empty() {
            self.instructions.push(OP_LITERAL);
            put_number(&mut self.instructions, self.literal.len() as u64);
            self.instructions.append(&mut self.literal);
        }
        if self.instructions.len() > CHUNK - LITERAL - (16 << 10) { self.end_chunk() } else { Ok(()) }
    }

    fn end_chunk(&mut self) -> Result<()> {
        if self.instructions.is_empty() {
            return Ok(());
        }
        let mut instructions = std::mem::take(&mut self.instructions);
        self.chunk(b"M", &instructions)?;
        instructions.clear();
        self.instructions = instructions;
        Ok(())
    }

    fn chunk(&mut self, head: &[u8], raw: &[u8]) -> Result<()> {
        let data = self.zstd.compress(raw).context(|| WRITING)?;
        let length = |length: usize| u32::try_from(length).expect("a chunk is small").to_le_bytes();
        let mut chunk = head.to_vec();
        chunk.extend_from_slice(&length(raw.len()));
        chunk.extend_from_slice(&length(data.len()));
        chunk.extend_from_slice(&data);
        self.out.write_all(&chunk).context(|| WRITING)
    }
}

const WRITING: &str = "writing the recipe of a layer";
const READING: &str = "reading the recipe of a layer";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
}

/// Writes the archive to `out` and checks it against the digest in the recipe; `Corrupt` when a file is missing or
/// not what it was. `tree` is the layer's own tree, in any form, or that of a stack with the layer on top.
pub fn replay<R: Read + Seek>(
    job: &Job,
    recipe: &mut R,
    tree: BorrowedFd<'_>,
    out: &mut dyn Write,
) -> Result<Replayed> {
    let index = Index::read(recipe)?;
    let mut replay = Replay {
        parents: Parents::new(tree),
        out,
        hasher: Hasher::new(),
        size: 0,
        files: 0,
        current: None,
        buffer: vec![0; 256 << 10],
    };
    for chunk in &index.instructions {
        job.check()?;
        let instructions = chunk.read(recipe)?;
        replay.run(job, &instructions, &index, recipe)?;
    }
    let diff_id = DiffId(replay.hasher.finish());
    if replay.size != index.size || diff_id != index.diff_id {
        return Err(Error::corrupt(format!(
            "the files of layer {} are not what they were: they make {diff_id}",
            index.diff_id
        ))
        .hint("`outcrop system check` names the files that changed"));
    }
    Ok(Replayed { diff_id, size: replay.size })
}

#[derive(Clone, Copy)]
struct Chunk {
    /// Of its data in the recipe.
    at: u64,
    raw: usize,
    length: usize,
}

impl Chunk {
    fn read<R: Read + Seek>(self, recipe: &mut R) -> Result<Vec<u8>> {
        recipe.seek(SeekFrom::Start(self.at)).context(|| READING)?;
        let mut data = vec![0; self.length];
        recipe.read_exact(&mut data).context(|| READING)?;
        let raw = zstd::bulk::decompress(&data, self.raw).map_err(|cause| broken().because(cause))?;
        if raw.len() == self.raw { Ok(raw) } else { Err(broken()) }
    }
}

fn broken() -> Error {
    Error::corrupt("the recipe of a layer is damaged")
}

struct Index {
    instructions: Vec<Chunk>,
    /// Pieces of each shadowed file: offset in the file, and where they are; ascending.
    shadows: HashMap<u32, Vec<(u64, Chunk)>>,
    size: u64,
    diff_id: DiffId,
}

impl Index {
    fn read<R: Read + Seek>(recipe: &mut R) -> Result<Self> {
        let end = recipe.seek(SeekFrom::End(0)).context(|| READING)?;
        recipe.rewind().context(|| READING)?;
        let mut version = [0; VERSION.len()];
        recipe.read_exact(&mut version).map_err(|cause| broken().because(cause))?;
        if version != VERSION {
            return Err(match version.starts_with(b"outcrop recipe ") {
                true => Error::unsupported("the recipe of a layer was made by a newer version"),
                false => broken(),
            });
        }
        let mut at = VERSION.len() as u64;
        let (mut instructions, mut shadows) = (Vec::new(), HashMap::<u32, Vec<_>>::new());
        loop {
            let mut kind = [0];
            read(recipe, &mut at, &mut kind)?;
            match kind[0] {
                b'M' => instructions.push(Self::chunk(recipe, &mut at, end)?),
                b'S' => {
                    let (mut file, mut offset) = ([0; 4], [0; 8]);
                    read(recipe, &mut at, &mut file)?;
                    read(recipe, &mut at, &mut offset)?;
                    let chunk = Self::chunk(recipe, &mut at, end)?;
                    let pieces = shadows.entry(u32::from_le_bytes(file)).or_default();
                    pieces.push((u64::from_le_bytes(offset), chunk));
                }
                b'E' => {
                    let (mut size, mut digest) = ([0; 8], [0; 32]);
                    read(recipe, &mut at, &mut size)?;
                    read(recipe, &mut at, &mut digest)?;
                    let diff_id = DiffId::from_bytes(digest);
                    return Ok(Index { instructions, shadows, size: u64::from_le_bytes(size), diff_id });
                }
                _ => return Err(broken()),
            }
        }
    }

    fn chunk<R: Read + Seek>(recipe: &mut R, at: &mut u64, end: u64) -> Result<Chunk> {
        let (mut raw, mut length) = ([0; 4], [0; 4]);
        read(recipe, at, &mut raw)?;
        read(recipe, at, &mut length)?;
        let number = |bytes| usize::try_from(u32::from_le_bytes(bytes)).map_err(|_too_large| broken());
        let chunk = Chunk { at: *at, raw: number(raw)?, length: number(length)? };
        *at += chunk.length as u64;
        if chunk.raw > CHUNK || *at > end {
            return Err(broken());
        }
        recipe.seek(SeekFrom::Start(*at)).context(|| READING)?;
        Ok(chunk)
    }
}

fn read(recipe: &mut impl Read, at: &mut u64, into: &mut [u8]) -> Result<()> {
    recipe.read_exact(into).map_err(|cause| broken().because(cause))?;
    *at += into.len() as u64;
    Ok(())
}

struct Replay<'a> {
    parents: Parents<'a>,
    out: &'a mut dyn Write,
    hasher: Hasher,
    size: u64,
    files: u32,
    /// The current file: its number, its path, and its descriptor once it was read from.
    current: Option<(u32, Vec<u8>, Option<OwnedFd>)>,
    buffer: Vec<u8>,
}

impl Replay<'_> {
    fn run<R: Read + Seek>(
        &mut self,
        job: &Job,
        mut instructions: &[u8],
        index: &Index,
        recipe: &mut R,
    ) -> Result<()> {
        while let Some((op, rest)) = instructions.split_first() {
            instructions = rest;
            let first = number(&mut instructions)?;
            match *op {
                OP_LITERAL => {
                    let bytes = bytes(&mut instructions, first)?;
                    put(self.out, &mut self.hasher, &mut self.size, bytes)?;
                }
                OP_FILE => {
                    self.current = Some((self.files, bytes(&mut instructions, first)?.to_vec(), None));
                    self.files += 1;
                }
                OP_DATA => {
                    let length = number(&mut instructions)?;
                    let file = self.current.as_ref().ok_or_else(broken)?.0;
                    match index.shadows.get(&file) {
                        Some(pieces) => self.shadowed(pieces, first, length, recipe)?,
                        None => self.copied(job, first, length)?,
                    }
                }
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    fn copied(&mut self, job: &Job, mut offset: u64, mut length: u64) -> Result<()> {
        let (_, path, file) = self.current.as_mut().expect("checked by the caller");
        let changed = |path: &[u8]| {
            Error::corrupt(format!("`{}` is not what it was when its layer was made", path.escape_ascii()))
        };
        if file.is_none() {
            let (parent, name) = tree::split(path);
            let opened = self.parents.dir(parent).and_then(|dir| tree::open_file(dir, name));
            let opened = match opened {
                Ok(opened) => opened,
                Err(cause @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO)) => {
                    return Err(changed(path).because(io::Error::from(cause)));
                }
                Err(cause) => return Err(cause).context(|| format!("opening `{}`", path.escape_ascii())),
            };
            let stat = rustix::fs::fstat(&opened).context(|| format!("opening `{}`", path.escape_ascii()))?;
            if tree::kind(&stat) != Some(super::Kind::File) {
                return Err(changed(path));
            }
            *file = Some(opened);
        }
        let file = file.as_ref().expect("set above");
        while length > 0 {
            job.check()?;
            let part = self.buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let count = rustix::io::pread(file, &mut self.buffer[..part], offset)
                .context(|| format!("reading `{}`", path.escape_ascii()))?;
            if count == 0 {
                return Err(changed(path));
            }
            put(self.out, &mut self.hasher, &mut self.size, &self.buffer[..count])?;
            offset += count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    /// Between the pieces are holes.
    fn shadowed<R: Read + Seek>(
        &mut self,
        pieces: &[(u64, Chunk)],
        mut offset: u64,
        length: u64,
        recipe: &mut R,
    ) -> Result<()> {
        let end = offset.checked_add(length).ok_or_else(broken)?;
        let mut at = pieces.partition_point(|(start, chunk)| start + chunk.raw as u64 <= offset);
        while offset < end {
            let (start, piece) = match pieces.get(at) {
                Some((start, chunk)) => (*start, Some(chunk)),
                None => (end, None),
            };
            if offset < start {
                let zeros =
                    vec![0; usize::try_from((start.min(end) - offset).min(CHUNK as u64)).expect("small")];
                put(self.out, &mut self.hasher, &mut self.size, &zeros)?;
                offset += zeros.len() as u64;
                continue;
            }
            let bytes = piece.expect("offset is before the end").read(recipe)?;
            let from = usize::try_from(offset - start).map_err(|_too_large| broken())?;
            let part = &bytes[from.min(bytes.len())..];
            let part = &part[..part.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX))];
            put(self.out, &mut self.hasher, &mut self.size, part)?;
            offset += part.len() as u64;
            at += 1;
        }
        Ok(())
    }
}

fn put(out: &mut dyn Write, hasher: &mut Hasher, size: &mut u64, bytes: &[u8]) -> Result<()> {
    hasher.update(bytes);
    *size += bytes.len() as u64;
    out.write_all(bytes).context(|| "writing an archive")
}

fn number(from: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().ok_or_else(broken)?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken())
}

fn bytes<'a>(from: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(length).map_err(|_too_large| broken())?;
    let (bytes, rest) = from.split_at_checked(length).ok_or_else(broken)?;
    *from = rest;
    Ok(bytes)
}
