//! What stands in the fields and records of tar headers, in any dialect.

use base64::Engine as _;

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal with blanks and NULs around, nothing meaning 0; or base-256, big-endian, two's complement.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, true) => byte | 0x80,
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !blank(byte)) else { return Some(0) };
    let digits = until_nul(&field[start..]);
    let end = digits.iter().rposition(|byte| *byte != b' ')?;
    digits[..=end].iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Records by their lengths: values may hold anything, newlines too. Sparse form 0.0 repeats its keys, in pairs;
/// they become one map as in 0.1.
pub(super) fn pax_records(data: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    let mut map: Vec<&[u8]> = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&rest[..space])?).ok()?;
        if length <= space || length > rest.len() || rest[length - 1] != b'\n' {
            return None;
        }
        let record = &rest[space + 1..length - 1];
        rest = &rest[length..];
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || key.contains(&0) || (text && value.contains(&0)) {
            return None;
        }
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                if (map.len().is_multiple_of(2)) != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                    return None;
                }
                map.push(value);
            }
            _ => records.push((key.to_vec(), value.to_vec())),
        }
    }
    if !map.is_empty() {
        records.push((b"GNU.sparse.map".to_vec(), map.join(&b',')));
    }
    Some(records)
}

/// Seconds with a fraction, in nanoseconds; what does not fit is cut.
pub(super) fn pax_time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !all_digits(seconds) || !all_digits(fraction) {
        return None;
    }
    let seconds = seconds.parse::<i64>().unwrap_or(i64::MAX);
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let value = seconds.saturating_mul(1_000_000_000).saturating_add(nine.parse().ok()?);
    Some(if negative { -value } else { value })
}

pub(super) fn base64_value(value: &[u8]) -> Option<Vec<u8>> {
    let end = value.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(&value[..end]).ok()
}

pub(super) fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"0000008\0", None),
            (b"\x80\0\0\0\0\x20\0\0", Some(2_097_152)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb", Some(-5)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn times_have_signs_and_fractions() {
        assert_eq!(pax_time(b"1700000000.5"), Some(1_700_000_000_500_000_000));
        assert_eq!(pax_time(b"-5.25"), Some(-5_250_000_000));
        assert_eq!(pax_time(b"1.0000000019"), Some(1_000_000_001));
        assert_eq!(pax_time(b"99999999999999999999"), Some(i64::MAX));
        for bad in ["", ".5", "1.x", "1e5", "--1"] {
            assert_eq!(pax_time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_record_may_hold_newlines_and_equals_signs() {
        let records = pax_records(b"12 k=a\nb=c\n\n").unwrap();
        assert_eq!(records, [(b"k".to_vec(), b"a\nb=c\n".to_vec())]);
        assert_eq!(pax_records(b"13 k=a\nb=c\n\n"), None);
        assert_eq!(pax_records(b"4 k=\n"), None);
    }
}
