//! How layers are compressed: one file each; `TABLE` lists them.

use std::io::{self, Read, Write};

use crate::error::{Error, Result};

mod bzip2;
mod gzip;
mod none;
mod xz;
mod zstd;

/// Found by the first bytes of a stream, never by its name.
pub trait Compression: Send + Sync {
    /// As in media types and messages: `gzip`, `zstd`; `none` for a plain archive.
    fn name(&self) -> &'static str;
    /// Whether a stream that begins so is of this kind.
    fn matches(&self, head: &[u8]) -> bool;
    fn decoder<'a>(&self, input: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>>;
    /// The same bytes for the same input, however it is cut into writes. The stream ends with `finish`.
    /// `level` as the library counts, clamped to what there is; `None`: one that is fixed. `threads` may work at it: the
    /// bytes are the same with any number of them.
    fn encoder<'a>(
        &self,
        output: Box<dyn Write + Send + 'a>,
        level: Option<u32>,
        threads: usize,
    ) -> Result<Box<dyn Encoder + 'a>>;
}

/// A compressed stream in the making.
pub trait Encoder: Write + Send {
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// The last one matches everything.
pub static TABLE: &[&dyn Compression] = &[&gzip::Gzip, &zstd::Zstd, &bzip2::Bzip2, &xz::Xz, &none::None];

/// How many first bytes are looked at.
const HEAD: usize = 6;

/// What a stream that begins with `head` is compressed with. An error names what we cannot read.
pub fn detect(head: &[u8]) -> Result<&'static dyn Compression> {
    let foreign: &[(&[u8], &str)] =
        &[(b"\x5d\0\0", "lzma"), (b"LZIP", "lzip"), (b"\x04\x22\x4d\x18", "lz4"), (b"PK\x03\x04", "zip")];
    if let Some((_, name)) = foreign.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Error::unsupported(format!("this archive is compressed with {name}"))
            .hint("gzip, zstd, bzip2, xz and plain archives can be read; recompress it with one of them"));
    }
    let found = TABLE.iter().find(|compression| compression.matches(head));
    Ok(*found.expect("the last entry matches everything"))
}

/// By name, as in `--compression`.
pub fn by_name(name: &str) -> Option<&'static dyn Compression> {
    TABLE.iter().copied().find(|compression| compression.name() == name)
}

/// Reads what is compressed in whatever way it is.
pub fn decoder<'a>(
    mut input: Box<dyn Read + Send + 'a>,
) -> Result<(&'static dyn Compression, Box<dyn Read + Send + 'a>)> {
    let mut head = Vec::with_capacity(HEAD);
    input.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(|cause| {
        Error::new(crate::error::Kind::Unavailable, "reading the first bytes of an archive").because(cause)
    })?;
    let compression = detect(&head)?;
    let decoded = compression.decoder(Box::new(io::Cursor::new(head).chain(input)))?;
    Ok((compression, Box::new(Decoded { decoded, name: compression.name() })))
}

/// Says what is wrong with a stream that cannot be decompressed.
struct Decoded<'a> {
    decoded: Box<dyn Read + Send + 'a>,
    name: &'static str,
}

impl Read for Decoded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        self.decoded.read(buffer).map_err(|cause| match cause.kind() {
            InvalidData | InvalidInput | Other | UnexpectedEof if !carries_ours(&cause) => {
                Error::invalid(format!("its {} stream cannot be decompressed", self.name))
                    .hint("it is damaged or was cut short: get it again")
                    .because(cause)
                    .into()
            }
            _ => cause,
        })
    }
}

fn carries_ours(cause: &io::Error) -> bool {
    cause.get_ref().is_some_and(|inner| inner.is::<Error>())
}

/// Cuts what is written into blocks of one size: encoders' output depends on it.
struct Blocks<W: Write> {
    inner: W,
    block: Vec<u8>,
}

impl<W: Write> Blocks<W> {
    const SIZE: usize = 128 << 10;

    fn new(inner: W) -> Self {
        Blocks { inner, block: Vec::with_capacity(Self::SIZE) }
    }
    fn into_inner(mut self) -> io::Result<W> {
        self.inner.write_all(&self.block)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(Self::SIZE - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == Self::SIZE {
            self.inner.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(taken)
    }
    /// Does nothing: a flush would move the borders of the blocks.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that compresses, but not to nothing.
    fn text() -> Vec<u8> {
        (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).collect()
    }

    fn encode(compression: &dyn Compression, text: &[u8], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = compression.encoder(Box::new(&mut out), None, 2).unwrap();
        for piece in text.chunks(cut) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap();
        out
    }

    fn decode(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decoder(Box::new(bytes)).unwrap().1.read_to_end(&mut out).unwrap();
        out
    }

    /// Those that layers are written with.
    fn written() -> impl Iterator<Item = &'static dyn Compression> {
        TABLE.iter().copied().filter(|compression| !["bzip2", "xz"].contains(&compression.name()))
    }

    #[test]
    fn every_compression_gives_back_what_it_got() {
        for compression in written() {
            let text = text();
            assert!(decode(&encode(compression, &text, text.len())) == text, "{}", compression.name());
            assert_eq!(decode(&encode(compression, b"", 1)), b"", "{}", compression.name());
        }
    }

    #[test]
    fn compressed_bytes_do_not_depend_on_how_they_were_written() {
        for compression in written() {
            let text = text();
            let whole = encode(compression, &text, text.len());
            assert!(encode(compression, &text, 7777) == whole, "{}", compression.name());
        }
    }

    #[test]
    fn compressed_bytes_do_not_depend_on_the_number_of_threads() {
        let text = text().repeat(6);
        for compression in written() {
            let with = |threads| {
                let mut out = Vec::new();
                let mut encoder = compression.encoder(Box::new(&mut out), None, threads).unwrap();
                encoder.write_all(&text).unwrap();
                encoder.finish().unwrap();
                out
            };
            let alone = with(1);
            for threads in [0, 2, 5] {
                assert!(with(threads) == alone, "{} {threads}", compression.name());
            }
        }
    }

    #[test]
    fn gzip_members_in_a_row_are_one_stream() {
        let gzip = by_name("gzip").unwrap();
        let two = [encode(gzip, b"one ", 9), encode(gzip, b"two", 9)].concat();
        assert_eq!(decode(&two), b"one two");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        for name in ["gzip", "zstd"] {
            let bytes = encode(by_name(name).unwrap(), &text(), 1 << 20);
            let mut rest = Vec::new();
            let cut = &bytes[..bytes.len() - 9];
            assert!(decoder(Box::new(cut)).unwrap().1.read_to_end(&mut rest).is_err(), "{name}");
        }
    }

    #[test]
    fn what_we_cannot_read_is_refused_by_name() {
        let error = decoder(Box::new(&b"PK\x03\x04\0\0"[..])).err().unwrap();
        assert_eq!(error.message(), "this archive is compressed with zip");
        for name in ["bzip2", "xz"] {
            let mut out = Vec::new();
            let error = by_name(name).unwrap().encoder(Box::new(&mut out), None, 1).err().unwrap();
            assert_eq!(error.message(), format!("layers are not compressed with {name}"));
        }
    }
}
