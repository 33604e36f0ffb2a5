//! What an expression gives: values, and the conversions between them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// Lists, sets and tuples are one: a list; a set is sorted and has each value once. Maps and objects are one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

/// Whole numbers exactly, as far as 128 bits reach; others as binary fractions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn of(float: f64) -> Number {
        // Above, a float is no longer every whole number.
        #[expect(clippy::cast_possible_truncation, reason = "whole and small, as just checked")]
        match float.fract() == 0.0 && float.abs() < 9e15 {
            true => Number::Int(float as i128),
            false => Number::Float(float),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Number> {
        if let Ok(int) = text.parse() {
            return Some(Number::Int(int));
        }
        let number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let float = text.parse::<f64>().ok().filter(|float| number && float.is_finite())?;
        Some(Number::of(float))
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }

    pub(super) fn int(self) -> Option<i128> {
        match self {
            Number::Int(int) => Some(int),
            Number::Float(_) => None,
        }
    }

    /// Exactly where both are whole and the result fits, else in floats.
    pub(super) fn with(
        self,
        other: Number,
        exact: fn(i128, i128) -> Option<i128>,
        float: fn(f64, f64) -> f64,
    ) -> Number {
        let whole = self.int().zip(other.int()).and_then(|(a, b)| exact(a, b));
        whole.map_or_else(|| Number::of(float(self.float(), other.float())), Number::Int)
    }

    pub(super) fn divide(self, other: Number) -> Result<Number, String> {
        if other.float() == 0.0 {
            return Err("division by zero".into());
        }
        let exact = |a: i128, b: i128| a.checked_rem(b).filter(|rest| *rest == 0).map(|_| a / b);
        Ok(self.with(other, exact, |a, b| a / b))
    }

    pub(super) fn modulo(self, other: Number) -> Result<Number, String> {
        match other.float() == 0.0 {
            true => Err("division by zero".into()),
            false => Ok(self.with(other, i128::checked_rem, |a, b| a % b)),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(int) => int.fmt(f),
            Number::Float(float) => float.fmt(f),
        }
    }
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Value {
        Value::String(text.into())
    }

    pub(super) fn int(int: impl TryInto<i128>) -> Value {
        Value::Number(Number::Int(int.try_into().unwrap_or(i128::MAX)))
    }

    /// With its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a bool",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    pub(super) fn to_text(&self) -> Result<String, String> {
        match self {
            Value::String(text) => Ok(text.clone()),
            Value::Bool(truth) => Ok(truth.to_string()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(format!("a string is needed, not {}", other.kind())),
        }
    }

    pub(super) fn to_number(&self) -> Result<Number, String> {
        match self {
            Value::Number(number) => Ok(*number),
            Value::String(text) => {
                Number::parse(text).ok_or_else(|| format!("a number is needed, not `{text}`"))
            }
            other => Err(format!("a number is needed, not {}", other.kind())),
        }
    }

    pub(super) fn to_bool(&self) -> Result<bool, String> {
        match self {
            Value::Bool(truth) => Ok(*truth),
            Value::String(text) => match text.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("true or false is needed, not `{text}`")),
            },
            other => Err(format!("a bool is needed, not {}", other.kind())),
        }
    }

    pub(super) fn to_list(&self) -> Result<Vec<Value>, String> {
        match self {
            Value::List(values) => Ok(values.clone()),
            other => Err(format!("a list is needed, not {}", other.kind())),
        }
    }

    pub(super) fn to_map(&self) -> Result<BTreeMap<String, Value>, String> {
        match self {
            Value::Map(map) => Ok(map.clone()),
            other => Err(format!("a map is needed, not {}", other.kind())),
        }
    }

    /// Whole and not negative.
    pub(super) fn to_size(&self) -> Result<usize, String> {
        let number = self.to_number()?;
        let size = number.int().and_then(|int| usize::try_from(int).ok());
        size.ok_or_else(|| format!("a whole number that is not negative is needed, not {number}"))
    }

    /// What `value[key]` is.
    pub(super) fn index(&self, key: &Value) -> Result<Value, String> {
        match self {
            Value::List(values) => {
                let at = key.to_size()?;
                let value = values.get(at).cloned();
                value.ok_or_else(|| format!("no element {at} in a list of {}", values.len()))
            }
            Value::Map(map) => {
                let key = key.to_text()?;
                map.get(&key).cloned().ok_or_else(|| format!("no `{key}` in this map"))
            }
            other => Err(format!("{} has no elements", other.kind())),
        }
    }

    pub(super) fn from_json(json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(truth) => Value::Bool(truth),
            serde_json::Value::Number(number) => Value::Number(
                Number::parse(&number.to_string()).unwrap_or(Number::Float(number.as_f64().unwrap_or(0.0))),
            ),
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(values) => {
                Value::List(values.into_iter().map(Value::from_json).collect())
            }
            serde_json::Value::Object(map) => {
                Value::Map(map.into_iter().map(|(key, value)| (key, Value::from_json(value))).collect())
            }
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Number(Number::Int(int)) => match (i64::try_from(*int), u64::try_from(*int)) {
                (Ok(int), _) => int.into(),
                (_, Ok(int)) => int.into(),
                _ => Number::Int(*int).float().into(),
            },
            Value::Number(Number::Float(float)) => (*float).into(),
            Value::String(text) => text.as_str().into(),
            Value::List(values) => values.iter().map(Value::to_json).collect(),
            Value::Map(map) => map.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
        }
    }

    /// The order of a set's elements.
    pub(super) fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (a, b) => a.to_json().to_string().cmp(&b.to_json().to_string()),
        }
    }
}

