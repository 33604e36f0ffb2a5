//! `tar-split.json.gz`: how Docker keeps a layer's archive without its files (vbatts/tar-split, tar/storage/entry.go).
//! JSON objects, one after the other, in the archive's order: bytes as they stand in it (type 2), or a file whose bytes
//! come next (type 1) with its CRC-64.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd as _, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FileType, OFlags};
use serde::Deserialize;

use crate::error::{Context as _, Error, Result};
use crate::layer::compress;
use crate::sys::dir;

/// Bytes of one object; the largest hold extended headers.
const LONGEST: u64 = 64 << 20;

const FILE: u8 = 1;
const SEGMENT: u8 = 2;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    /// base64 of a name that is no UTF-8.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    /// base64 of a segment's bytes, or of a file's CRC-64, big-endian.
    #[serde(default)]
    payload: Option<String>,
}

/// The archive, made again as it is read. Its digest is the reader's to compare; a file that is missing or not what it was
/// is an error (`Corrupt`) that names it.
pub struct Replayed<'a> {
    entries: BufReader<Box<dyn Read + Send + 'a>>,
    tree: OwnedFd,
    line: Vec<u8>,
    now: Now,
}

enum Now {
    Between,
    Segment(io::Cursor<Vec<u8>>),
    File(File),
    End,
}

/// A file on its way into the archive.
struct File {
    name: Vec<u8>,
    file: std::fs::File,
    left: u64,
    crc: Crc,
    expected: Vec<u8>,
}

impl<'a> Replayed<'a> {
    /// `skeleton`: the compressed objects; `tree`: a directory with the layer's files, its own or with all that stands below.
    pub fn open(skeleton: Box<dyn Read + Send + 'a>, tree: OwnedFd) -> Result<Self> {
        let (_, plain) = compress::decoder(skeleton)?;
        Ok(Replayed { entries: BufReader::new(plain), tree, line: Vec::new(), now: Now::Between })
    }

    fn next(&mut self) -> Result<Now> {
        let Some(entry) = self.entry()? else { return Ok(Now::End) };
        let bytes = |text: Option<String>| {
            STANDARD.decode(text.unwrap_or_default()).map_err(|cause| damaged().because(cause))
        };
        let payload = bytes(entry.payload)?;
        match entry.kind {
            SEGMENT => Ok(Now::Segment(io::Cursor::new(payload))),
            // A directory, a link, an empty file: all of it is in its header.
            FILE if entry.size == 0 => Ok(Now::Between),
            FILE => {
                let name = match entry.name_raw {
                    Some(raw) => bytes(Some(raw))?,
                    None => entry.name.into_bytes(),
                };
                let file = open(&self.tree, &name, entry.size)?;
                Ok(Now::File(File { name, file, left: entry.size, crc: Crc::default(), expected: payload }))
            }
            kind => Err(Error::unsupported(format!("an object of type {kind} in a tar-split.json.gz"))),
        }
    }

    fn entry(&mut self) -> Result<Option<Entry>> {
        loop {
            self.line.clear();
            let count = self.entries.by_ref().take(LONGEST).read_until(b'\n', &mut self.line);
            let count = count.context(|| "reading a tar-split.json.gz")?;
            if count == 0 {
                return Ok(None);
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return serde_json::from_slice(&self.line).map(Some).map_err(|cause| damaged().because(cause));
        }
    }
}

fn damaged() -> Error {
    Error::corrupt("its tar-split.json.gz is damaged")
}

fn changed(name: &[u8], how: &str) -> Error {
    Error::corrupt(format!("`{}` {how}", name.escape_ascii()))
}

/// As Docker finds it: links on the way are followed, inside the tree.
fn open(tree: &OwnedFd, name: &[u8], size: u64) -> Result<std::fs::File> {
    // It never waits for a fifo's other end, and leaves the time of the last access alone where it may.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let opened = match dir::open_in_root(tree.as_fd(), name, flags | OFlags::NOATIME) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            dir::open_in_root(tree.as_fd(), name, flags)
        }
        opened => opened,
    };
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed(name, "is missing")),
        opened => opened.context(|| format!("opening `{}`", name.escape_ascii()))?,
    };
    let stat = rustix::fs::fstat(&file).context(|| format!("looking at `{}`", name.escape_ascii()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(changed(name, "is no file any more"));
    }
    if u64::try_from(stat.st_size).ok() != Some(size) {
        return Err(changed(name, &format!("has {} bytes, and had {size}", stat.st_size)));
    }
    Ok(file.into())
}

