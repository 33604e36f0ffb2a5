//! `--set`: values from the command line in place of those in the files.

use std::collections::BTreeMap;

use super::fields::{Merge, Setting, Shape, field, parse_entry};
use super::{Bake, Target};
use crate::error::did_you_mean;
use crate::error::{Error, Result};

/// Of one target: each key's values in their order, and whether they are added.
pub(super) type Overrides = BTreeMap<String, Vec<Override>>;

#[derive(Clone, Debug)]
pub(super) struct Override {
    /// As it was said.
    said: String,
    /// A field, or `push` and `load`.
    key: String,
    below: Option<String>,
    append: bool,
    value: Option<String>,
}

const KEYS: [(&str, &str); 4] =
    [("platform", "platforms"), ("secrets", "secret"), ("annotation", "annotations"), ("outputs", "output")];

/// `lookup` is for `target.args.NAME` without a value.
pub(super) fn parse(
    bake: &Bake,
    said: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Overrides> {
    let mut all = Overrides::new();
    for said in said {
        let wrong = |say: &str| {
            Error::invalid(format!("`{said}` in --set {say}")).hint(
                "write --set TARGET.KEY=VALUE, as --set 'app.args.VERSION=2' or --set '*.no-cache=true'",
            )
        };
        let (path, value) = match said.split_once('=') {
            Some((path, value)) => (path, Some(value.to_owned())),
            None => (said.as_str(), None),
        };
        let append = path.ends_with('+');
        let mut parts = path.strip_suffix('+').unwrap_or(path).splitn(3, '.');
        let (Some(pattern), Some(key)) = (parts.next(), parts.next()) else {
            return Err(wrong("has no key"));
        };
        let below = parts.next().map(str::to_owned);
        let key = KEYS.iter().find(|(other, _)| *other == key).map_or(key, |(_, field)| field);
        let known = field(key).filter(|field| field.0 != "inherits");
        if known.is_none() && !["push", "load"].contains(&key) {
            let near = did_you_mean(key, super::fields::FIELDS.iter().map(|field| field.0));
            let error = Error::invalid(format!("`{said}` in --set: a target has no `{key}` to set"));
            return Err(near.map_or_else(
                || Error::invalid(error.message()),
                |near| Error::invalid(error.message()).hint(near),
            ));
        }
        let map = known.is_some_and(|field| field.1 == Shape::Map);
        if map && below.is_none() {
            return Err(wrong(&format!("names no entry: {key}.NAME")));
        }
        if !map && below.is_some() {
            return Err(wrong(&format!("names an entry, and `{key}` has none")));
        }
        let value = match (value, key, &below) {
            (Some(value), ..) => Some(value),
            (None, "args", Some(name)) => match lookup(name) {
                Some(value) => Some(value),
                None => continue,
            },
            _ => return Err(wrong("has no value")),
        };
        let given = Override { said: said.clone(), key: key.to_owned(), below, append, value };
        for name in matching(bake, pattern)? {
            all.entry(name).or_default().push(given.clone());
        }
    }
    Ok(all)
}

fn matching(bake: &Bake, pattern: &str) -> Result<Vec<String>> {
    if bake.target(pattern).is_some() {
        return Ok(vec![pattern.to_owned()]);
    }
    let names = bake.targets.iter().map(|target| target.name.as_str());
    let found: Vec<String> = names.clone().filter(|name| matches(pattern, name)).map(str::to_owned).collect();
    if found.is_empty() {
        let error = Error::not_found(format!("no target matches `{pattern}` in --set"));
        return Err(match did_you_mean(pattern, names) {
            Some(near) => error.hint(near),
            None => error,
        });
    }
    Ok(found)
}

/// A shell's pattern: `*`, `?`, `[a-z]`; a name has no `/` that would matter.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut regex = String::from("^");
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => {
                regex.push('[');
                for letter in letters.by_ref() {
                    match letter {
                        ']' => break,
                        '\\' | '[' | '&' | '~' => regex.extend(['\\', letter]),
                        letter => regex.push(letter),
                    }
                }
                regex.push(']');
            }
            letter => regex.push_str(&regex::escape(&letter.to_string())),
        }
    }
    regex.push('$');
    regex::Regex::new(&regex).is_ok_and(|regex| regex.is_match(name))
}

