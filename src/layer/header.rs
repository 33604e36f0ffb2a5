//! Tar headers as we write them: USTAR, and PAX records only where USTAR cannot say it (POSIX.1-2017, pax,
//! "ustar Interchange Format" and "pax Interchange Format"). The form of every field is that of Go's archive/tar,
//! which most layers of the world were made with.

use std::collections::BTreeMap;

use base64::Engine as _;

use crate::error::{Error, Result};

pub(super) const BLOCK: usize = 512;
/// More than this in one PAX header is refused, by us and by others (Go: maxSpecialFileSize).
pub(super) const PAX_LIMIT: u64 = 1 << 20;

/// What stands in a member's header. `name` of a directory ends in a slash.
pub(super) struct Header<'a> {
    pub(super) name: &'a [u8],
    pub(super) flag: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds since the epoch.
    pub(super) mtime: i64,
    pub(super) link: &'a [u8],
    pub(super) rdev: (u32, u32),
    pub(super) xattrs: &'a BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The header of a file that anybody may read (0444), or of a directory (0755), of root, from 1970. `name` is short.
pub fn plain_header(name: &str, size: Option<u64>) -> Result<Vec<u8>> {
    let header = Header {
        name: name.as_bytes(),
        flag: if size.is_some() { b'0' } else { b'5' },
        mode: if size.is_some() { 0o444 } else { 0o755 },
        uid: 0,
        gid: 0,
        size: size.unwrap_or(0),
        mtime: 0,
        link: b"",
        rdev: (0, 0),
        xattrs: &BTreeMap::new(),
    };
    let mut bytes = Vec::new();
    header.write(&mut bytes)?;
    Ok(bytes)
}

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

impl Header<'_> {
    /// Appends the header's blocks: one, or three and more with PAX records.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut pax: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut ustar = true;
        let mut split = None;
        if !is_ascii(self.name) || self.name.len() > NAME.len() {
            split = split_name(self.name);
            ustar &= split.is_some();
            pax.insert(b"path".into(), self.name.into());
        }
        if !is_ascii(self.link) || self.link.len() > LINK.len() {
            ustar = false;
            pax.insert(b"linkpath".into(), self.link.into());
        }
        for (key, field, number) in [
            ("uid", UID, i64::from(self.uid)),
            ("gid", GID, i64::from(self.gid)),
            ("size", SIZE, i64::try_from(self.size).map_err(|_too_large| self.too_large())?),
            ("mtime", MTIME, self.mtime),
        ] {
            if !fits_octal(field.len(), number) {
                ustar = false;
                pax.insert(key.into(), number.to_string().into_bytes());
            }
        }
        for (name, value) in self.xattrs {
            ustar = false;
            let (key, value) = xattr_record(name, value);
            pax.insert(key, value);
        }
        if ustar {
            let (prefix, name) = split.unwrap_or((b"", self.name));
            let mut block = self.block(name, self.link);
            put_text(&mut block[PREFIX], prefix);
            seal(&mut block);
            out.extend_from_slice(&block);
            return Ok(());
        }
        if !pax.is_empty() {
            self.write_records(&pax, out)?;
        }
        let mut block = self.block(&to_ascii(self.name), &to_ascii(self.link));
        seal(&mut block);
        out.extend_from_slice(&block);
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::unsupported(format!("`{}` is too large for an archive", self.name.escape_ascii()))
    }

    fn block(&self, name: &[u8], link: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_text(&mut block[NAME], name);
        put_octal(&mut block[MODE], i64::from(self.mode));
        put_octal(&mut block[UID], i64::from(self.uid));
        put_octal(&mut block[GID], i64::from(self.gid));
        put_octal(&mut block[SIZE], i64::try_from(self.size).unwrap_or(0));
        put_octal(&mut block[MTIME], self.mtime);
        block[FLAG] = self.flag;
        put_text(&mut block[LINK], link);
        put_octal(&mut block[MAJOR], i64::from(self.rdev.0));
        put_octal(&mut block[MINOR], i64::from(self.rdev.1));
        block
    }

    /// The extended header: a file of its own in front of the member, named `<directory>/PaxHeaders.0/<name>`.
    fn write_records(&self, pax: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) -> Result<()> {
        let mut records = Vec::new();
        for (key, value) in pax {
            put_record(&mut records, key, value);
        }
        if records.len() as u64 > PAX_LIMIT {
            return Err(Error::unsupported(format!(
                "the extended attributes of `{}` take {} bytes; an archive holds {PAX_LIMIT} at most",
                self.name.escape_ascii(),
                records.len()
            )));
        }
        let mut block = [0; BLOCK];
        let name = to_ascii(&pax_name(self.name));
        let name = &name[..name.len().min(NAME.len())];
        let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        put_text(&mut block[NAME], &name[..end]);
        for field in [MODE, UID, GID, MTIME] {
            put_octal(&mut block[field], 0);
        }
        put_octal(&mut block[SIZE], i64::try_from(records.len()).expect("bounded above"));
        block[FLAG] = b'x';
        seal(&mut block);
        out.extend_from_slice(&block);
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }
}

