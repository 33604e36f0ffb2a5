//! Values as Go sees and prints them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

/// What an operand or a pipeline is worth.
#[derive(Clone, Debug)]
pub(super) enum Datum<'v> {
    Of(Cow<'v, Value>),
    /// A key that a map does not have.
    Missing,
}

impl<'v> Datum<'v> {
    pub(super) fn of(value: &'v Value) -> Self {
        Datum::Of(Cow::Borrowed(value))
    }
    pub(super) fn new(value: impl Into<Value>) -> Self {
        Datum::Of(Cow::Owned(value.into()))
    }
    pub(super) fn value(&self) -> &Value {
        match self {
            Datum::Of(value) => value,
            Datum::Missing => &Value::Null,
        }
    }

    /// False: `false`, 0, nothing, and whatever is empty.
    pub(super) fn is_true(&self) -> bool {
        match self.value() {
            Value::Null => false,
            Value::Bool(truth) => *truth,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
        }
    }

    /// What stands in an array or an object; the keys of a map in order, as Go ranges over them.
    pub(super) fn entries(&self) -> Option<Vec<(Datum<'v>, Datum<'v>)>> {
        // Owned values are rare (the result of `split`) and small.
        let pairs = |value: &Value| -> Option<Vec<(Value, Value)>> {
            match value {
                Value::Array(items) => {
                    Some(items.iter().enumerate().map(|(n, item)| (Value::from(n), item.clone())).collect())
                }
                Value::Object(map) => {
                    let mut pairs: Vec<_> =
                        map.iter().map(|(key, value)| (Value::from(key.as_str()), value.clone())).collect();
                    pairs.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
                    Some(pairs)
                }
                Value::Number(count) => {
                    let count = count.as_u64()?;
                    Some((0..count).map(|n| (Value::from(n), Value::from(n))).collect())
                }
                Value::Null => Some(Vec::new()),
                Value::Bool(_) | Value::String(_) => None,
            }
        };
        let pairs = pairs(self.value())?;
        Some(pairs.into_iter().map(|(key, value)| (Datum::new(key), Datum::new(value))).collect())
    }
}

/// As `%v` prints it inside of something; a string is bare.
pub(super) fn show(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    text
}

fn write(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => text.push_str(&float_text(float)),
            _ => {
                let _infallible = write!(text, "{number}");
            }
        },
        Value::String(string) => text.push_str(string),
        Value::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    text.push(' ');
                }
                write(text, item);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push_str("map[");
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            for (n, (key, value)) in keys.into_iter().enumerate() {
                if n > 0 {
                    text.push(' ');
                }
                text.push_str(key);
                text.push(':');
                write(text, value);
            }
            text.push(']');
        }
    }
}

/// Go's `%v` of a float64: the shortest digits; an exponent below 1e-4 and from 1e21 on.
pub(super) fn float_text(float: f64) -> String {
    if float == 0.0 || (1e-4..1e21).contains(&float.abs()) || !float.is_finite() {
        return match float {
            _ if float.is_nan() => "NaN".into(),
            f64::INFINITY => "+Inf".into(),
            f64::NEG_INFINITY => "-Inf".into(),
            _ => format!("{float}"),
        };
    }
    exponent_text(&format!("{float:e}"))
}

/// `1.5e-7` as Go writes it: a sign and two digits at least.
pub(super) fn exponent_text(rust: &str) -> String {
    let (digits, exponent) = rust.split_once('e').unwrap_or((rust, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Go's word for the type, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// `None` where the two cannot be compared.
pub(super) fn equal(a: &Value, b: &Value) -> Option<bool> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Some(a.is_null() && b.is_null()),
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {
            Some(order(a, b)? == Ordering::Equal)
        }
        (Value::Bool(a), Value::Bool(b)) => Some(a == b),
        _ => None,
    }
}

pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