impl Target {
    pub(super) fn set(&mut self, overrides: &[Override]) -> Result<()> {
        let mut replaced: Vec<&str> = Vec::new();
        for one in overrides {
            let value = one.value.as_deref().unwrap_or_default();
            let wrong = |say: String| Error::invalid(format!("`{}` in --set: {say}", one.said));
            let Some(field) = field(&one.key) else {
                self.deliver(&one.key, truth(value).map_err(wrong)?);
                continue;
            };
            let setting = match field.1 {
                Shape::Text => Setting::Text(value.to_owned()),
                Shape::Flag => Setting::Flag(truth(value).map_err(wrong)?),
                Shape::Texts => Setting::Texts(vec![value.to_owned()]),
                Shape::Map => {
                    let name = one.below.clone().expect("maps were checked to have it");
                    Setting::Map(BTreeMap::from([(name, Some(value.to_owned()))]))
                }
                Shape::Entries => {
                    Setting::Entries(parse_entry(field.0, value).map_err(wrong)?.into_iter().collect())
                }
            };
            // The first of several replaces what the files say, the others join it; some only ever add.
            let adds = one.append
                || field.1 == Shape::Map
                || replaced.contains(&field.0)
                || ["annotations", "entitlements", "attest"].contains(&field.0);
            replaced.push(field.0);
            match self.settings.get_mut(field.0) {
                Some(old) => old.merge(setting, if adds { Merge::Join } else { Merge::Replace }),
                None => drop(self.settings.insert(field.0, setting)),
            }
        }
        Ok(())
    }

    /// `push` and `load` as outputs.
    fn deliver(&mut self, how: &str, wanted: bool) {
        let is = |entry: &super::fields::Entry, kinds: &[&str]| {
            entry.get("type").and_then(|kind| kind.as_str()).is_some_and(|kind| kinds.contains(&kind))
        };
        let mut outputs = match self.settings.remove("output") {
            Some(Setting::Entries(outputs)) => outputs,
            _ => Vec::new(),
        };
        match (how, wanted) {
            ("push", false) => {
                outputs.retain(|output| !is(output, &["registry"]));
                for output in outputs.iter_mut().filter(|output| is(output, &["image"])) {
                    output.insert("push".into(), "false".into());
                    output.sort_keys();
                }
            }
            ("push", true) => {
                let only_docker = outputs.iter().all(|output| is(output, &["docker"]));
                for output in outputs.iter_mut().filter(|output| is(output, &["image"])) {
                    output.insert("push".into(), "true".into());
                    output.sort_keys();
                }
                if only_docker {
                    let entry = [("push", "true"), ("type", "image")];
                    outputs
                        .push(entry.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect());
                }
            }
            (_, false) => {}
            (_, true) => {
                let reused =
                    outputs.iter().any(|output| is(output, &["docker"]) && !output.contains_key("dest"));
                let images = outputs.iter().all(|output| is(output, &["docker", "image", "registry", "oci"]));
                if images && !reused {
                    outputs.push([("type".to_owned(), "docker".into())].into_iter().collect());
                }
            }
        }
        self.settings.insert("output", Setting::Entries(outputs));
    }
}

/// The words Go's `strconv.ParseBool` takes.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("true or false is needed, not `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        let table = [
            ("*", "app", true),
            ("a*", "app", true),
            ("a*", "web", false),
            ("a?p", "app", true),
            ("[a-c]pp", "app", true),
            ("[a-c]pp", "dpp", false),
            ("a.p", "app", false),
            ("[", "app", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
