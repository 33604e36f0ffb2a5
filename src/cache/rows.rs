//! The rows of a layer as a blob.
//!
//! zstd over the line `outcrop rows 1\n` and then, for each row in the order of the paths' bytes, with numbers as unsigned
//! LEB128 and byte strings preceded by their length:
//!
//! ```text
//! path  kind  mode uid gid  size  mtime (zigzag)  rdev (major minor)  target  link + 1, or 0
//! digest (32 bytes, files only)  xattr count  (name value)*
//! ```
//!
//! `kind` is the number of `Kind`, plus 0x40 for an opaque directory, plus 0x80 for an implied one.

use std::io::{BufReader, Read, Write};

use crate::error::{Context as _, Error, Result};
use crate::image::Digest;
use crate::layer::{Kind, Row, RowSink, compress};

const VERSION: &[u8] = b"outcrop rows 1\n";
/// The longest path, target, name or value of an attribute.
const MAX_BYTES: u64 = 1 << 20;
/// Attributes of one file.
const MAX_XATTRS: u64 = 10_000;
/// As many members as an archive may have.
const MAX_ROWS: u64 = 4 << 20;

/// The same rows make the same bytes.
pub(super) fn encode(rows: impl Iterator<Item = Result<Row>>) -> Result<Vec<u8>> {
    let doing = || "packing the rows of a layer";
    let mut out = Vec::new();
    let zstd = compress::by_name("zstd").expect("it is in the table");
    let mut encoder = zstd.encoder(Box::new(&mut out), None, 1)?;
    encoder.write_all(VERSION).context(doing)?;
    let mut bytes = Vec::new();
    for row in rows {
        put_row(&mut bytes, &row?);
        encoder.write_all(&bytes).context(doing)?;
        bytes.clear();
    }
    encoder.finish().context(doing)?;
    Ok(out)
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    put_bytes(out, &row.path);
    out.push(row.kind as u8 | if row.opaque { 0x40 } else { 0 } | if row.implied { 0x80 } else { 0 });
    for number in [row.mode, row.uid, row.gid] {
        put(out, number.into());
    }
    put(out, row.size);
    put(out, (row.mtime.cast_unsigned() << 1) ^ (row.mtime >> 63).cast_unsigned());
    put(out, row.rdev.0.into());
    put(out, row.rdev.1.into());
    put_bytes(out, &row.target);
    put(out, row.link.map_or(0, |link| u64::from(link) + 1));
    if row.kind == Kind::File {
        out.extend_from_slice(row.digest.unwrap_or_else(|| Digest::from_bytes([0; 32])).as_bytes());
    }
    put(out, row.xattrs.len() as u64);
    for (name, value) in &row.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).expect("masked") | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("below 0x80"));
}

/// Hands the rows of an untrusted blob on, in order, each path once.
pub(super) fn decode(blob: &[u8], rows: &mut dyn RowSink) -> Result<()> {
    let doing = || "reading the rows of a layer";
    let zstd = compress::by_name("zstd").expect("it is in the table");
    let mut reader = In(BufReader::new(zstd.decoder(Box::new(blob))?));
    let mut version = [0; VERSION.len()];
    reader.0.read_exact(&mut version).context(doing)?;
    if version != VERSION {
        return Err(Error::unsupported("the rows of a layer are of a version that is not known here"));
    }
    let mut last: Option<Vec<u8>> = None;
    let mut count = 0;
    while let Some(row) = reader.row().context(doing)? {
        count += 1;
        if count > MAX_ROWS || last.as_ref().is_some_and(|last| *last >= row.path) {
            return Err(Error::corrupt("the rows of a layer are too many or in no order"));
        }
        last = Some(row.path.clone());
        rows.row(row)?;
    }
    Ok(())
}

struct In<R>(BufReader<R>);

impl<R: Read> In<R> {
    fn byte(&mut self) -> Result<Option<u8>> {
        let mut byte = [0];
        let read = self.0.read(&mut byte).context(|| "decompressing them")?;
        Ok((read == 1).then_some(byte[0]))
    }

    fn number_from(&mut self, first: u8) -> Result<u64> {
        let (mut number, mut shift, mut byte) = (0_u64, 0, first);
        loop {
            let part = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && part > 1) {
                return Err(damaged());
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
            byte = self.byte()?.ok_or_else(damaged)?;
        }
    }

    fn number(&mut self) -> Result<u64> {
        let first = self.byte()?.ok_or_else(damaged)?;
        self.number_from(first)
    }

