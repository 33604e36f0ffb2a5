//! Any tar, read as a stream: v7, USTAR, old GNU and PAX, sparse files of all four kinds.
//!
//! Where dialects contradict each other, what Go's archive/tar does counts: it is how the world's engines have read
//! these layers. A GNU long name wins over a PAX path; global PAX headers mean nothing; a typeflag of NUL with a
//! trailing slash is a directory; links and directories have no data whatever their size field says; zero blocks
//! end the archive, and so does its end. All that comes after is read for the digest alone.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use super::fields::{base64_value, decimal, number, pax_records, pax_time, percent_decoded, until_nul};
use super::hashing::{BUFFER, Hashing, Piece, Pool};
use super::header::{BLOCK, PAX_LIMIT, checksums};
use crate::error::{Context, Error, Result};

/// Regions of one sparse file.
const REGIONS_LIMIT: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    File,
    Link,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
    /// Of no meaning for a tree, such as a volume label.
    Other,
}

/// A member as its headers describe it, all dialects alike.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Type,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of the file, holes included.
    pub(super) size: u64,
    /// Of its data in the archive.
    pub(super) stored: u64,
    /// Nanoseconds since the epoch.
    pub(super) mtime: i64,
    pub(super) link: Vec<u8>,
    pub(super) rdev: (u32, u32),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A sparse file's data: offset and length of each region, ascending, `stored` bytes together.
    pub(super) regions: Option<Vec<(u64, u64)>>,
}

