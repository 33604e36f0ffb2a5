//! Functions that encode, decode and hash.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;

use super::{Entry, Result, records};
use crate::bake::value::Value;

pub(super) const TABLE: &[Entry] = &[
    Entry("base64decode", 1, 1, |a, _| {
        let bytes = STANDARD.decode(a[0].to_text()?).map_err(|error| format!("not base64: {error}"))?;
        String::from_utf8(bytes).map(Value::String).map_err(|error| format!("not UTF-8: {error}"))
    }),
    Entry("base64encode", 1, 1, |a, _| Ok(Value::String(STANDARD.encode(a[0].to_text()?)))),
    Entry("csvdecode", 1, 1, |a, _| csv_decode(&a[0].to_text()?)),
    Entry("jsondecode", 1, 1, |a, _| {
        let json = serde_json::from_str(&a[0].to_text()?).map_err(|error| format!("not JSON: {error}"))?;
        Ok(Value::from_json(json))
    }),
    Entry("jsonencode", 1, 1, |a, _| {
        Ok(Value::String(crate::bake::escape_json(&a[0].to_json().to_string())))
    }),
    Entry("md5", 1, 1, |a, _| Ok(hex(&md5::Md5::digest(a[0].to_text()?)))),
    Entry("sha1", 1, 1, |a, _| Ok(hex(&sha1::Sha1::digest(a[0].to_text()?)))),
    Entry("sha256", 1, 1, |a, _| Ok(hex(&sha2::Sha256::digest(a[0].to_text()?)))),
    Entry("sha512", 1, 1, |a, _| Ok(hex(&sha2::Sha512::digest(a[0].to_text()?)))),
    Entry("urlencode", 1, 1, |a, _| {
        let mut out = String::new();
        for byte in a[0].to_text()?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte));
                }
                b' ' => out.push('+'),
                byte => write!(out, "%{byte:02X}").expect("a String takes all"),
            }
        }
        Ok(Value::String(out))
    }),
    Entry("uuidv4", 0, 0, |_, _| {
        let mut bytes = [0; 16];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        match got {
            Ok(16) => Ok(uuid(bytes, 4)),
            _ => Err("the kernel gave no random bytes".into()),
        }
    }),
    Entry("uuidv5", 2, 2, |a, _| {
        let mut hash = sha1::Sha1::new();
        hash.update(namespace(&a[0].to_text()?)?);
        hash.update(a[1].to_text()?);
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Ok(uuid(bytes, 5))
    }),
];

fn hex(bytes: &[u8]) -> Value {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all");
    }
    Value::String(text)
}

/// RFC 4122: version and variant have their bits.
fn uuid(mut bytes: [u8; 16], version: u8) -> Value {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let Value::String(hex) = hex(&bytes) else { unreachable!("hex is text") };
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Value::String(parts.join("-"))
}

/// RFC 4122, appendix C; else a UUID.
fn namespace(name: &str) -> Result<[u8; 16]> {
    let text = match name {
        "dns" => "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "url" => "6ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "oid" => "6ba7b812-9dad-11d1-80b4-00c04fd430c8",
        "x500" => "6ba7b814-9dad-11d1-80b4-00c04fd430c8",
        other => other,
    };
    let digits = text.replace('-', "");
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| format!("`{name}` is not a namespace: dns, url, oid, x500 or a UUID"))
}

/// The first record names the columns.
fn csv_decode(text: &str) -> Result {
    let mut records = records(text)?.into_iter();
    let names = records.next().ok_or("it has no line of names")?;
    let mut rows = Vec::new();
    for record in records {
        if record.len() != names.len() {
            return Err(format!("a record has {} fields where {} are named", record.len(), names.len()));
        }
        let row: BTreeMap<_, _> = names.iter().cloned().zip(record.into_iter().map(Value::String)).collect();
        rows.push(Value::Map(row));
    }
    Ok(Value::List(rows))
}