    fn small(&mut self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_too_large| damaged())
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > MAX_BYTES {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        self.0.by_ref().take(length).read_to_end(&mut bytes).context(|| "decompressing them")?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(damaged()) }
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.number()?;
        self.take(length)
    }

    fn row(&mut self) -> Result<Option<Row>> {
        let Some(first) = self.byte()? else { return Ok(None) };
        let length = self.number_from(first)?;
        let path = self.take(length)?;
        if !is_plain(&path) {
            return Err(damaged());
        }
        let code = self.byte()?.ok_or_else(damaged)?;
        let kind = match code & 0x3f {
            1 => Kind::File,
            2 => Kind::Dir,
            3 => Kind::Symlink,
            4 => Kind::Char,
            5 => Kind::Block,
            6 => Kind::Fifo,
            7 => Kind::Whiteout,
            _ => return Err(damaged()),
        };
        let mut row = Row { opaque: code & 0x40 != 0, implied: code & 0x80 != 0, ..Row::bare(path, kind) };
        (row.mode, row.uid, row.gid) = (self.small()?, self.small()?, self.small()?);
        row.size = self.number()?;
        let time = self.number()?;
        row.mtime = (time >> 1).cast_signed() ^ -((time & 1).cast_signed());
        row.rdev = (self.small()?, self.small()?);
        row.target = self.bytes()?;
        row.link = match self.number()? {
            0 => None,
            link => Some(u32::try_from(link - 1).map_err(|_too_large| damaged())?),
        };
        if kind == Kind::File {
            let bytes: [u8; 32] = self.take(32)?.try_into().map_err(|_short| damaged())?;
            row.digest = (bytes != [0; 32]).then(|| Digest::from_bytes(bytes));
        }
        if row.mode > 0o7777 || row.opaque && kind != Kind::Dir {
            return Err(damaged());
        }
        let count = self.number()?;
        if count > MAX_XATTRS {
            return Err(damaged());
        }
        for _ in 0..count {
            let (name, value) = (self.bytes()?, self.bytes()?);
            row.xattrs.insert(name, value);
        }
        Ok(Some(row))
    }
}

/// Relative, without a slash at its ends, and leading nowhere but down.
fn is_plain(path: &[u8]) -> bool {
    let plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    path.is_empty() || !path.contains(&0) && path.split(|byte| *byte == b'/').all(plain)
}

fn damaged() -> Error {
    Error::corrupt("they are damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let mut file = Row { digest: Some(Digest::of(b"a")), size: 1, ..Row::bare("a/f", Kind::File) };
        (file.mode, file.uid, file.gid, file.mtime) = (0o4755, 1, 70_000, -5_000_000_000);
        file.link = Some(0);
        file.xattrs.insert(b"user.x".to_vec(), vec![0, 255]);
        let dir = Row { opaque: true, mode: 0o755, mtime: i64::MAX, ..Row::bare("a", Kind::Dir) };
        let device = Row { rdev: (8, 300), ..Row::bare("b", Kind::Block) };
        let link = Row { target: b"../x".to_vec(), mtime: i64::MIN, ..Row::bare("l", Kind::Symlink) };
        let root = Row { implied: true, ..Row::bare("", Kind::Dir) };
        vec![root, dir, file, device, link, Row::bare("w", Kind::Whiteout)]
    }

    fn read(blob: &[u8]) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        decode(blob, &mut rows)?;
        Ok(rows)
    }

    #[test]
    fn rows_read_as_they_were_written() {
        let blob = encode(rows().into_iter().map(Ok)).unwrap();
        assert_eq!(read(&blob).unwrap(), rows());
        assert_eq!(blob, encode(rows().into_iter().map(Ok)).unwrap());
    }

    #[test]
    fn what_is_cut_or_hostile_is_refused() {
        let plain = zstd::decode_all(&encode(rows().into_iter().map(Ok)).unwrap()[..]).unwrap();
        let again = |plain: &[u8]| read(&zstd::encode_all(plain, 0).unwrap());
        assert!(again(&plain).is_ok());
        for end in VERSION.len() + 1..plain.len() {
            // A cut between two rows is a shorter list; the layer's content id tells.
            if let Ok(shorter) = again(&plain[..end]) {
                assert!(shorter.len() < rows().len(), "{end}");
            }
        }
        for path in ["/a", "a/", "a//b", "..", "a/../b", "a/.", "a\0b"] {
            assert!(
                read(&encode([Ok(Row::bare(path, Kind::Fifo))].into_iter()).unwrap()).is_err(),
                "{path:?}"
            );
        }
        let twice = [Ok(Row::bare("a", Kind::Fifo)), Ok(Row::bare("a", Kind::Fifo))];
        assert!(read(&encode(twice.into_iter()).unwrap()).is_err());
        let mut long = VERSION.to_vec();
        put(&mut long, u64::MAX);
        assert!(again(&long).is_err());
        assert!(read(b"no zstd").is_err());
    }
}