/// Reads members, hands every byte to the digest of the archive, and keeps those that are no file's data.
pub(super) struct Reader<'a> {
    input: &'a mut dyn Read,
    archive: &'a Hashing,
    pool: Pool,
    buffer: Arc<Vec<u8>>,
    at: usize,
    filled: usize,
    /// Offset of the buffer's end in the archive.
    read: u64,
    /// Data of the current member that was not taken yet, and the padding after it.
    rest: u64,
    padding: u64,
    /// Headers, padding, and what else is no file's data, since it was last taken.
    pub(super) literal: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a mut dyn Read, archive: &'a Hashing) -> Self {
        let mut pool = Pool::default();
        let buffer = pool.take();
        Reader {
            input,
            archive,
            pool,
            buffer,
            at: 0,
            filled: 0,
            read: 0,
            rest: 0,
            padding: 0,
            literal: Vec::new(),
        }
    }

    /// Bytes of the archive so far.
    pub(super) fn offset(&self) -> u64 {
        self.read - (self.filled - self.at) as u64
    }

    /// Up to `most` bytes of what comes next, none only at the end.
    fn piece(&mut self, most: u64) -> Result<Piece> {
        if self.at == self.filled {
            self.fill()?;
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.filled - self.at);
        let piece = Piece::new(&self.buffer, self.at, self.at + length);
        self.at += length;
        Ok(piece)
    }

    fn fill(&mut self) -> Result<()> {
        let old = std::mem::replace(&mut self.buffer, self.pool.take());
        self.pool.give(old);
        let buffer = Arc::get_mut(&mut self.buffer).expect("the pool gives buffers that nobody holds");
        (self.at, self.filled) = (0, 0);
        while self.filled < BUFFER {
            match self.input.read(&mut buffer[self.filled..]) {
                Ok(0) => break,
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(|| "reading the archive"),
            }
        }
        self.read += self.filled as u64;
        if self.filled > 0 {
            self.archive.bytes(Piece::new(&self.buffer, 0, self.filled))?;
        }
        Ok(())
    }

    /// Fills `into` from the archive as literal bytes; how many there were before its end.
    fn take(&mut self, into: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let piece = self.piece((into.len() - done) as u64)?;
            if piece.is_empty() {
                break;
            }
            into[done..done + piece.len()].copy_from_slice(&piece);
            done += piece.len();
        }
        self.literal.extend_from_slice(&into[..done]);
        Ok(done)
    }

    fn truncated(&self, what: &str) -> Error {
        Error::invalid(format!("the archive ends after {} bytes, in the middle of {what}", self.offset()))
            .hint("it was cut short: get it again")
    }
    fn bad(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!(
            "the archive is not a tar that we can read: {what} before byte {}",
            self.offset()
        ))
        .hint("a tar is needed, plain or compressed with gzip or zstd; this is something else, or damaged")
    }

    /// One header block; `None` at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.take(&mut block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(self.truncated("a header")),
        }
        if block.iter().all(|byte| *byte == 0) {
            return match self.take(&mut block)? {
                0 => Ok(None),
                BLOCK if block.iter().all(|byte| *byte == 0) => Ok(None),
                BLOCK => Err(self.bad("a block of zeros with something else after it")),
                _ => Err(self.truncated("a header")),
            };
        }
        let (unsigned, signed) = checksums(&block);
        let said = number(&block[148..156]).ok_or_else(|| self.bad("a header without checksum"))?;
        if said != unsigned && said != signed {
            return Err(self.bad("a header whose checksum is wrong"));
        }
        Ok(Some(block))
    }

    /// The data of a header that is no file: records, or a long name.
    fn special(&mut self, size: i64) -> Result<Vec<u8>> {
        let length = u64::try_from(size).map_err(|_too_large| self.bad("a negative size"))?;
        if length > PAX_LIMIT {
            return Err(
                self.bad(format_args!("an extended header of {length} bytes; {PAX_LIMIT} are allowed"))
            );
        }
        let mut data = vec![0; usize::try_from(length).expect("bounded above")];
        if self.take(&mut data)? < data.len() {
            return Err(self.truncated("an extended header"));
        }
        self.padding = length.next_multiple_of(BLOCK as u64) - length;
        self.pass_over(self.padding)?;
        Ok(data)
    }

    /// Literal bytes nobody looks at; fewer at the end of the archive.
    fn pass_over(&mut self, mut count: u64) -> Result<u64> {
        let wanted = count;
        while count > 0 {
            let piece = self.piece(count)?;
            if piece.is_empty() {
                break;
            }
            self.literal.extend_from_slice(&piece);
            count -= piece.len() as u64;
        }
        self.padding = 0;
        Ok(wanted - count)
    }

    /// The next bytes of the current member's data, `most` at most.
    pub(super) fn data(&mut self, most: u64) -> Result<Piece> {
        let piece = self.piece(self.rest.min(most))?;
        if piece.is_empty() {
            return Err(self.truncated("a file"));
        }
        self.rest -= piece.len() as u64;
        Ok(piece)
    }

    /// Some of the current member's data as literal bytes; `false` when all were taken.
    pub(super) fn data_as_literal(&mut self) -> Result<bool> {
        if self.rest == 0 {
            return Ok(false);
        }
        let piece = self.data(u64::MAX)?;
        self.literal.extend_from_slice(&piece);
        Ok(true)
    }

    /// What follows the end of the archive, as literal bytes, some at a time; `false` when there is no more.
    pub(super) fn junk(&mut self) -> Result<bool> {
        Ok(self.pass_over(BUFFER as u64)? > 0)
    }

    /// The next member; the data of the one before must have been taken.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        debug_assert_eq!(self.rest, 0, "data of the member before");
        self.pass_over(self.padding)?;
        let mut records = Vec::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(block) = self.block()? else {
                return match records.is_empty() && long_name.is_none() && long_link.is_none() {
                    true => Ok(None),
                    false => Err(self.truncated("a member: its extended header is the last there is")),
                };
            };
            let size = self.field(&block[124..136], "size")?;
            match block[156] {
                b'x' | b'X' => records = self.records(size)?,
                b'g' => drop(self.records(size)?),
                b'L' => long_name = Some(until_nul(&self.special(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.special(size)?).to_vec()),
                flag => return self.member(&block, flag, size, &records, long_name, long_link).map(Some),
            }
        }
    }

    fn field(&self, field: &[u8], what: &str) -> Result<i64> {
        number(field).ok_or_else(|| self.bad(format_args!("a header whose {what} is no number")))
    }

    fn member(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: i64,
        records: &[(Vec<u8>, Vec<u8>)],
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member> {
        let gnu = &block[257..265] == b"ustar  \0";
        let ustar = &block[257..263] == b"ustar\0";
        let mut member = Member {
            name: until_nul(&block[..100]).to_vec(),
            kind: Type::Other,
            mode: u32::try_from(self.field(&block[100..108], "mode")? & 0o7777).expect("masked"),
            uid: 0,
            gid: 0,
            size: 0,
            stored: 0,
            mtime: self.field(&block[136..148], "time")?.saturating_mul(1_000_000_000),
            link: until_nul(&block[157..257]).to_vec(),
            rdev: (0, 0),
            xattrs: BTreeMap::new(),
            regions: None,
        };
        let (mut uid, mut gid) =
            (self.field(&block[108..116], "owner")?, self.field(&block[116..124], "group")?);
        if ustar {
            // star keeps two times at the end of what is USTAR's prefix.
            let end = if &block[508..512] == b"tar\0" { 345 + 131 } else { 500 };
            let prefix = until_nul(&block[345..end]);
            if !prefix.is_empty() {
                member.name = [prefix, b"/", &member.name].concat();
            }
        }
        let mut size = size;
        let mut sparse = BTreeMap::new();
        for (key, value) in records {
            // An empty value takes a record back, but an attribute may well be empty.
            if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
                continue;
            }
            let as_number = || {
                let text = std::str::from_utf8(value).ok();
                text.and_then(|text| text.parse::<i64>().ok())
                    .ok_or_else(|| self.bad(format_args!("a `{}` that is no number", key.escape_ascii())))
            };
            match key.as_slice() {
                b"path" => member.name.clone_from(value),
                b"linkpath" => member.link.clone_from(value),
                b"size" => size = as_number()?,
                b"uid" => uid = as_number()?,
                b"gid" => gid = as_number()?,
                b"mtime" => {
                    member.mtime = pax_time(value).ok_or_else(|| self.bad("a time that is none"))?;
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        member.xattrs.insert(name.to_vec(), value.clone());
                    } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                        let bad = || self.bad("an extended attribute that is not in base64");
                        let value = base64_value(value).ok_or_else(bad)?;
                        member.xattrs.entry(percent_decoded(name)).or_insert(value);
                    } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                        sparse.insert(name, value.as_slice());
                    }
                }
            }
        }
        if let Some(name) = long_name.filter(|name| !name.is_empty()) {
            member.name = name;
        }
        if let Some(link) = long_link.filter(|link| !link.is_empty()) {
            member.link = link;
        }
        (member.uid, member.gid) = (self.id(uid)?, self.id(gid)?);
        member.kind = match flag {
            0 if member.name.ends_with(b"/") => Type::Dir,
            0 | b'0' | b'7' | b'S' => Type::File,
            b'1' => Type::Link,
            b'2' => Type::Symlink,
            b'3' => Type::Char,
            b'4' => Type::Block,
            b'5' | b'D' => Type::Dir,
            b'6' => Type::Fifo,
            b'V' => Type::Other,
            b'M' | b'N' => {
                return Err(Error::unsupported(format!(
                    "`{}` is of a kind that only old GNU archives in several parts have",
                    member.name.escape_ascii()
                )));
            }
            other => {
                return Err(self.bad(format_args!(
                    "`{}` is of the unknown kind `{}`",
                    member.name.escape_ascii(),
                    other.escape_ascii()
                )));
            }
        };
        // Dumpdirs and labels have data, which says nothing about a tree.
        let stored =
            matches!(flag, 0 | b'0' | b'7' | b'S' | b'D' | b'V') && (flag != 0 || member.kind == Type::File);
        self.rest =
            if stored { u64::try_from(size).map_err(|_too_large| self.bad("a negative size"))? } else { 0 };
        self.padding = self.rest.checked_next_multiple_of(BLOCK as u64).map_or(0, |end| end - self.rest);
        if matches!(member.kind, Type::Char | Type::Block) {
            let part = |range, what| {
                let number = self.field(&block[range], what)?;
                u32::try_from(number).map_err(|_too_large| self.bad("a device number that is too large"))
            };
            member.rdev = (part(329..337, "device")?, part(337..345, "device")?);
        }
        if member.kind == Type::File {
            member.size = self.rest;
            if flag == b'S' && gnu {
                self.old_gnu_sparse(block, &mut member)?;
            } else {
                self.pax_sparse(&sparse, &mut member)?;
            }
        }
        member.stored = self.rest;
        Ok(member)
    }

    /// Linux ids have 32 bits and the last is none; some archives say `-2` for `nobody`.
    fn id(&self, id: i64) -> Result<u32> {
        let id = if (-(1 << 31)..0).contains(&id) { id + (1 << 32) } else { id };
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.bad(format_args!("the owner {id}, which Linux cannot have"))),
        }
    }

    fn records(&mut self, size: i64) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let data = self.special(size)?;
        pax_records(&data).ok_or_else(|| self.bad("an extended header with a broken record"))
    }

    /// Four regions in the header, then blocks of 21 more (GNU tar manual, "Old GNU format").
    fn old_gnu_sparse(&mut self, block: &[u8; BLOCK], member: &mut Member) -> Result<()> {
        let bad = "a sparse file whose map is broken";
        member.size = u64::try_from(self.field(&block[483..495], "size")?)
            .map_err(|_too_large| self.bad("a negative size"))?;
        let mut regions = Vec::new();
        let mut part = |reader: &Self, map: &[u8]| {
            for entry in map.chunks_exact(24) {
                if entry[0] == 0 {
                    break;
                }
                let (offset, length) = (number(&entry[..12]), number(&entry[12..]));
                let region = offset.zip(length).and_then(|(offset, length)| {
                    Some((u64::try_from(offset).ok()?, u64::try_from(length).ok()?))
                });
                regions.push(region.ok_or_else(|| reader.bad(bad))?);
            }
            if regions.len() > REGIONS_LIMIT { Err(reader.bad(bad)) } else { Ok(()) }
        };
        part(self, &block[386..482])?;
        let mut more = block[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            if self.take(&mut block)? < BLOCK {
                return Err(self.truncated("the map of a sparse file"));
            }
            part(self, &block[..504])?;
            more = block[504] != 0;
        }
        self.set_regions(regions, member)
    }

    /// GNU's PAX forms 0.0, 0.1 (the map in records) and 1.0 (the map before the data).
    fn pax_sparse(&mut self, sparse: &BTreeMap<&[u8], &[u8]>, member: &mut Member) -> Result<()> {
        let bad = "a sparse file whose map is broken";
        let get = |key: &str| sparse.get(key.as_bytes()).copied().unwrap_or_default();
        let data_holds_map = match (get("major"), get("minor")) {
            (b"1", b"0") => true,
            (b"0", b"0" | b"1") => false,
            (b"", b"") if !get("map").is_empty() => false,
            _ => return Ok(()),
        };
        if !get("name").is_empty() {
            member.name = get("name").to_vec();
        }
        let size = if get("size").is_empty() { get("realsize") } else { get("size") };
        if !size.is_empty() {
            member.size = decimal(size).ok_or_else(|| self.bad(bad))?;
        }
        let mut numbers = Vec::new();
        if data_holds_map {
            let mut text = Vec::new();
            let (mut at, mut wanted) = (0, 1);
            while numbers.len() < wanted {
                // A number and its newline, over block borders.
                while let Some(end) = text[at..].iter().position(|byte| *byte == b'\n') {
                    numbers.push(decimal(&text[at..at + end]).ok_or_else(|| self.bad(bad))?);
                    at += end + 1;
                    if numbers.len() == 1 {
                        let count = usize::try_from(numbers[0]).ok().filter(|count| *count <= REGIONS_LIMIT);
                        wanted = 1 + 2 * count.ok_or_else(|| self.bad(bad))?;
                    }
                    if numbers.len() == wanted {
                        break;
                    }
                }
                if numbers.len() < wanted {
                    let mut block = [0; BLOCK];
                    if self.rest < BLOCK as u64 || text.len() - at > 32 {
                        return Err(self.bad(bad));
                    }
                    if self.take(&mut block)? < BLOCK {
                        return Err(self.truncated("the map of a sparse file"));
                    }
                    self.rest -= BLOCK as u64;
                    text.drain(..at);
                    at = 0;
                    text.extend_from_slice(&block);
                }
            }
            numbers.remove(0);
        } else if !get("map").is_empty() {
            for number in get("map").split(|byte| *byte == b',') {
                numbers.push(decimal(number).ok_or_else(|| self.bad(bad))?);
            }
            let count = decimal(get("numblocks"));
            if !numbers.len().is_multiple_of(2)
                || count.is_some_and(|count| count != numbers.len() as u64 / 2)
            {
                return Err(self.bad(bad));
            }
        }
        let regions = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        self.set_regions(regions, member)
    }

    fn set_regions(&mut self, mut regions: Vec<(u64, u64)>, member: &mut Member) -> Result<()> {
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in &regions {
            let next = offset.checked_add(*length).filter(|_| *offset >= end);
            end = next.ok_or_else(|| self.bad("a sparse file whose regions overlap"))?;
            stored += length;
        }
        if end > member.size || stored != self.rest || i64::try_from(member.size).is_err() {
            return Err(self.bad("a sparse file whose map and size disagree"));
        }
        regions.retain(|(_, length)| *length > 0);
        member.regions = Some(regions);
        Ok(())
    }
}
