//! The stream of `btrfs send`, version 1, as commands (btrfs-progs, "Btrfs Stream Format"; fs/btrfs/send.h).
//!
//! A header, then commands: length of what follows (u32), number (u16), CRC-32C (u32) of all of it with zeros in its own
//! place; then attributes: number (u16), length (u16), bytes. Little-endian.

use std::io::{self, Read};

/// What a command says of the tree, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The first: what follows makes of the parent what was sent.
    Begin,
    /// Something new stands there.
    Make(Vec<u8>),
    Rename {
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// A further name of what stands at `of`.
    Link {
        path: Vec<u8>,
        of: Vec<u8>,
    },
    Remove(Vec<u8>),
    /// Bytes, attributes, times.
    Change(Vec<u8>),
    End,
}

pub(super) struct Stream<R> {
    input: R,
}

/// What is not understood to the byte: then nothing of the stream counts.
pub(super) fn doubt(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

const MAGIC: &[u8] = b"btrfs-stream\0";
const VERSION: u32 = 1;
/// Longer than any command without data can be: an xattr of 64 KiB and two paths.
const LONGEST: u32 = 128 << 10;

// Attributes (BTRFS_SEND_A_*).
const PATH: u16 = 15;
const PATH_TO: u16 = 16;
const PATH_LINK: u16 = 17;

impl<R: Read> Stream<R> {
    pub(super) fn open(mut input: R) -> io::Result<Self> {
        let mut header = [0; MAGIC.len() + 4];
        input.read_exact(&mut header)?;
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC || version != VERSION.to_le_bytes() {
            return Err(doubt("it is no stream of version 1"));
        }
        Ok(Stream { input })
    }

    pub(super) fn next(&mut self) -> io::Result<Command> {
        let mut header = [0; 10];
        self.input.read_exact(&mut header)?;
        let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        if length > LONGEST {
            return Err(doubt(format!("a command of {length} bytes")));
        }
        let mut body = vec![0; length as usize];
        self.input.read_exact(&mut body)?;
        let sum = u32::from_le_bytes(header[6..].try_into().expect("four bytes"));
        header[6..].fill(0);
        if crc32c(crc32c(0, &header), &body) != sum {
            return Err(doubt("a command's checksum is wrong"));
        }
        let attributes = attributes(&body)?;
        let get = |wanted: u16| {
            let found = attributes.iter().find(|(number, _)| *number == wanted);
            found.map(|(_, bytes)| bytes.to_vec()).ok_or_else(|| doubt(format!("no attribute {wanted}")))
        };
        // BTRFS_SEND_C_*
        Ok(match u16::from_le_bytes(header[4..6].try_into().expect("two bytes")) {
            // SNAPSHOT
            2 => Command::Begin,
            // MKFILE, MKDIR, MKNOD, MKFIFO, MKSOCK, SYMLINK
            3..=8 => Command::Make(get(PATH)?),
            9 => Command::Rename { from: get(PATH)?, to: get(PATH_TO)? },
            10 => Command::Link { path: get(PATH)?, of: get(PATH_LINK)? },
            // UNLINK, RMDIR
            11 | 12 => Command::Remove(get(PATH)?),
            // SET_XATTR, REMOVE_XATTR, WRITE, CLONE, TRUNCATE, CHMOD, CHOWN, UTIMES, UPDATE_EXTENT
            13..=20 | 22 => Command::Change(get(PATH)?),
            21 => Command::End,
            other => return Err(doubt(format!("unknown command {other}"))),
        })
    }

    /// After the end nothing comes.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(doubt("something comes after its end")),
        }
    }
}

fn attributes(mut body: &[u8]) -> io::Result<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let short = || doubt("an attribute is cut off");
        let (header, rest) = body.split_at_checked(4).ok_or_else(short)?;
        let number = u16::from_le_bytes([header[0], header[1]]);
        let length = u16::from_le_bytes([header[2], header[3]]);
        let (bytes, rest) = rest.split_at_checked(length.into()).ok_or_else(short)?;
        found.push((number, bytes));
        body = rest;
    }
    Ok(found)
}

/// As the kernel's `crc32c`: begun with 0, and not inverted at the end.
fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |sum, byte| TABLE[((sum & 0xff) ^ u32::from(*byte)) as usize] ^ (sum >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0_u32;
    while at < 256 {
        let mut sum = at;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[at as usize] = sum;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn command(number: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (number, bytes) in attributes {
            body.extend(number.to_le_bytes());
            body.extend(u16::try_from(bytes.len()).unwrap().to_le_bytes());
            body.extend(*bytes);
        }
        let mut whole = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        whole.extend(number.to_le_bytes());
        whole.extend([0; 4]);
        whole.extend(body);
        let sum = crc32c(0, &whole).to_le_bytes();
        whole[6..10].copy_from_slice(&sum);
        whole
    }

    fn stream(commands: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC, &VERSION.to_le_bytes(), &commands.concat()].concat()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<Command>> {
        let mut stream = Stream::open(bytes)?;
        let mut commands = Vec::new();
        loop {
            commands.push(stream.next()?);
            if commands.last() == Some(&Command::End) {
                stream.finish()?;
                return Ok(commands);
            }
        }
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        // RFC 3720, B.4: 32 bytes of zeros; inverted before and after there.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn commands_are_read() {
        let bytes = stream(&[
            command(2, &[(PATH, b"snap"), (1, &[7; 16])]),
            command(9, &[(PATH, b"o257-7-0"), (PATH_TO, b"a/\xff")]),
            command(10, &[(PATH, b"b"), (PATH_LINK, b"a/\xff")]),
            command(20, &[(PATH, b"")]),
            command(21, &[]),
        ]);
        let (from, to) = (b"o257-7-0".to_vec(), b"a/\xff".to_vec());
        assert_eq!(
            read(&bytes).unwrap(),
            [
                Command::Begin,
                Command::Rename { from, to: to.clone() },
                Command::Link { path: b"b".to_vec(), of: to },
                Command::Change(Vec::new()),
                Command::End,
            ]
        );
    }

    #[test]
    fn any_doubt_is_an_error() {
        let whole = stream(&[command(2, &[]), command(11, &[(PATH, b"x")]), command(21, &[])]);
        assert!(read(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut off at {length}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            assert!(read(&bad).is_err(), "changed at {at}");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
        assert!(read(&stream(&[command(99, &[(PATH, b"x")]), command(21, &[])])).is_err());
        assert!(read(&stream(&[command(9, &[(PATH, b"x")]), command(21, &[])])).is_err());
    }
}
