//! Functions of text.

use regex::{Captures, Regex};

use super::{Entry, MANY, Result, printf};
use crate::bake::value::Value;

pub(super) const TABLE: &[Entry] = &[
    Entry("basename", 1, 1, |a, _| Ok(Value::String(basename(&a[0].to_text()?)))),
    Entry("chomp", 1, 1, |a, _| Ok(Value::text(a[0].to_text()?.trim_end_matches(['\r', '\n'])))),
    Entry("dirname", 1, 1, |a, _| Ok(Value::String(dirname(&a[0].to_text()?)))),
    Entry("format", 1, MANY, |a, _| Ok(Value::String(printf::format(&a[0].to_text()?, &a[1..])?))),
    Entry("formatlist", 1, MANY, |a, _| format_list(a)),
    Entry("homedir", 0, 0, |_, settings| Ok(Value::text(&settings.home))),
    Entry("indent", 2, 2, |a, _| {
        let spaces = " ".repeat(a[0].to_size()?.min(1 << 16));
        Ok(Value::String(a[1].to_text()?.replace('\n', &format!("\n{spaces}"))))
    }),
    Entry("join", 1, MANY, |a, _| {
        let mut parts = Vec::new();
        for list in &a[1..] {
            for part in list.to_list()? {
                parts.push(part.to_text()?);
            }
        }
        Ok(Value::String(parts.join(&a[0].to_text()?)))
    }),
    Entry("lower", 1, 1, |a, _| Ok(Value::String(a[0].to_text()?.to_lowercase()))),
    Entry("regex", 2, 2, |a, _| {
        let regex = regex(&a[0])?;
        let text = a[1].to_text()?;
        let found = regex.captures(&text).ok_or("the pattern matches nothing in it")?;
        Ok(captured(&regex, &found))
    }),
    Entry("regex_replace", 3, 3, |a, _| {
        let text = a[0].to_text()?;
        let by = a[2].to_text()?;
        Ok(Value::text(regex(&a[1])?.replace_all(&text, by.as_str())))
    }),
    Entry("regexall", 2, 2, |a, _| {
        let regex = regex(&a[0])?;
        let text = a[1].to_text()?;
        Ok(Value::List(regex.captures_iter(&text).map(|found| captured(&regex, &found)).collect()))
    }),
    Entry("replace", 3, 3, |a, _| {
        Ok(Value::String(a[0].to_text()?.replace(&a[1].to_text()?, &a[2].to_text()?)))
    }),
    Entry("reverse", 1, 1, |a, _| Ok(Value::String(a[0].to_text()?.chars().rev().collect()))),
    Entry("sanitize", 1, 1, |a, _| {
        let kept = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        Ok(Value::String(a[0].to_text()?.chars().map(kept).collect()))
    }),
    Entry("split", 2, 2, |a, _| {
        let (by, text) = (a[0].to_text()?, a[1].to_text()?);
        Ok(Value::List(match by.is_empty() {
            true => text.chars().map(Value::text).collect(),
            false => text.split(&by).map(Value::text).collect(),
        }))
    }),
    Entry("strlen", 1, 1, |a, _| Ok(Value::int(a[0].to_text()?.chars().count()))),
    Entry("substr", 3, 3, |a, _| substr(&a[0].to_text()?, &a[1], &a[2])),
    Entry("title", 1, 1, |a, _| Ok(Value::String(title(&a[0].to_text()?)))),
    Entry("trim", 2, 2, |a, _| {
        let cut: Vec<char> = a[1].to_text()?.chars().collect();
        Ok(Value::text(a[0].to_text()?.trim_matches(cut.as_slice())))
    }),
    Entry("trimprefix", 2, 2, |a, _| {
        let text = a[0].to_text()?;
        Ok(Value::text(text.strip_prefix(a[1].to_text()?.as_str()).unwrap_or(&text)))
    }),
    Entry("trimspace", 1, 1, |a, _| Ok(Value::text(a[0].to_text()?.trim()))),
    Entry("trimsuffix", 2, 2, |a, _| {
        let text = a[0].to_text()?;
        Ok(Value::text(text.strip_suffix(a[1].to_text()?.as_str()).unwrap_or(&text)))
    }),
    Entry("upper", 1, 1, |a, _| Ok(Value::String(a[0].to_text()?.to_uppercase()))),
];

/// Each list's elements in turn, single values every time.
fn format_list(a: &[Value]) -> Result {
    let format = a[0].to_text()?;
    let lengths: Vec<usize> = a[1..]
        .iter()
        .filter_map(|value| if let Value::List(values) = value { Some(values.len()) } else { None })
        .collect();
    let length = lengths.first().copied().unwrap_or(1);
    if lengths.iter().any(|other| *other != length) {
        return Err("the lists differ in length".into());
    }
    let mut out = Vec::new();
    for at in 0..length {
        let element = |value: &Value| match value {
            Value::List(values) => values[at].clone(),
            single => single.clone(),
        };
        let args: Vec<Value> = a[1..].iter().map(element).collect();
        out.push(Value::String(printf::format(&format, &args)?));
    }
    Ok(Value::List(out))
}

fn regex(pattern: &Value) -> Result<Regex> {
    let pattern = pattern.to_text()?;
    Regex::new(&pattern).map_err(|error| format!("`{pattern}` is not a regular expression: {error}"))
}

/// The match; with groups a list of them, with names a map.
fn captured(regex: &Regex, found: &Captures<'_>) -> Value {
    let value = |at: usize| found.get(at).map_or(Value::Null, |part| Value::text(part.as_str()));
    if regex.captures_len() == 1 {
        return value(0);
    }
    let names = regex.capture_names().enumerate().skip(1);
    match regex.capture_names().any(|name| name.is_some()) {
        true => Value::Map(names.filter_map(|(at, name)| Some((name?.to_owned(), value(at)))).collect()),
        false => Value::List(names.map(|(at, _)| value(at)).collect()),
    }
}

/// A negative offset counts from the end; a length of -1 is all.
fn substr(text: &str, offset: &Value, length: &Value) -> Result {
    let whole = |value: &Value| value.to_number()?.int().ok_or("a whole number is needed".to_owned());
    let chars: Vec<char> = text.chars().collect();
    let offset = whole(offset)?;
    let start = match usize::try_from(offset) {
        Ok(start) => start.min(chars.len()),
        Err(_negative) => {
            chars.len().saturating_sub(usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX))
        }
    };
    let length = usize::try_from(whole(length)?).unwrap_or(usize::MAX);
    let end = start.saturating_add(length).min(chars.len());
    Ok(Value::String(chars[start..end].iter().collect()))
}

fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::new();
    for c in text.chars() {
        match before.is_alphanumeric() || before == '_' || before == '\'' {
            true => out.push(c),
            false => out.extend(c.to_uppercase()),
        }
        before = c;
    }
    out
}

/// As Go's `path.Base`.
fn basename(path: &str) -> String {
    if path.is_empty() {
        return ".".into();
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => "/".into(),
        Some(name) => name.into(),
    }
}

/// As Go's `path.Dir`.
fn dirname(path: &str) -> String {
    let dir = path.rfind('/').map_or("", |at| &path[..=at]);
    clean(dir)
}

/// As Go's `path.Clean`.
pub(in crate::bake) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}