impl Read for Replayed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.now {
                Now::Between => {
                    self.now = self.next()?;
                    continue;
                }
                Now::Segment(bytes) => bytes.read(buffer)?,
                Now::File(file) => file.read(buffer)?,
                Now::End => return Ok(0),
            };
            if count > 0 {
                return Ok(count);
            }
            self.now = Now::Between;
        }
    }
}

impl File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return match self.crc.sum().to_be_bytes()[..] == self.expected[..] {
                true => Ok(0),
                false => Err(changed(&self.name, "is not what it was: its CRC differs").into()),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(changed(&self.name, "was cut short").into());
        }
        self.crc.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

/// CRC-64 of ISO 3309, reflected, as Go's hash/crc64 computes it.
#[derive(Default)]
struct Crc(u64);

/// Table n: a byte followed by n bytes of zero.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

impl Crc {
    fn update(&mut self, bytes: &[u8]) {
        let mut value = !self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let mixed = (value ^ u64::from_le_bytes(*word)).to_le_bytes();
            value = 0;
            for (n, byte) in mixed.iter().enumerate() {
                value ^= TABLES[7 - n][usize::from(*byte)];
            }
        }
        for byte in rest {
            value = TABLES[0][usize::from(value.to_le_bytes()[0] ^ byte)] ^ value >> 8;
        }
        self.0 = !value;
    }

    fn sum(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    /// The values of Go's hash/crc64 tests.
    #[test]
    fn the_crc_is_gos() {
        for (text, sum) in [
            ("", 0),
            ("a", 0x3420_0000_0000_0000),
            ("abc", 0x3776_c420_0000_0000),
            ("abcdefghij", 0xe8bd_2fa9_6a0e_4a5e_u64),
        ] {
            let mut crc = Crc::default();
            crc.update(text.as_bytes());
            let mut parts = Crc::default();
            text.as_bytes().chunks(3).for_each(|part| parts.update(part));
            assert_eq!(crc.sum(), parts.sum(), "{text}");
            if text != "abcdefghij" {
                assert_eq!(crc.sum(), sum, "{text}");
            }
        }
    }

    fn replay(lines: &str, files: &[(&str, &str)]) -> Result<String> {
        let dir = crate::db::testing::Dir::new();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(lines.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        let tree = dir::open_path(dir.path()).unwrap();
        let mut text = String::new();
        let mut replayed = Replayed::open(Box::new(io::Cursor::new(packed)), tree)?;
        replayed.read_to_string(&mut text).context(|| "reading it")?;
        Ok(text)
    }

    const SKELETON: &str = "{\"type\":2,\"payload\":\"aGVhZCA=\",\"position\":0}\n\
        {\"type\":1,\"name\":\"./a\",\"size\":1,\"payload\":\"NCAAAAAAAAA=\",\"position\":1}\n\
        {\"type\":1,\"name\":\"dir\",\"payload\":null,\"position\":2}\n\
        {\"type\":1,\"name_raw\":\"YQ==\",\"size\":1,\"payload\":\"NCAAAAAAAAA=\",\"position\":3}\n\
        {\"type\":2,\"payload\":\"IHRhaWw=\",\"position\":4}\n";

    #[test]
    fn segments_and_files_come_in_order() {
        assert_eq!(replay(SKELETON, &[("a", "a")]).unwrap(), "head aa tail");
    }

    #[test]
    fn what_is_not_what_it_was_is_named() {
        let said = |lines: &str, files| replay(lines, files).unwrap_err().one_line();
        assert_eq!(said(SKELETON, &[]), "reading it: `./a` is missing");
        assert_eq!(said(SKELETON, &[("a", "b")]), "reading it: `./a` is not what it was: its CRC differs");
        assert_eq!(said(SKELETON, &[("a", "aa")]), "reading it: `./a` has 2 bytes, and had 1");
        assert!(said("{\"type\":2,", &[]).contains("its tar-split.json.gz is damaged"));
        assert!(said("{\"type\":3}", &[]).contains("an object of type 3"));
    }
}