/// A set of these.
pub(super) fn set(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by(Value::order);
    values.dedup();
    values
}

/// What `type = ` and `convert` name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Any,
    Bool,
    Number,
    String,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    /// With whether the attribute may be left out.
    Object(BTreeMap<String, (Type, bool)>),
}

impl Type {
    /// `Any` for what tells nothing: null.
    pub(super) fn of(value: &Value) -> Type {
        match value {
            Value::Null => Type::Any,
            Value::Bool(_) => Type::Bool,
            Value::Number(_) => Type::Number,
            Value::String(_) => Type::String,
            Value::List(values) => Type::Tuple(values.iter().map(Type::of).collect()),
            Value::Map(map) => {
                Type::Object(map.iter().map(|(key, value)| (key.clone(), (Type::of(value), false))).collect())
            }
        }
    }

    pub(super) fn convert(&self, value: Value) -> Result<Value, String> {
        let all = |of: &Type, values: Vec<Value>| -> Result<Vec<Value>, String> {
            values.into_iter().map(|value| of.convert(value)).collect()
        };
        Ok(match (self, value) {
            (Type::Any, value) | (_, value @ Value::Null) => value,
            (Type::Bool, value) => Value::Bool(value.to_bool()?),
            (Type::Number, value) => Value::Number(value.to_number()?),
            (Type::String, value) => Value::String(value.to_text()?),
            (Type::List(of), value) => Value::List(all(of, value.to_list()?)?),
            (Type::Set(of), value) => Value::List(set(all(of, value.to_list()?)?)),
            (Type::Map(of), value) => {
                let convert = |(key, value)| Ok((key, of.convert(value)?));
                Value::Map(value.to_map()?.into_iter().map(convert).collect::<Result<_, String>>()?)
            }
            (Type::Tuple(of), value) => {
                let values = value.to_list()?;
                if values.len() != of.len() {
                    return Err(format!("a tuple of {} is needed, not of {}", of.len(), values.len()));
                }
                let pairs = of.iter().zip(values);
                Value::List(pairs.map(|(of, value)| of.convert(value)).collect::<Result<_, String>>()?)
            }
            (Type::Object(of), value) => {
                let mut given = value.to_map()?;
                let mut object = BTreeMap::new();
                for (name, (of, optional)) in of {
                    let value = match given.remove(name) {
                        Some(value) => of.convert(value)?,
                        None if *optional => Value::Null,
                        None => return Err(format!("`{name}` is missing")),
                    };
                    object.insert(name.clone(), value);
                }
                Value::Map(object)
            }
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Any => f.write_str("any"),
            Type::Bool => f.write_str("bool"),
            Type::Number => f.write_str("number"),
            Type::String => f.write_str("string"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Set(of) => write!(f, "set({of})"),
            Type::Map(of) => write!(f, "map({of})"),
            Type::Tuple(of) => {
                let of: Vec<String> = of.iter().map(Type::to_string).collect();
                write!(f, "tuple([{}])", of.join(", "))
            }
            Type::Object(of) => {
                let of: Vec<String> = of.iter().map(|(name, (of, _))| format!("{name}={of}")).collect();
                write!(f, "object({{{}}})", of.join(", "))
            }
        }
    }
}