/// As star, GNU tar and Go write them; as libarchive does where a record cannot hold the name.
fn xattr_record(name: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if !name.contains(&b'=') {
        return ([b"SCHILY.xattr.", name].concat(), value.to_vec());
    }
    let mut key = b"LIBARCHIVE.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' | b'%' => key.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => key.push(*byte),
        }
    }
    (key, base64::engine::general_purpose::STANDARD.encode(value).into_bytes())
}

/// `"<length> <key>=<value>\n"`, the length counting itself.
fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + decimal_digits(rest);
    if rest + decimal_digits(length) != length {
        length = rest + decimal_digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |digits| usize::try_from(digits).expect("at most 19") + 1)
}

fn pax_name(name: &[u8]) -> Vec<u8> {
    let (dir, file) = match name.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&name[..=at], &name[at + 1..]),
        None => (&b""[..], name),
    };
    let dir: Vec<&[u8]> =
        dir.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    let mut parts = dir;
    parts.push(b"PaxHeaders.0");
    if !file.is_empty() {
        parts.push(file);
    }
    parts.join(&b'/')
}

fn is_ascii(text: &[u8]) -> bool {
    text.iter().all(|byte| (1..0x80).contains(byte))
}

/// Without what a USTAR field must not hold. The whole name is in a record.
fn to_ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| (1..0x80).contains(byte)).collect()
}

/// Into the prefix and name fields of USTAR, at a slash, which neither keeps.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME.len() || !is_ascii(name) {
        return None;
    }
    let length = if name.len() > PREFIX.len() + 1 {
        PREFIX.len() + 1
    } else if name.ends_with(b"/") {
        name.len() - 1
    } else {
        name.len()
    };
    let at = name[..length].iter().rposition(|byte| *byte == b'/')?;
    let rest = name.len() - at - 1;
    (at > 0 && at <= PREFIX.len() && rest > 0 && rest <= NAME.len()).then(|| (&name[..at], &name[at + 1..]))
}

fn fits_octal(width: usize, number: i64) -> bool {
    let bits = (width - 1) * 3;
    number >= 0 && number < 1 << bits
}

/// Zero-padded, NUL at the end; 0 for what does not fit, as the number is then in a record.
fn put_octal(field: &mut [u8], number: i64) {
    let number = if fits_octal(field.len(), number) { number } else { 0 };
    let digits = format!("{number:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}

/// Cut to the field; NUL at the end where there is room.
fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    // A cut name that ends in a slash would be a directory to readers that do not know PAX.
    if text.len() > length && field[length - 1] == b'/' {
        let end = field.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        field[end] = 0;
    }
}

/// Magic, version and checksum: six octal digits, NUL, space.
fn seal(block: &mut [u8; BLOCK]) {
    block[MAGIC].copy_from_slice(b"ustar\x0000");
    let (sum, _) = checksums(block);
    let text = format!("{sum:06o}\0 ");
    block[CHECKSUM].copy_from_slice(text.as_bytes());
}

/// Over the block with blanks for the checksum: of unsigned bytes, as POSIX says, and of signed ones, as some wrote.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let none = BTreeMap::new();
        let header = Header {
            name,
            flag: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 5,
            mtime: 1_700_000_000,
            link: b"",
            rdev: (0, 0),
            xattrs: &none,
        };
        header.write(&mut out).unwrap();
        out
    }

    #[test]
    fn a_small_header_is_one_block_as_go_writes_it() {
        let block = header(b"etc/hosts");
        assert_eq!(block.len(), BLOCK);
        assert_eq!(&block[..10], b"etc/hosts\0");
        assert_eq!(
            &block[100..157],
            b"0000644\x000000000\x000000000\x0000000000005\x0014524770400\x00011100\0 0"
        );
        assert_eq!(&block[257..265], b"ustar\x0000");
        assert_eq!(&block[329..345], b"0000000\x000000000\0");
    }

    #[test]
    fn a_long_name_is_split_at_a_slash_or_goes_to_a_record() {
        let long = [&b"d"[..]; 3].map(|part| part.repeat(40)).join(&b'/');
        let block = header(&long);
        assert_eq!(block.len(), BLOCK);
        assert_eq!(&block[345..427], [&long[..81], b"\0"].concat());
        let unsplittable = header(&b"n".repeat(150));
        assert_eq!(unsplittable.len(), 3 * BLOCK);
        assert!(unsplittable.starts_with(b"PaxHeaders.0/nnnn"));
        assert!(unsplittable[BLOCK..].starts_with(b"160 path=nnnn"));
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in 1..2000 {
            let mut out = Vec::new();
            put_record(&mut out, b"k", &vec![b'v'; length]);
            let (said, _) = std::str::from_utf8(&out).unwrap().split_once(' ').unwrap();
            assert_eq!(said.parse::<usize>().unwrap(), out.len());
        }
    }
}
