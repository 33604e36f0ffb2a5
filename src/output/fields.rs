//! The `key=value` pairs of one output, taken out one by one; what nobody took is unknown.

use super::annotation::Annotation;
use super::csv;
use crate::error::{Error, Result, did_you_mean};
use crate::image::Reference;

pub(super) struct Fields {
    /// For messages.
    kind: String,
    pairs: Vec<(String, String)>,
    /// Keys that were asked for.
    known: Vec<&'static str>,
}

/// What `--output` begins with: the kind, and the rest.
pub(super) fn read(text: &str) -> Result<(String, Fields)> {
    let fields = csv::fields(text)?;
    if let [one] = &fields[..]
        && one == text
        && !text.starts_with("type=")
    {
        let kind = if text == "-" { "tar" } else { "local" };
        return Ok((kind.into(), Fields::new(kind, vec![("dest".into(), text.into())])));
    }
    let (mut kind, mut pairs) = (None, Vec::new());
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| {
            Error::invalid(format!("`{field}` in the output `{text}` has no value"))
                .hint("write key=value, as in type=oci,dest=image.tar")
        })?;
        let key = key.trim();
        // Annotations have keys of their own, which are not ours to change.
        let key = if key.starts_with("annotation") { key.to_owned() } else { key.to_lowercase() };
        match key.as_str() {
            "type" => kind = Some(value.trim().to_owned()),
            _ => pairs.push((key, value.to_owned())),
        }
    }
    let kind = kind.filter(|kind| !kind.is_empty()).ok_or_else(|| {
        Error::invalid(format!("the output `{text}` has no type"))
            .hint("write type=image, registry, local, tar, oci or docker")
    })?;
    Ok((kind.clone(), Fields::new(&kind, pairs)))
}

impl Fields {
    fn new(kind: &str, pairs: Vec<(String, String)>) -> Self {
        Fields { kind: kind.into(), pairs, known: Vec::new() }
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == key)
    }

    /// Of a key that stands twice, what was said last.
    pub(super) fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let value = self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        self.pairs.retain(|(known, _)| known != key);
        value
    }

    /// Of a key that stays.
    pub(super) fn said(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The words that Go's strconv.ParseBool knows; an empty value is true, as in BuildKit.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            other => Err(self.wrong(key, other, "true or false")),
        }
    }

    pub(super) fn wrong(&self, key: &str, value: &str, allowed: &str) -> Error {
        Error::invalid(format!("`{key}={value}` of the output type={}", self.kind))
            .hint(format!("{key} may be {allowed}"))
    }

    /// `name=one` or `"name=one,two"`.
    pub(super) fn names(&mut self) -> Result<Vec<Reference>> {
        let text = self.take("name").unwrap_or_default();
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| name.parse()).collect()
    }

    /// `annotation[-LEVEL][[PLATFORM]].KEY=VALUE`
    pub(super) fn annotations(&mut self) -> Result<Vec<Annotation>> {
        self.known.push("annotation.KEY");
        let (annotations, rest) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| Annotation::is_field(key));
        self.pairs = rest;
        let annotations: Vec<(String, String)> = annotations;
        annotations.iter().map(|(key, value)| Annotation::of_field(key, value)).collect()
    }

    /// What BuildKit knows and nobody here does, or has no need of. A value that asks for nothing is taken.
    pub(super) fn refuse(&mut self, keys: &[&'static str]) -> Result<()> {
        for key in keys {
            if let Some(value) = self.take(key).filter(|value| !matches!(value.as_str(), "false" | "0")) {
                return Err(Error::unsupported(format!(
                    "`{key}={value}` of the output type={} is not supported by this version",
                    self.kind
                )));
            }
        }
        Ok(())
    }

    /// Every key was known.
    pub(super) fn finish(self) -> Result<()> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        let error = Error::invalid(format!("unknown key `{key}` of the output type={}", self.kind));
        Err(match did_you_mean(key, self.known.iter().copied()) {
            Some(hint) => error.hint(hint),
            None if self.known.is_empty() => error.hint(format!("type={} has none", self.kind)),
            None => error.hint(format!("type={} has {}", self.kind, self.known.join(", "))),
        })
    }
}
