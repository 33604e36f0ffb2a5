//! What a template can call: Go's own functions, and those Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf;
use super::value::{Datum, equal, kind, order, show};

pub(super) const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "html", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or",
    "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

/// All but `and` and `or`, which do not look at every argument.
pub(super) fn call<'v>(name: &str, arguments: &[Datum<'v>]) -> Result<Datum<'v>, String> {
    let count = arguments.len();
    let wants = |least: usize, most: usize| match count {
        _ if (least..=most).contains(&count) => Ok(()),
        _ if least == most => Err(format!("`{name}` takes {least} argument{}, not {count}", plural(least))),
        _ => Err(format!("`{name}` takes at least {least} argument{}", plural(least))),
    };
    let value = |n: usize| arguments[n].value();
    Ok(match name {
        "not" => {
            wants(1, 1)?;
            Datum::new(!arguments[0].is_true())
        }
        "eq" => {
            wants(2, usize::MAX)?;
            let mut found = false;
            for n in 1..count {
                found |= equal(value(0), value(n)).ok_or_else(|| incomparable(name, value(0), value(n)))?;
            }
            Datum::new(found)
        }
        "ne" => {
            wants(2, 2)?;
            Datum::new(!equal(value(0), value(1)).ok_or_else(|| incomparable(name, value(0), value(1)))?)
        }
        "lt" | "le" | "gt" | "ge" => {
            wants(2, 2)?;
            let order = order(value(0), value(1)).ok_or_else(|| incomparable(name, value(0), value(1)))?;
            Datum::new(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
        "len" => {
            wants(1, 1)?;
            Datum::new(match value(0) {
                Value::String(text) => text.len(),
                Value::Array(items) => items.len(),
                Value::Object(map) => map.len(),
                Value::Null => 0,
                other => return Err(format!("a {} has no length", kind(other))),
            })
        }
        "index" => {
            wants(1, usize::MAX)?;
            let mut found = arguments[0].clone();
            for key in &arguments[1..] {
                found = index(&found, key.value())?;
            }
            found
        }
        "slice" => {
            wants(1, 3)?;
            slice(value(0), &arguments[1..])?
        }
        "print" => Datum::new(printf::print(arguments)),
        "println" => Datum::new(printf::println(arguments)),
        "printf" => {
            wants(1, usize::MAX)?;
            Datum::new(printf::printf(text(name, value(0))?, &arguments[1..]))
        }
        "html" => Datum::new(escape_html(&printf::print(arguments))),
        "urlquery" => Datum::new(escape_query(&printf::print(arguments))),
        "json" => {
            wants(1, 1)?;
            Datum::new(value(0).to_string())
        }
        "lower" | "upper" | "title" => {
            wants(1, 1)?;
            let text = text(name, value(0))?;
            Datum::new(match name {
                "lower" => text.to_lowercase(),
                "upper" => text.to_uppercase(),
                _ => title(text),
            })
        }
        "split" => {
            wants(2, 2)?;
            let (whole, separator) = (text(name, value(0))?, text(name, value(1))?);
            Datum::new(if separator.is_empty() {
                Value::from_iter(whole.chars().map(String::from))
            } else {
                Value::from_iter(whole.split(separator))
            })
        }
        "join" => {
            wants(2, 2)?;
            let separator = text(name, value(1))?;
            match value(0) {
                Value::Array(items) => Datum::new(items.iter().map(show).collect::<Vec<_>>().join(separator)),
                Value::Null => Datum::new(""),
                other => return Err(format!("`join` takes a list, not a {}", kind(other))),
            }
        }
        "pad" => {
            wants(3, 3)?;
            let text = text(name, value(0))?;
            match text {
                "" => Datum::new(""),
                _ => Datum::new(
                    [" ".repeat(size(name, value(1))?).as_str(), text, &" ".repeat(size(name, value(2))?)]
                        .concat(),
                ),
            }
        }
        "truncate" => {
            wants(2, 2)?;
            let length = size(name, value(1))?;
            Datum::new(text(name, value(0))?.chars().take(length).collect::<String>())
        }
        _ => return Err(format!("there is no function `{name}`")),
    })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn incomparable(name: &str, a: &Value, b: &Value) -> String {
    format!("`{name}` cannot compare a {} with a {}", kind(a), kind(b))
}

fn text<'t>(name: &str, value: &'t Value) -> Result<&'t str, String> {
    value.as_str().ok_or_else(|| format!("`{name}` takes a string here, not a {}", kind(value)))
}

fn size(name: &str, value: &Value) -> Result<usize, String> {
    let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= 10_000);
    size.ok_or_else(|| format!("`{name}` takes a length here, not `{}`", show(value)))
}

/// What a map lacks is empty text: what most of Docker's maps (labels, options) give.
fn index<'v>(of: &Datum<'v>, key: &Value) -> Result<Datum<'v>, String> {
    let found = match of.value() {
        Value::Object(map) => {
            let key =
                key.as_str().ok_or_else(|| format!("a map is indexed with a string, not a {}", kind(key)))?;
            map.get(key).cloned().unwrap_or_else(|| Value::from(""))
        }
        Value::Array(items) => {
            let place = key.as_u64().and_then(|place| usize::try_from(place).ok());
            let found = place.and_then(|place| items.get(place));
            found
                .cloned()
                .ok_or_else(|| format!("there is no item {} in a list of {}", show(key), items.len()))?
        }
        Value::String(text) => {
            let place = key.as_u64().and_then(|place| usize::try_from(place).ok());
            let byte = place.and_then(|place| text.as_bytes().get(place));
            byte.map(|byte| Value::from(*byte))
                .ok_or_else(|| format!("there is no byte {} in a text of {}", show(key), text.len()))?
        }
        Value::Null if key.is_string() => Value::from(""),
        other => return Err(format!("a {} has no index", kind(other))),
    };
    Ok(Datum::new(found))
}

fn slice<'v>(of: &Value, bounds: &[Datum<'v>]) -> Result<Datum<'v>, String> {
    let length = match of {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("a {} cannot be sliced", kind(other))),
    };
    let bound =
        |n: usize, otherwise| bounds.get(n).map_or(Ok(otherwise), |bound| size("slice", bound.value()));
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let outside = || format!("there is no slice {from}:{to} of a length of {length}");
    match of {
        Value::String(text) => text.get(from..to).map(Datum::new).ok_or_else(outside),
        Value::Array(items) => {
            items.get(from..to).map(|items| Datum::new(items.to_vec())).ok_or_else(outside)
        }
        _ => Err(outside()),
    }
}

/// The first letter of each word, a word being what stands behind no letter, digit, `_` or `'`.
pub(super) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        if inside {
            titled.push(letter);
        } else {
            titled.extend(letter.to_uppercase());
        }
        inside = letter.is_alphanumeric() || letter == '_' || letter == '\'';
    }
    titled
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn escape_query(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
