//! The functions every bake file has: those of go-cty's standard library, and bake's own.

mod codes;
mod collections;
mod csv;
mod network;
mod numbers;
mod printf;
mod text;
mod times;
mod version;

use super::Settings;
use super::value::Value;

pub(super) use csv::{line, records};
pub(super) use text::clean;

pub(super) type Result<T = Value> = std::result::Result<T, String>;
type Function = fn(&[Value], &Settings) -> Result;

/// Name, fewest and most arguments.
struct Entry(&'static str, usize, usize, Function);

const MANY: usize = usize::MAX;

/// What HCL has no use for here, or what would be another value each time.
const ABSENT: [&str; 4] = ["bcrypt", "byteslen", "bytesslice", "rsadecrypt"];

/// `try`, `can` and `convert` are the evaluator's: what they get is not their arguments' values.
const SPECIAL: [&str; 3] = ["can", "convert", "try"];

fn tables() -> impl Iterator<Item = &'static Entry> {
    [
        numbers::TABLE,
        text::TABLE,
        collections::TABLE,
        codes::TABLE,
        network::TABLE,
        times::TABLE,
        version::TABLE,
    ]
    .into_iter()
    .flatten()
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    tables().map(|entry| entry.0).chain(SPECIAL)
}

pub(super) fn is_known(name: &str) -> bool {
    names().any(|known| known == name) || ABSENT.contains(&name)
}

/// `None`: there is no such function.
pub(super) fn call(name: &str, args: &[Value], settings: &Settings) -> Option<Result> {
    if ABSENT.contains(&name) {
        return Some(Err("is not supported by this version".into()));
    }
    if SPECIAL.contains(&name) {
        return Some(Err(format!("{} arguments are not what it takes", args.len())));
    }
    let Entry(_, fewest, most, function) = tables().find(|entry| entry.0 == name)?;
    if args.len() < *fewest || args.len() > *most {
        let wanted = match (*fewest, *most) {
            (fewest, most) if fewest == most => fewest.to_string(),
            (fewest, MANY) => format!("{fewest} or more"),
            (fewest, most) => format!("{fewest} to {most}"),
        };
        return Some(Err(format!("{wanted} arguments are needed, not {}", args.len())));
    }
    Some(function(args, settings))
}
