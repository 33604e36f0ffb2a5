//! Texts in Go's forms, which histories and flags are written in.

/// Go's `%q` of a list of strings: `["nginx" "-g"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Go's `strconv.Quote`.
pub(super) fn quote(text: &str) -> String {
    quoted(text.chars(), '"')
}

/// Go's `%q` of a number: the character of that number, `'\x04'`.
pub(super) fn quoted_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    quoted([c].into_iter(), '\'')
}

fn quoted(text: impl Iterator<Item = char>, mark: char) -> String {
    let mut out = String::from(mark);
    for c in text {
        match c {
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if !is_printable(c) && c <= '\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if !is_printable(c) => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(mark);
    out
}

/// Go's `unicode.IsPrint`: Rust's debug form escapes the same characters, where none begins a text.
fn is_printable(c: char) -> bool {
    let text: String = ['a', c].iter().collect();
    c == '\'' || text.escape_debug().count() == 2
}

/// Nanoseconds of Go's `time.ParseDuration`: `1h2m3.5s`, `300ms`, `-2us`, `0`.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
            return None;
        }
        let digits = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        total += digits(whole)? * unit;
        // Eighteen places are finer than a nanosecond of any unit.
        let fraction = &fraction[..fraction.len().min(18)];
        let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        total += digits(fraction)? * unit / scale;
        if total > i128::from(i64::MAX) {
            return None;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Go's `time.Duration.String`: `1m30s`, `1.5s`, `300ms`, `0s`.
pub(super) fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    let decimal = |unit: u64| {
        let fraction = format!("{:0width$}", n % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        (n / unit, format!("{point}{fraction}"))
    };
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => {
            let (whole, fraction) = decimal(1_000);
            format!("{whole}{fraction}µs")
        }
        1_000_000..1_000_000_000 => {
            let (whole, fraction) = decimal(1_000_000);
            format!("{whole}{fraction}ms")
        }
        _ => {
            let (seconds, fraction) = decimal(1_000_000_000);
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}{fraction}s"),
                (0, _) => format!("{minutes}m{seconds}{fraction}s"),
                _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// As strconv.ParseBool.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// As go-units' RAMInBytes: `512m`, `1.5GiB`; a unit is 1024 of the one before.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let letter = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        letter => 1 + ["k", "m", "g", "t", "p"].iter().position(|known| *known == letter)?,
    };
    let factor = 1024_u64.pow(u32::try_from(power).ok()?);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || part.contains('.') || part.len() > 12 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if part.is_empty() {
        return Some(whole);
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part = part.parse::<u128>().ok()? * u128::from(factor) / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, nanoseconds, written) in [
            ("0", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("+1m", 60_000_000_000, "1m0s"),
            ("1h2m3.5s", 3_723_500_000_000, "1h2m3.5s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("-2us", -2_000, "-2µs"),
            ("100ns", 100, "100ns"),
            ("1.5µs", 1_500, "1.5µs"),
            ("3ms", 3_000_000, "3ms"),
        ] {
            assert_eq!(parse_duration(text), Some(nanoseconds), "{text}");
            assert_eq!(duration(nanoseconds), written);
        }
    }

    #[test]
    fn what_go_refuses_is_no_duration() {
        for text in ["", "-", "5", "s", ".s", "1..5s", "5 s", "5d", "1s2", "99999999999h", "1h-2m"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn lists_are_quoted_as_go_does() {
        let words = ["a b", "\"\\", "\t\u{1}é"].map(str::to_owned);
        assert_eq!(quoted_list(&words), r#"["a b" "\"\\" "\t\x01é"]"#);
        let rare = ["\u{7f}\u{ad}\u{200b}\u{a0}\u{2028}", "'\u{301}☺\u{1f600}", "\u{e0001}\u{10ffff}"];
        assert_eq!(
            quoted_list(&rare.map(str::to_owned)),
            "[\"\\x7f\\u00ad\\u200b\\u00a0\\u2028\" \"'\u{301}☺\u{1f600}\" \"\\U000e0001\\U0010ffff\"]"
        );
    }

    #[test]
    fn truth_and_sizes_are_read_as_go_does() {
        assert_eq!((parse_bool("True"), parse_bool("0"), parse_bool("yes")), (Some(true), Some(false), None));
        for (text, bytes) in [("0", 0), ("32", 32), ("1k", 1024), ("1.5KiB", 1536), ("2 GB", 2 << 30)] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "1x", "1ib", "-1", "1.2.3m", "99999999999p"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
