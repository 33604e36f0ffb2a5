//! What a target can say: its fields, how they are read, and how two definitions of one become one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::functions::{line, records};
use super::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Flag,
    Texts,
    Map,
    /// Records that are written as `key=value,key=value` or as maps.
    Entries,
}

/// When a later definition has the field too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    Replace,
    /// Lists one behind the other, maps key by key.
    Join,
}

pub(super) struct Field(pub(super) &'static str, pub(super) Shape, pub(super) Merge);

/// In the order they are printed.
pub(super) const FIELDS: [Field; 27] = [
    Field("description", Shape::Text, Merge::Replace),
    Field("inherits", Shape::Texts, Merge::Join),
    Field("annotations", Shape::Texts, Merge::Join),
    Field("attest", Shape::Entries, Merge::Join),
    Field("context", Shape::Text, Merge::Replace),
    Field("contexts", Shape::Map, Merge::Join),
    Field("dockerfile", Shape::Text, Merge::Replace),
    Field("dockerfile-inline", Shape::Text, Merge::Replace),
    Field("args", Shape::Map, Merge::Join),
    Field("labels", Shape::Map, Merge::Join),
    Field("tags", Shape::Texts, Merge::Replace),
    Field("cache-from", Shape::Entries, Merge::Join),
    Field("cache-to", Shape::Entries, Merge::Replace),
    Field("target", Shape::Text, Merge::Replace),
    Field("secret", Shape::Entries, Merge::Join),
    Field("ssh", Shape::Entries, Merge::Join),
    Field("platforms", Shape::Texts, Merge::Replace),
    Field("output", Shape::Entries, Merge::Replace),
    Field("pull", Shape::Flag, Merge::Replace),
    Field("no-cache", Shape::Flag, Merge::Replace),
    Field("network", Shape::Text, Merge::Replace),
    Field("no-cache-filter", Shape::Texts, Merge::Join),
    Field("shm-size", Shape::Text, Merge::Replace),
    Field("ulimits", Shape::Texts, Merge::Join),
    Field("call", Shape::Text, Merge::Replace),
    Field("entitlements", Shape::Texts, Merge::Join),
    Field("extra-hosts", Shape::Map, Merge::Join),
];

pub(super) fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.0 == name)
}

/// Keys in the order they are printed.
pub(super) type Entry = serde_json::Map<String, Json>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Setting {
    Text(String),
    Flag(bool),
    Texts(Vec<String>),
    /// A key without a value is not set by this definition.
    Map(BTreeMap<String, Option<String>>),
    Entries(Vec<Entry>),
}

impl Setting {
    /// `None` for null: not set.
    pub(super) fn read(field: &Field, value: Value) -> Result<Option<Setting>, String> {
        if value == Value::Null {
            return Ok(None);
        }
        let texts = |value: &Value| value.to_list()?.iter().map(Value::to_text).collect::<Result<_, _>>();
        Ok(Some(match field.1 {
            Shape::Text => Setting::Text(value.to_text()?),
            Shape::Flag => Setting::Flag(value.to_bool()?),
            Shape::Texts => Setting::Texts(texts(&value)?),
            Shape::Map => {
                let text = |(key, value)| match value {
                    Value::Null => Ok((key, None)),
                    value => match value.to_text() {
                        Ok(text) => Ok((key, Some(text))),
                        Err(say) => Err(format!("`{key}`: {say}")),
                    },
                };
                Setting::Map(value.to_map()?.into_iter().map(text).collect::<Result<_, String>>()?)
            }
            Shape::Entries => {
                let mut entries = Vec::new();
                for value in value.to_list()? {
                    entries.extend(match value {
                        Value::Map(map) => Some(entry_of_map(field.0, map)?),
                        text => parse_entry(field.0, &text.to_text()?)?,
                    });
                }
                Setting::Entries(entries)
            }
        }))
    }

    /// For those who refer to it.
    pub(super) fn value(&self) -> Value {
        match self {
            Setting::Text(text) => Value::text(text),
            Setting::Flag(truth) => Value::Bool(*truth),
            Setting::Texts(texts) => Value::List(texts.iter().map(Value::text).collect()),
            Setting::Map(map) => {
                let value = |value: &Option<String>| value.as_ref().map_or(Value::Null, Value::text);
                Value::Map(map.iter().map(|(key, text)| (key.clone(), value(text))).collect())
            }
            Setting::Entries(entries) => {
                Value::List(entries.iter().map(|entry| Value::from_json(entry.clone().into())).collect())
            }
        }
    }

    pub(super) fn merge(&mut self, later: Setting, how: Merge) {
        match (self, later, how) {
            (Setting::Texts(old), Setting::Texts(new), Merge::Join) => old.extend(new),
            (Setting::Entries(old), Setting::Entries(new), Merge::Join) => old.extend(new),
            (Setting::Map(old), Setting::Map(new), Merge::Join) => {
                old.extend(new.into_iter().filter(|(_, value)| value.is_some()));
            }
            (old, new, _) => *old = new,
        }
    }

