//! An archive in the making: its bytes go to the digest and past, nothing of it is kept.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use rustix::fd::{AsFd, OwnedFd};

use super::hashing::{BUFFER, Hashing, Piece, Pool, RowQueue, SMALL};
use super::header::{BLOCK, Header};
use super::pack::{Part, Root, Watch};
use super::recipe::Recipe;
use super::tree::{OPAQUE, Xattrs, split};
use super::{Kind, Packed, Row, RowSink};
use crate::error::{Context, Error, Result};
use crate::image::{DiffId, Digest};
use crate::job::Job;

/// Which file a name leads to: device and inode.
pub(super) type Inode = (u64, u64);

pub(super) struct Archive<'a> {
    job: &'a Job,
    archive: &'a Hashing,
    files: &'a Hashing,
    pool: Pool,
    buffer: Arc<Vec<u8>>,
    at: usize,
    size: u64,
    rows: RowQueue<'a>,
    recipe: Recipe<'a>,
    count: u64,
    bytes: u64,
    /// Files with more names than one, by their first: index into `linked`.
    inodes: HashMap<Inode, u32>,
    linked: Vec<Row>,
    groups: u32,
    header: Vec<u8>,
    scratch: Vec<u8>,
    /// In front of every name; ends in a slash.
    prefix: Vec<u8>,
    watch: Option<&'a mut Watch<'a>>,
}

/// No row of `linked`.
const NONE: u32 = u32::MAX;

impl<'a> Archive<'a> {
    pub(super) fn new(
        job: &'a Job,
        archive: &'a Hashing,
        files: &'a Hashing,
        rows: &'a mut dyn RowSink,
        recipe: &'a mut dyn Write,
    ) -> Result<Self> {
        let mut pool = Pool::default();
        Ok(Archive {
            job,
            archive,
            files,
            buffer: pool.take(),
            pool,
            at: 0,
            size: 0,
            rows: RowQueue::new(rows),
            recipe: Recipe::new(recipe)?,
            count: 0,
            bytes: 0,
            inodes: HashMap::new(),
            linked: Vec::new(),
            groups: 0,
            header: Vec::new(),
            scratch: vec![0; usize::try_from(SMALL).expect("small")],
            prefix: Vec::new(),
            watch: None,
        })
    }

    pub(super) fn within(mut self, root: Root<'_>) -> Self {
        if let Root::In(name) = root {
            self.prefix = format!("{name}/").into_bytes();
        }
        self
    }

    pub(super) fn watched(self, watch: Option<&'a mut Watch<'a>>) -> Self {
        Archive { watch, ..self }
    }

    fn show(&mut self, row: &Row, part: Part<'_>) -> Result<()> {
        self.watch.as_mut().map_or(Ok(()), |watch| watch(row, part))
    }

    /// A directory, symbolic link, device or fifo. `inode` for those with more names than one.
    pub(super) fn node(&mut self, row: Row, inode: Option<Inode>) -> Result<()> {
        self.job.check()?;
        self.show(&row, Part::Member)?;
        if let Some(inode) = inode {
            if self.link(&row, inode)? {
                return Ok(());
            }
            self.remember(inode, &row)?;
        }
        self.put_header(&row, None)?;
        if row.opaque {
            let mut mark = Row::bare(join(&row.path, OPAQUE), Kind::File);
            mark.mtime = row.mtime;
            self.put_header(&mark, None)?;
        }
        self.row(row, false)
    }

