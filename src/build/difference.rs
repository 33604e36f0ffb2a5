//! Two cache keys, compared: what is different, in words that a person can act on. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::listing::Entry;
use crate::image::Digest;

/// One thing that makes a key another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Difference {
    /// Every step was to run.
    Forced,
    /// There was no earlier record to compare with.
    First,
    /// The same key was known; its record, or its layer, is gone.
    Forgotten,
    /// The same key was known, and its record is older than it may be; both in seconds.
    Expired { age: u64, most: u64 },
    /// The instruction itself is another one.
    Instruction { old: String, new: String },
    /// What the step stands on: the instructions of the lowest layers that differ.
    Below { old: Option<String>, new: Option<String> },
    /// A variable that the step sees: an ARG, or the image's ENV.
    Variable { name: String, old: Option<String>, new: Option<String> },
    /// A file that the step reads.
    File { path: String, change: String, old: Option<String>, new: Option<String> },
    /// More files than are listed.
    Files { more: usize },
    /// Any other part of the key.
    Part { name: String, old: Option<String>, new: Option<String> },
}

/// More files of one source are counted and not named.
const MOST_FILES: usize = 100;

/// What is known of the things that keys name by digest.
pub(super) trait Known {
    /// The files behind a digest in a key.
    fn files(&self, digest: &Digest) -> Option<Vec<Entry>>;
    /// The instruction that made a layer of this content.
    fn instruction(&self, content: &str) -> Option<String>;
}

/// Between the JSON of two keys. Empty where they are equal.
pub(super) fn between(old: &Value, new: &Value, known: &dyn Known) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", old, new, known, &mut found);
    // What lies below explains everything above it; it stands last, for the step's own changes are nearer.
    found.sort_by_key(|difference| matches!(difference, Difference::Below { .. }));
    found
}

fn compare(name: &str, old: &Value, new: &Value, known: &dyn Known, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for part in names {
                let whole = if name.is_empty() { part.clone() } else { format!("{name}.{part}") };
                let of = |object: &serde_json::Map<String, Value>| {
                    object.get(part).cloned().unwrap_or(Value::Null)
                };
                compare(&whole, &of(old), &of(new), known, found);
            }
        }
        (Value::Array(old), Value::Array(new)) if last == "parent" => below(old, new, known, found),
        (Value::Array(old), Value::Array(new)) if last == "env" => variables(old, new, found),
        (Value::Array(old), Value::Array(new)) if last == "args" => {
            found.push(Difference::Instruction { old: words(old), new: words(new) });
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                let of = |array: &[Value]| array.get(at).cloned().unwrap_or(Value::Null);
                let whole =
                    if old.len().max(new.len()) > 1 { format!("{name}[{at}]") } else { name.to_owned() };
                compare(&whole, &of(old), &of(new), known, found);
            }
        }
        _ => leaf(name, old, new, known, found),
    }
}

