//! Functions of times.

use std::collections::BTreeMap;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};

use super::{Entry, Result};
use crate::bake::value::Value;

pub(super) const TABLE: &[Entry] = &[
    Entry("formatdate", 2, 2, |a, _| {
        Ok(Value::String(format_date(&a[0].to_text()?, parse(&a[1].to_text()?)?)?))
    }),
    Entry("timeadd", 2, 2, |a, _| {
        let later = parse(&a[0].to_text()?)?.checked_add(duration(&a[1].to_text()?)?);
        rfc3339(later.ok_or("that is no year of this calendar")?)
    }),
    Entry("timestamp", 0, 0, |_, settings| {
        let now = settings.now.to_offset(UtcOffset::UTC);
        rfc3339(now.replace_nanosecond(0).map_err(|error| error.to_string())?)
    }),
    Entry("unixtimestampparse", 1, 1, |a, _| {
        let seconds = a[0].to_number()?.int().and_then(|int| i64::try_from(int).ok());
        let time = OffsetDateTime::from_unix_timestamp(seconds.ok_or("whole seconds are needed")?);
        let time = time.map_err(|error| error.to_string())?;
        let (iso_year, iso_week, _) = time.to_iso_week_date();
        Ok(Value::Map(BTreeMap::from([
            ("year".into(), Value::int(time.year())),
            ("year_day".into(), Value::int(time.ordinal())),
            ("day".into(), Value::int(time.day())),
            ("month".into(), Value::int(u8::from(time.month()))),
            ("month_name".into(), Value::text(time.month().to_string())),
            ("weekday".into(), Value::int(time.weekday().number_days_from_sunday())),
            ("weekday_name".into(), Value::text(time.weekday().to_string())),
            ("hour".into(), Value::int(time.hour())),
            ("minute".into(), Value::int(time.minute())),
            ("second".into(), Value::int(time.second())),
            ("rfc3339".into(), rfc3339(time)?),
            ("iso_year".into(), Value::int(iso_year)),
            ("iso_week".into(), Value::int(iso_week)),
        ])))
    }),
];

fn parse(text: &str) -> Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("`{text}` is not a time as 2006-01-02T15:04:05Z: {error}"))
}

fn rfc3339(time: OffsetDateTime) -> Result {
    time.format(&Rfc3339).map(Value::String).map_err(|error| error.to_string())
}

/// As Go writes them: `1h30m`, `-1.5h`.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || format!("`{text}` is not a duration, as 1h30m");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() || seconds == 0.0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().ok().ok_or_else(wrong)?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[unit_end..];
        seconds += number * unit;
        if rest.is_empty() {
            break;
        }
    }
    Duration::checked_seconds_f64(sign * seconds).ok_or_else(wrong)
}

/// Runs of a letter are fields, what stands in quotes and other signs stay.
fn format_date(format: &str, time: OffsetDateTime) -> Result<String> {
    let mut out = String::new();
    let letters: Vec<char> = format.chars().collect();
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        if letter == '\'' {
            at += 1;
            loop {
                match (letters.get(at), letters.get(at + 1)) {
                    (None, _) => return Err("a quote does not end".into()),
                    (Some('\''), Some('\'')) => {
                        out.push('\'');
                        at += 2;
                    }
                    (Some('\''), _) => break,
                    (Some(other), _) => {
                        out.push(*other);
                        at += 1;
                    }
                }
            }
            at += 1;
            continue;
        }
        if !letter.is_ascii_alphabetic() {
            out.push(letter);
            at += 1;
            continue;
        }
        let length = letters[at..].iter().take_while(|other| **other == letter).count();
        out.push_str(&field(letter, length, time)?);
        at += length;
    }
    Ok(out)
}

fn field(letter: char, length: usize, time: OffsetDateTime) -> Result<String> {
    let short = |name: String| name.chars().take(3).collect();
    let twelve = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let half = if time.hour() < 12 { "AM" } else { "PM" };
    let month = u8::from(time.month());
    Ok(match (letter, length) {
        ('Y', 4) => format!("{:04}", time.year()),
        ('Y', 2) => format!("{:02}", time.year().rem_euclid(100)),
        ('M', 4) => time.month().to_string(),
        ('M', 3) => short(time.month().to_string()),
        ('M', 2) => format!("{month:02}"),
        ('M', 1) => month.to_string(),
        ('D', 2) => format!("{:02}", time.day()),
        ('D', 1) => time.day().to_string(),
        ('E', 4) => time.weekday().to_string(),
        ('E', 3) => short(time.weekday().to_string()),
        ('h', 2) => format!("{:02}", time.hour()),
        ('h', 1) => time.hour().to_string(),
        ('H', 2) => format!("{twelve:02}"),
        ('H', 1) => twelve.to_string(),
        ('A', 2) => half.to_owned(),
        ('a', 2) => half.to_lowercase(),
        ('m', 2) => format!("{:02}", time.minute()),
        ('m', 1) => time.minute().to_string(),
        ('s', 2) => format!("{:02}", time.second()),
        ('s', 1) => time.second().to_string(),
        ('Z', 1) if time.offset().is_utc() => "Z".to_owned(),
        ('Z', 3) if time.offset().is_utc() => "UTC".to_owned(),
        ('Z', 1 | 5) => zone(time, ":"),
        ('Z', 3 | 4) => zone(time, ""),
        _ => return Err(format!("`{}` is not a field of a date", letter.to_string().repeat(length))),
    })
}

fn zone(time: OffsetDateTime, between: &str) -> String {
    let (hours, minutes, _) = time.offset().as_hms();
    let sign = if time.offset().is_negative() { '-' } else { '+' };
    format!("{sign}{:02}{between}{:02}", hours.unsigned_abs(), minutes.unsigned_abs())
}