    pub(super) fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        self.show(&Row::bare(path.to_vec(), Kind::Whiteout), Part::Member)?;
        let (parent, name) = split(path);
        let mark = Row::bare(join(parent, &[b".wh.", name].concat()), Kind::File);
        self.put_header(&mark, None)?;
        self.row(Row::bare(path.to_vec(), Kind::Whiteout), false)
    }

    /// A regular file, read from `file`.
    pub(super) fn file(&mut self, mut row: Row, file: &OwnedFd, inode: Option<Inode>) -> Result<()> {
        self.job.check()?;
        self.show(&row, Part::Member)?;
        if let Some(inode) = inode
            && self.link(&row, inode)?
        {
            return Ok(());
        }
        self.put_header(&row, None)?;
        self.bytes += row.size;
        if row.size > 0 {
            self.recipe.file(&row.path)?;
            self.recipe.data(0, row.size)?;
        }
        if row.size <= SMALL {
            let length = usize::try_from(row.size).expect("small");
            let mut scratch = std::mem::take(&mut self.scratch);
            let read = read_full(file, &mut scratch[..length], &row)?;
            check_length(read as u64, row.size, &row)?;
            self.show(&row, Part::Bytes(&scratch[..length]))?;
            row.digest = Some(Digest::of(&scratch[..length]));
            self.put(&scratch[..length])?;
            self.scratch = scratch;
        } else {
            self.large(file, &row)?;
        }
        self.show(&row, Part::End)?;
        self.pad()?;
        if let Some(inode) = inode {
            self.remember(inode, &row)?;
        }
        if row.digest.is_some() {
            return self.row(row, false);
        }
        self.files.end()?;
        self.count += 1;
        let slot = inode.map_or(NONE, |inode| self.inodes[&inode]);
        self.rows.waiting(row, false, slot)?;
        self.advance()
    }

    /// Buffers go to both digests at once.
    fn large(&mut self, file: &OwnedFd, row: &Row) -> Result<()> {
        let mut done = 0;
        while done < row.size {
            self.job.check()?;
            if self.at == BUFFER {
                self.rotate()?;
            }
            let room = (BUFFER - self.at).min(usize::try_from(row.size - done).unwrap_or(usize::MAX));
            let start = self.at;
            let buffer = Arc::get_mut(&mut self.buffer).expect("rotated whenever it is handed on");
            let read = read_full(file, &mut buffer[start..start + room], row)?;
            done += read as u64;
            if read < room {
                return check_length(done, row.size, row);
            }
            self.at += read;
            self.size += read as u64;
            if let Some(watch) = &mut self.watch {
                watch(row, Part::Bytes(&self.buffer[start..self.at]))?;
            }
            self.files.bytes(Piece::new(&self.buffer, start, self.at))?;
            self.rotate()?;
        }
        Ok(())
    }

    /// Another name of a file that is in the archive; `false` for the first.
    fn link(&mut self, row: &Row, inode: Inode) -> Result<bool> {
        let Some(first) = self.inodes.get(&inode).copied() else { return Ok(false) };
        // Its digest may still be in the making.
        self.flush()?;
        let at = first as usize;
        if self.linked[at].link.is_none() {
            self.linked[at].link = Some(self.groups);
            self.groups += 1;
            self.rows.row(self.linked[at].clone(), true)?;
        }
        let first = self.linked[at].clone();
        let row = Row { path: row.path.clone(), ..first.clone() };
        self.put_header(&row, Some(&first.path))?;
        self.row(row, false)?;
        Ok(true)
    }

    fn remember(&mut self, inode: Inode, row: &Row) -> Result<()> {
        let at = u32::try_from(self.linked.len())
            .map_err(|_too_large| Error::unsupported("too many hard links"))?;
        self.linked.push(row.clone());
        self.inodes.insert(inode, at);
        Ok(())
    }

    fn put_header(&mut self, row: &Row, link: Option<&[u8]>) -> Result<()> {
        let none = Xattrs::new();
        let mut name = match (&self.prefix[..], &row.path[..]) {
            (b"", b"") => b".".to_vec(),
            ([name @ .., _], b"") => name.to_vec(),
            (prefix, path) => [prefix, path].concat(),
        };
        let first = link.map(|link| [&self.prefix[..], link].concat());
        if row.kind == Kind::Dir && link.is_none() {
            name.push(b'/');
        }
        let flag = match row.kind {
            _ if link.is_some() => b'1',
            Kind::File | Kind::Whiteout => b'0',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Dir => b'5',
            Kind::Fifo => b'6',
        };
        let mut bytes = std::mem::take(&mut self.header);
        let header = Header {
            name: &name,
            flag,
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            size: if link.is_some() { 0 } else { row.size },
            mtime: row.mtime.div_euclid(1_000_000_000),
            link: first.as_deref().unwrap_or(&row.target),
            rdev: if link.is_some() { (0, 0) } else { row.rdev },
            xattrs: if link.is_some() { &none } else { &row.xattrs },
        };
        header.write(&mut bytes)?;
        self.recipe.literal(&bytes)?;
        self.put(&bytes)?;
        bytes.clear();
        self.header = bytes;
        Ok(())
    }

    /// Zeros to the end of a block.
    fn pad(&mut self) -> Result<()> {
        let zeros = [0; BLOCK];
        let over = usize::try_from(self.size % BLOCK as u64).expect("below a block");
        if over > 0 {
            self.recipe.literal(&zeros[over..])?;
            self.put(&zeros[over..])?;
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.at == BUFFER {
                self.rotate()?;
            }
            let length = bytes.len().min(BUFFER - self.at);
            let buffer = Arc::get_mut(&mut self.buffer).expect("rotated whenever it is handed on");
            buffer[self.at..self.at + length].copy_from_slice(&bytes[..length]);
            self.at += length;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        if self.at > 0 {
            self.archive.bytes(Piece::new(&self.buffer, 0, self.at))?;
        }
        let full = std::mem::replace(&mut self.buffer, self.pool.take());
        self.pool.give(full);
        self.at = 0;
        Ok(())
    }

    fn row(&mut self, row: Row, replace: bool) -> Result<()> {
        self.count += u64::from(!replace);
        self.rows.row(row, replace)?;
        self.advance()
    }
    fn advance(&mut self) -> Result<()> {
        let linked = &mut self.linked;
        self.rows.advance(self.files, |slot, digest| learn(linked, slot, digest))
    }
    fn flush(&mut self) -> Result<()> {
        let linked = &mut self.linked;
        self.rows.flush(self.files, |slot, digest| learn(linked, slot, digest))
    }

    /// Two blocks of zeros end an archive.
    pub(super) fn finish(mut self) -> Result<Packed> {
        let end = [0; 2 * BLOCK];
        self.recipe.literal(&end)?;
        self.put(&end)?;
        self.rotate()?;
        self.flush()?;
        self.archive.end()?;
        let digest = self.archive.digest()?;
        self.recipe.finish(self.size, &digest)?;
        Ok(Packed { diff_id: DiffId(digest), size: self.size, bytes: self.bytes, rows: self.count })
    }
}

fn learn(linked: &mut [Row], slot: u32, digest: Digest) {
    if let Some(row) = linked.get_mut(slot as usize) {
        row.digest = Some(digest);
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn read_full(file: &OwnedFd, mut into: &mut [u8], row: &Row) -> Result<usize> {
    let mut done = 0;
    while !into.is_empty() {
        match rustix::io::read(file.as_fd(), &mut *into) {
            Ok(0) => break,
            Ok(count) => {
                done += count;
                into = &mut into[count..];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(error).context(|| format!("reading `{}`", row.path.escape_ascii()));
            }
        }
    }
    Ok(done)
}

fn check_length(read: u64, size: u64, row: &Row) -> Result<()> {
    if read == size {
        return Ok(());
    }
    Err(Error::conflict(format!("`{}` became shorter while it was packed", row.path.escape_ascii()))
        .hint("something still writes to it"))
}
