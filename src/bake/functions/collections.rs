//! Functions of lists, sets and maps.

use std::collections::BTreeMap;

use super::{Entry, MANY, Result};
use crate::bake::value::{Number, Value, set};

/// A list nobody meant.
const LONGEST: usize = 1 << 20;

pub(super) const TABLE: &[Entry] = &[
    Entry("chunklist", 2, 2, |a, _| {
        let list = a[0].to_list()?;
        Ok(Value::List(match a[1].to_size()? {
            0 => vec![Value::List(list)],
            size => list.chunks(size).map(|chunk| Value::List(chunk.to_vec())).collect(),
        }))
    }),
    Entry("coalesce", 1, MANY, |a, _| {
        a.iter().find(|value| **value != Value::Null).cloned().ok_or("all of them are null".into())
    }),
    Entry("coalescelist", 1, MANY, |a, _| {
        let full = |value: &&Value| matches!(value, Value::List(values) if !values.is_empty());
        a.iter().find(full).cloned().ok_or("all of the lists are empty".into())
    }),
    Entry("compact", 1, 1, |a, _| {
        let mut list = a[0].to_list()?;
        list.retain(|value| !matches!(value, Value::Null) && *value != Value::text(""));
        Ok(Value::List(list))
    }),
    Entry("concat", 1, MANY, |a, _| {
        let mut all = Vec::new();
        for list in a {
            all.extend(list.to_list()?);
        }
        Ok(Value::List(all))
    }),
    Entry("contains", 2, 2, |a, _| Ok(Value::Bool(a[0].to_list()?.contains(&a[1])))),
    Entry("distinct", 1, 1, |a, _| {
        let mut kept: Vec<Value> = Vec::new();
        for value in a[0].to_list()? {
            if !kept.contains(&value) {
                kept.push(value);
            }
        }
        Ok(Value::List(kept))
    }),
    Entry("element", 2, 2, |a, _| {
        let list = a[0].to_list()?;
        let length = i128::try_from(list.len()).unwrap_or(i128::MAX);
        if length == 0 {
            return Err("the list is empty".into());
        }
        let at = a[1].to_number()?.int().ok_or("a whole number is needed")?;
        // Past the end it begins again.
        let at = usize::try_from(at.rem_euclid(length)).unwrap_or_default();
        Ok(list[at].clone())
    }),
    Entry("flatten", 1, 1, |a, _| {
        fn flatten(list: Vec<Value>, into: &mut Vec<Value>) {
            for value in list {
                match value {
                    Value::List(inner) => flatten(inner, into),
                    value => into.push(value),
                }
            }
        }
        let mut flat = Vec::new();
        flatten(a[0].to_list()?, &mut flat);
        Ok(Value::List(flat))
    }),
    Entry("hasindex", 2, 2, |a, _| Ok(Value::Bool(a[0].index(&a[1]).is_ok()))),
    Entry("index", 2, 2, |a, _| a[0].index(&a[1])),
    Entry("indexof", 2, 2, |a, _| {
        let at = a[0].to_list()?.iter().position(|value| *value == a[1]);
        at.map(Value::int).ok_or("it is not in the list".into())
    }),
    Entry("keys", 1, 1, |a, _| Ok(Value::List(a[0].to_map()?.into_keys().map(Value::String).collect()))),
    Entry("length", 1, 1, |a, _| match &a[0] {
        Value::List(values) => Ok(Value::int(values.len())),
        Value::Map(map) => Ok(Value::int(map.len())),
        other => Err(format!("a list or a map is needed, not {}; a string has `strlen`", other.kind())),
    }),
    Entry("lookup", 2, 3, |a, _| {
        let key = a[1].to_text()?;
        let found = a[0].to_map()?.remove(&key).or_else(|| a.get(2).cloned());
        found.ok_or_else(|| format!("no `{key}` in this map"))
    }),
    Entry("merge", 0, MANY, |a, _| {
        let mut all = BTreeMap::new();
        for map in a.iter().filter(|map| **map != Value::Null) {
            all.extend(map.to_map()?);
        }
        Ok(Value::Map(all))
    }),
    Entry("range", 1, 3, |a, _| range(a)),
    Entry("reverselist", 1, 1, |a, _| Ok(Value::List(a[0].to_list()?.into_iter().rev().collect()))),
    Entry("sethaselement", 2, 2, |a, _| Ok(Value::Bool(a[0].to_list()?.contains(&a[1])))),
    Entry("setintersection", 1, MANY, |a, _| {
        let others = a[1..].iter().map(Value::to_list).collect::<Result<Vec<_>>>()?;
        let mut all = a[0].to_list()?;
        all.retain(|value| others.iter().all(|other| other.contains(value)));
        Ok(Value::List(set(all)))
    }),
    Entry("setproduct", 1, MANY, |a, _| {
        let mut all: Vec<Vec<Value>> = vec![Vec::new()];
        for list in a {
            let list = list.to_list()?;
            if all.len().saturating_mul(list.len()) > LONGEST {
                return Err("it would have more than a million elements".into());
            }
            let longer = |start: &Vec<Value>| {
                let with = |value: &Value| [start.as_slice(), std::slice::from_ref(value)].concat();
                list.iter().map(with).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        Ok(Value::List(all.into_iter().map(Value::List).collect()))
    }),
    Entry("setsubtract", 2, 2, |a, _| {
        let without = a[1].to_list()?;
        let mut all = a[0].to_list()?;
        all.retain(|value| !without.contains(value));
        Ok(Value::List(set(all)))
    }),
    Entry("setsymmetricdifference", 2, MANY, |a, _| {
        let mut all = a[0].to_list()?;
        for other in &a[1..] {
            let other = other.to_list()?;
            let (mut left, mut right) = (all.clone(), other.clone());
            left.retain(|value| !other.contains(value));
            right.retain(|value| !all.contains(value));
            left.extend(right);
            all = left;
        }
        Ok(Value::List(set(all)))
    }),
    Entry("setunion", 1, MANY, |a, _| {
        let mut all = Vec::new();
        for list in a {
            all.extend(list.to_list()?);
        }
        Ok(Value::List(set(all)))
    }),
    Entry("slice", 3, 3, |a, _| {
        let list = a[0].to_list()?;
        let part = list.get(a[1].to_size()?..a[2].to_size()?);
        let part = part.ok_or_else(|| format!("the list has {} elements", list.len()))?;
        Ok(Value::List(part.to_vec()))
    }),
    Entry("sort", 1, 1, |a, _| {
        let mut texts = a[0].to_list()?.iter().map(Value::to_text).collect::<Result<Vec<_>>>()?;
        texts.sort();
        Ok(Value::List(texts.into_iter().map(Value::String).collect()))
    }),
    Entry("values", 1, 1, |a, _| Ok(Value::List(a[0].to_map()?.into_values().collect()))),
    Entry("zipmap", 2, 2, |a, _| {
        let (keys, values) = (a[0].to_list()?, a[1].to_list()?);
        if keys.len() != values.len() {
            return Err(format!("{} keys and {} values", keys.len(), values.len()));
        }
        let keys = keys.iter().map(Value::to_text).collect::<Result<Vec<_>>>()?;
        Ok(Value::Map(keys.into_iter().zip(values).collect()))
    }),
];

/// Up to an end, from a start, by a step.
fn range(a: &[Value]) -> Result {
    let zero = Number::Int(0);
    let numbers = a.iter().map(Value::to_number).collect::<Result<Vec<_>>>()?;
    let (start, end) = if numbers.len() == 1 { (zero, numbers[0]) } else { (numbers[0], numbers[1]) };
    let down = end < start;
    let step = numbers.get(2).copied().unwrap_or(Number::Int(if down { -1 } else { 1 }));
    if start == end {
        return Ok(Value::List(Vec::new()));
    }
    if step == zero || (step < zero) != down {
        return Err("the step leads away from the end".into());
    }
    let mut list = Vec::new();
    let mut at = start;
    while (at < end) != down && at != end {
        if list.len() > LONGEST {
            return Err("it would have more than a million elements".into());
        }
        list.push(Value::Number(at));
        at = at.with(step, i128::checked_add, |a, b| a + b);
    }
    Ok(Value::List(list))
}
