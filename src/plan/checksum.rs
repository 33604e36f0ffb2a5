//! What the bytes of a file must be, by one of three hashes.

use std::fmt;
use std::io::Read;

use sha2::{Digest as _, Sha384, Sha512};

use crate::image::Digest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// What files are known by here, too.
    Sha256(Digest),
    /// 96 digits, small.
    Sha384(String),
    /// 128 digits, small.
    Sha512(String),
}

impl Checksum {
    /// `sha512:` and its digits; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, count: usize| {
            let small = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            (text.len() == count && text.bytes().all(small)).then(|| text.to_owned())
        };
        match text.split_once(':')? {
            ("sha384", hex) => digits(hex, 96).map(Checksum::Sha384),
            ("sha512", hex) => digits(hex, 128).map(Checksum::Sha512),
            _ => text.parse().ok().map(Checksum::Sha256),
        }
    }

    /// Of the same kind, of these bytes.
    pub fn of_same_kind(&self, bytes: &mut dyn Read) -> std::io::Result<Checksum> {
        let mut buffer = [0; 64 << 10];
        let mut each = |update: &mut dyn FnMut(&[u8])| -> std::io::Result<()> {
            loop {
                match bytes.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => update(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(match self {
            Checksum::Sha256(_) => {
                let mut hasher = crate::image::Hasher::new();
                each(&mut |bytes| hasher.update(bytes))?;
                Checksum::Sha256(hasher.finish())
            }
            Checksum::Sha384(_) => {
                let mut hasher = Sha384::new();
                each(&mut |bytes| hasher.update(bytes))?;
                Checksum::Sha384(hex(&hasher.finalize()))
            }
            Checksum::Sha512(_) => {
                let mut hasher = Sha512::new();
                each(&mut |bytes| hasher.update(bytes))?;
                Checksum::Sha512(hex(&hasher.finalize()))
            }
        })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checksum::Sha256(digest) => write!(out, "{digest}"),
            Checksum::Sha384(hex) => write!(out, "sha384:{hex}"),
            Checksum::Sha512(hex) => write!(out, "sha512:{hex}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_read_and_made_by_its_own_hash() {
        // FIPS 180-2: of `abc`.
        for text in [
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
             454d4423643ce80e2a9ac94fa54ca49f",
        ] {
            let checksum = Checksum::parse(text).unwrap();
            assert_eq!(checksum.to_string(), text);
            assert_eq!(checksum.of_same_kind(&mut &b"abc"[..]).unwrap(), checksum);
            assert_ne!(checksum.of_same_kind(&mut &b"abd"[..]).unwrap(), checksum);
        }
        for text in ["", "sha512", "sha512:", "sha512:abc", "sha384:CB00", "md5:00", "sha256:00"] {
            assert_eq!(Checksum::parse(text), None, "{text}");
        }
    }
}
