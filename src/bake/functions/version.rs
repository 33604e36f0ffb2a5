//! `semvercmp`: whether a version is within a constraint.

use std::cmp::Ordering;

use super::{Entry, Result};
use crate::bake::value::Value;

pub(super) const TABLE: &[Entry] = &[Entry("semvercmp", 2, 2, |a, _| {
    let version = Version::parse(&a[0].to_text()?)?;
    let constraint = a[1].to_text()?;
    for alternative in constraint.split("||") {
        let mut all = true;
        let mut operator = String::new();
        for part in alternative.split([',', ' ']).filter(|part| !part.is_empty()) {
            operator.push_str(part);
            // A space may stand between the two.
            if !part.ends_with(['=', '<', '>', '!', '~', '^']) {
                all &= holds(&version, &std::mem::take(&mut operator))?;
            }
        }
        if all {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
})];

/// Parts that are not given, or `x` or `*`, are `None`.
#[derive(Debug)]
struct Version {
    parts: [Option<u64>; 3],
    pre: Option<String>,
}

impl Version {
    fn parse(text: &str) -> Result<Version> {
        let wrong = || format!("`{text}` is not a version");
        let bare = text.strip_prefix('v').unwrap_or(text);
        let bare = bare.split('+').next().unwrap_or_default();
        let (numbers, pre) = match bare.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre.to_owned())),
            None => (bare, None),
        };
        let mut parts = [None; 3];
        for (at, number) in numbers.split('.').enumerate() {
            let slot = parts.get_mut(at).ok_or_else(wrong)?;
            *slot = match number {
                "x" | "X" | "*" => None,
                number => Some(number.parse().ok().ok_or_else(wrong)?),
            };
        }
        Ok(Version { parts, pre })
    }

    fn numbers(&self) -> [u64; 3] {
        self.parts.map(Option::unwrap_or_default)
    }

    fn order(&self, other: &Version) -> Ordering {
        self.numbers().cmp(&other.numbers()).then_with(|| match (&self.pre, &other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => pre_order(a, b),
        })
    }
}

/// semver.org, 11: numbers before words, numbers by size.
fn pre_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, _) => Ordering::Less,
            (_, None) => Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), _) => Ordering::Less,
                (_, Ok(_)) => Ordering::Greater,
                _ => a.cmp(b),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

fn holds(version: &Version, part: &str) -> Result<bool> {
    let at = part.find(|c: char| !"=!<>~^".contains(c)).unwrap_or(part.len());
    let (operator, text) = part.split_at(at);
    let bound = Version::parse(text)?;
    // As Masterminds/semver: pre-releases are asked for by naming one.
    if version.pre.is_some() && bound.pre.is_none() && operator != "!=" {
        return Ok(false);
    }
    let order = version.order(&bound);
    let same = |parts: usize| version.numbers()[..parts] == bound.numbers()[..parts];
    let given = bound.parts.iter().take_while(|part| part.is_some()).count();
    let equal = if given < 3 { same(given) } else { order.is_eq() };
    Ok(match operator {
        "" | "=" | "==" => equal,
        "!=" => !equal,
        ">" => order.is_gt() && !(given < 3 && same(given)),
        ">=" | "=>" => order.is_ge(),
        "<" => order.is_lt(),
        "<=" | "=<" => order.is_le() || (given < 3 && same(given)),
        "~" | "~>" => order.is_ge() && same(given.min(2)),
        "^" => {
            let fixed = bound.numbers().iter().position(|number| *number != 0).map_or(given, |at| at + 1);
            order.is_ge() && same(fixed.clamp(0, 3).min(given.max(1)))
        }
        other => return Err(format!("`{other}` is no comparison")),
    })
}