    /// Each thing once, nothing empty.
    pub(super) fn tidy(&mut self, name: &str) {
        match self {
            Setting::Texts(texts) => {
                let mut seen = BTreeSet::new();
                texts.retain(|text| !text.is_empty() && seen.insert(text.clone()));
            }
            Setting::Entries(entries) => {
                let mut kept: Vec<Entry> = Vec::new();
                for entry in entries.drain(..) {
                    if name == "attest" {
                        kept.retain(|other| other.get("type") != entry.get("type"));
                    }
                    if !kept.contains(&entry) {
                        kept.push(entry);
                    }
                }
                *entries = kept;
            }
            Setting::Map(map) => {
                map.retain(|_, value| {
                    value.as_deref().is_some_and(|text| name != "contexts" || !text.is_empty())
                });
            }
            Setting::Text(_) | Setting::Flag(_) => {}
        }
    }

    fn is_empty(&self, name: &str) -> bool {
        match self {
            Setting::Texts(texts) => texts.is_empty(),
            Setting::Entries(entries) => entries.is_empty(),
            Setting::Map(map) => map.is_empty(),
            Setting::Text(text) => name == "description" && text.is_empty(),
            Setting::Flag(_) => false,
        }
    }

    /// As it is printed; what is read again as HCL has its templates' marks doubled.
    pub(super) fn json(&self, name: &str) -> Option<Json> {
        if self.is_empty(name) {
            return None;
        }
        let escaped = ["annotations", "dockerfile-inline", "labels", "args", "extra-hosts"].contains(&name);
        let escape = |text: &String| match escaped {
            true => text.replace("${", "$${").replace("%{", "%%{"),
            false => text.clone(),
        };
        Some(match self {
            Setting::Text(text) => escape(text).into(),
            Setting::Flag(truth) => (*truth).into(),
            Setting::Texts(texts) => texts.iter().map(escape).collect(),
            Setting::Map(map) => {
                map.iter().map(|(key, text)| (key.clone(), text.as_ref().map(escape))).collect()
            }
            Setting::Entries(entries) => entries.iter().cloned().map(Json::Object).collect(),
        })
    }
}

fn entry_of_map(field: &str, map: BTreeMap<String, Value>) -> Result<Entry, String> {
    let mut entry = Entry::new();
    for (key, value) in map {
        let value: Json = match value {
            Value::Null => continue,
            Value::List(values) if field == "ssh" && key == "paths" => {
                values.iter().map(Value::to_text).collect::<Result<Vec<_>, _>>()?.into()
            }
            value => value.to_text().map_err(|say| format!("`{key}`: {say}"))?.into(),
        };
        entry.insert(key, value);
    }
    finish(field, entry)
}

/// `None` for the empty text.
pub(super) fn parse_entry(field: &str, text: &str) -> Result<Option<Entry>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut entry = Entry::new();
    if field == "ssh" {
        let (id, paths) = text.split_once('=').map_or((text, None), |(id, paths)| (id, Some(paths)));
        entry.insert("id".into(), id.into());
        if let Some(paths) = paths {
            entry.insert("paths".into(), paths.split(',').collect());
        }
        return Ok(Some(entry));
    }
    let fields = records(text).map_err(|say| format!("`{text}`: {say}"))?.into_iter().next();
    for part in fields.unwrap_or_default() {
        match part.split_once('=') {
            Some((key, value)) => drop(entry.insert(key.trim().to_lowercase(), value.into())),
            // A reference, or a directory, alone.
            None if field.starts_with("cache-") && part == text => {
                entry.insert("ref".into(), part.into());
                entry.insert("type".into(), "registry".into());
            }
            None if field == "output" && part == text => {
                let kind = if part == "-" { "tar" } else { "local" };
                entry.insert("dest".into(), part.into());
                entry.insert("type".into(), kind.into());
            }
            None => return Err(format!("`{part}` in `{text}` is not key=value")),
        }
    }
    finish(field, entry).map(Some)
}

fn finish(field: &str, mut entry: Entry) -> Result<Entry, String> {
    if field == "secret" {
        let mut take = |key: &str| entry.remove(key);
        let kind = take("type");
        let source = take("src").or(take("source"));
        let (mut source, mut variable) = (source, take("env"));
        if kind == Some("env".into()) && variable.is_none() {
            variable = source.take();
        }
        let id = take("id");
        let parts = [("id", id), ("src", source), ("env", variable)];
        if let Some(other) = entry.keys().next() {
            return Err(format!("a secret has no `{other}`; it has id, src, env and type"));
        }
        return Ok(parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect());
    }
    if field == "ssh" {
        return Ok(entry);
    }
    if !entry.contains_key("type") {
        return Err(format!("an entry of `{field}` needs a `type`"));
    }
    entry.sort_keys();
    Ok(entry)
}

/// As a flag of the command line takes it.
pub(super) fn entry_words(field: &str, entry: &Entry) -> String {
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if field == "ssh" {
        let id = entry.get("id").map(text).unwrap_or_default();
        return match entry.get("paths") {
            Some(Json::Array(paths)) => {
                format!("{id}={}", paths.iter().map(text).collect::<Vec<_>>().join(","))
            }
            Some(path) => format!("{id}={}", text(path)),
            None => id,
        };
    }
    line(entry.iter().map(|(key, value)| format!("{key}={}", text(value))))
}