fn leaf(name: &str, old: &Value, new: &Value, known: &dyn Known, found: &mut Vec<Difference>) {
    let files = |value: &Value| value.as_str()?.parse().ok().and_then(|digest: Digest| known.files(&digest));
    if let (Some(before), Some(now)) = (files(old), files(new)) {
        return of_files(&before, &now, found);
    }
    // The kind of the step is the name of its object: `run.user` is the user.
    let short = name.split_once('.').map_or(name, |(_, rest)| rest);
    found.push(Difference::Part { name: short.to_owned(), old: text(old), new: text(new) });
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn words(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn below(old: &[Value], new: &[Value], known: &dyn Known, found: &mut Vec<Difference>) {
    let at = (0..old.len().max(new.len())).find(|at| old.get(*at) != new.get(*at));
    let Some(at) = at else { return };
    let told = |layers: &[Value]| {
        let content = layers.get(at)?.as_str()?;
        Some(known.instruction(content).unwrap_or_else(|| content.to_owned()))
    };
    found.push(Difference::Below { old: told(old), new: told(new) });
}

fn variables(old: &[Value], new: &[Value], found: &mut Vec<Difference>) {
    let map = |values: &[Value]| -> BTreeMap<String, String> {
        let pairs = values.iter().filter_map(Value::as_str).filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let before = found.len();
    let (was, is) = (map(old), map(new));
    let names: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    for name in names {
        if was.get(name) != is.get(name) {
            found.push(Difference::Variable {
                name: name.clone(),
                old: was.get(name).cloned(),
                new: is.get(name).cloned(),
            });
        }
    }
    if found.len() == before {
        found.push(Difference::Part { name: "order of variables".into(), old: None, new: None });
    }
}

/// File by file. Directories above a changed file are not told of unless they changed themselves.
fn of_files(old: &[Entry], new: &[Entry], found: &mut Vec<Difference>) {
    let map = |entries: &[Entry]| -> BTreeMap<String, Entry> {
        entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
    };
    let (was, is) = (map(old), map(new));
    let paths: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let mut told = 0;
    let mut more = 0;
    for path in paths {
        let (before, now) = (was.get(path), is.get(path));
        if before == now {
            continue;
        }
        told += 1;
        if told > MOST_FILES {
            more += 1;
            continue;
        }
        found.push(of_file(path, before, now));
    }
    if more > 0 {
        found.push(Difference::Files { more });
    }
    if told == 0 {
        // Names alone: the same files from somewhere else, or in another order.
        found.push(Difference::Part { name: "order of files".into(), old: None, new: None });
    }
}

fn of_file(path: &str, before: Option<&Entry>, now: Option<&Entry>) -> Difference {
    let differ = |change: &str, old: Option<String>, new: Option<String>| Difference::File {
        path: path.to_owned(),
        change: change.to_owned(),
        old,
        new,
    };
    let digest = |entry: &Entry| entry.digest.map(|digest| digest.to_string());
    match (before, now) {
        (Some(a), Some(b)) if a.kind != b.kind => differ("kind", Some(a.kind.clone()), Some(b.kind.clone())),
        (Some(a), Some(b)) if a.digest != b.digest => differ("content", digest(a), digest(b)),
        (Some(a), Some(b)) if a.target != b.target => {
            differ("target", Some(a.target.clone()), Some(b.target.clone()))
        }
        (Some(a), Some(b)) if a.mode != b.mode => {
            differ("mode", Some(format!("{:04o}", a.mode)), Some(format!("{:04o}", b.mode)))
        }
        (Some(a), Some(b)) if a.owner != b.owner => {
            let owner = |entry: &Entry| entry.owner.map(|(uid, gid)| format!("{uid}:{gid}"));
            differ("owner", owner(a), owner(b))
        }
        (Some(_), Some(_)) => differ("attributes", None, None),
        (None, Some(b)) => differ("added", None, digest(b)),
        (Some(a), None) => differ("removed", digest(a), None),
        (None, None) => differ("content", None, None),
    }
}

impl Difference {
    /// A sentence, without its end.
    pub fn sentence(&self) -> String {
        let quoted = |value: &Option<String>| match value {
            Some(value) => format!("`{}`", shortened(value)),
            None => "nothing".to_owned(),
        };
        match self {
            Difference::Forced => "every step was to run".into(),
            Difference::First => "this step has not been seen before".into(),
            Difference::Forgotten => "its result is no longer in the cache".into(),
            Difference::Expired { age, most } => {
                format!("its result is {} old, and may be {}", span(*age), span(*most))
            }
            Difference::Instruction { old, new } => {
                format!("the command changed: `{}` -> `{}`", one_line(old), one_line(new))
            }
            Difference::Below { old, new } => match (old, new) {
                (Some(old), Some(new)) if old == new => format!("what `{}` left changed", one_line(new)),
                (Some(old), Some(new)) => {
                    format!("it stands on `{}` instead of `{}`", one_line(new), one_line(old))
                }
                (None, Some(new)) => format!("`{}` comes before it now", one_line(new)),
                (Some(old), None) => format!("`{}` is no longer before it", one_line(old)),
                (None, None) => "what it stands on changed".into(),
            },
            Difference::Variable { name, old, new } => match (old, new) {
                (Some(old), Some(new)) => format!("{name}: {} -> {}", one_line(old), one_line(new)),
                (None, Some(new)) => format!("{name} is new: {}", one_line(new)),
                (Some(old), None) => format!("{name} is gone; it was {}", one_line(old)),
                (None, None) => format!("{name} changed"),
            },
            Difference::File { path, change, old, new } => match change.as_str() {
                "added" => format!("{path} is new"),
                "removed" => format!("{path} is gone"),
                "attributes" => format!("{path} has other attributes"),
                "content" => format!("{path} changed ({} -> {})", brief(old), brief(new)),
                other => format!("{path} has another {other} ({} -> {})", brief(old), brief(new)),
            },
            Difference::Files { more } => format!("and {more} more files"),
            Difference::Part { name, old: None, new: None } => format!("the {name} changed"),
            Difference::Part { name, old, new } => format!("{name}: {} -> {}", quoted(old), quoted(new)),
        }
    }
}

/// Seconds in the form they are given in.
fn span(seconds: u64) -> String {
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let said: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if said.is_empty() { "0s".into() } else { said }
}

fn brief(value: &Option<String>) -> String {
    value.as_deref().map_or_else(|| "nothing".to_owned(), shortened)
}

/// Digests as people quote them.
fn shortened(value: &str) -> String {
    match value.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 => format!("sha256 {}..", &hex[..8]),
        _ => one_line(value),
    }
}

/// Long ones are cut.
fn one_line(text: &str) -> String {
    const MOST: usize = 80;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Nothing;
    impl Known for Nothing {
        fn files(&self, _: &Digest) -> Option<Vec<Entry>> {
            None
        }
        fn instruction(&self, content: &str) -> Option<String> {
            Some(format!("RUN {content}"))
        }
    }

    fn sentences(old: &Value, new: &Value) -> Vec<String> {
        between(old, new, &Nothing).iter().map(Difference::sentence).collect()
    }

    #[test]
    fn each_part_of_a_key_is_told_in_its_own_words() {
        let key = |parent: &[&str], args: &[&str], env: &[&str], user: &str| json!({"version": 2, "parent": parent, "run": {"args": args, "env": env, "user": user}});
        let base = key(&["a", "b"], &["make"], &["A=1", "B=2"], "");
        assert_eq!(sentences(&base, &base), Vec::<String>::new());
        for (other, told) in [
            (
                key(&["a", "b"], &["make", "all"], &["A=1", "B=2"], ""),
                "the command changed: `make` -> `make all`",
            ),
            (key(&["a", "b"], &["make"], &["A=1", "B=3"], ""), "B: 2 -> 3"),
            (key(&["a", "b"], &["make"], &["A=1"], ""), "B is gone; it was 2"),
            (key(&["a", "b"], &["make"], &["B=2", "A=1"], ""), "the order of variables changed"),
            (key(&["a", "b"], &["make"], &["A=1", "B=2"], "me"), "user: `` -> `me`"),
            (key(&["a", "c"], &["make"], &["A=1", "B=2"], ""), "it stands on `RUN c` instead of `RUN b`"),
            (key(&["a"], &["make"], &["A=1", "B=2"], ""), "`RUN b` is no longer before it"),
            (key(&["a", "b", "c"], &["make"], &["A=1", "B=2"], ""), "`RUN c` comes before it now"),
        ] {
            assert_eq!(sentences(&base, &other), [told]);
        }
    }

    #[test]
    fn ages_are_told_as_they_are_given() {
        let told = |age, most| Difference::Expired { age, most }.sentence();
        assert_eq!(told(90_061, 86_400), "its result is 25h1m1s old, and may be 24h");
        assert_eq!(told(60, 0), "its result is 1m old, and may be 0s");
    }

    #[test]
    fn files_are_told_one_by_one() {
        struct Files;
        impl Known for Files {
            fn files(&self, digest: &Digest) -> Option<Vec<Entry>> {
                let entry = |path: &str, mode, content: &str| Entry {
                    path: path.into(),
                    kind: "file".into(),
                    mode,
                    owner: None,
                    digest: Some(Digest::of(content.as_bytes())),
                    target: String::new(),
                    rdev: 0,
                    xattrs: None,
                };
                Some(match *digest == Digest::of(b"old") {
                    true => vec![entry("a", 0o644, "1"), entry("b", 0o644, "1"), entry("c", 0o644, "1")],
                    false => vec![entry("a", 0o644, "2"), entry("b", 0o755, "1"), entry("d", 0o644, "1")],
                })
            }
            fn instruction(&self, _: &str) -> Option<String> {
                None
            }
        }
        let key = |text: &str| json!({"copy": {"content": [Digest::of(text.as_bytes()).to_string()]}});
        let told: Vec<String> =
            between(&key("old"), &key("new"), &Files).iter().map(Difference::sentence).collect();
        assert_eq!(
            told,
            [
                "a changed (sha256 6b86b273.. -> sha256 d4735e3a..)",
                "b has another mode (0644 -> 0755)",
                "c is gone",
                "d is new",
            ]
        );
    }
}
