//! What `--cache-to` and `--cache-from` say.

use std::path::PathBuf;

use crate::error::{Error, Result, did_you_mean};
use crate::image::{Compression, Digest, Reference};
use crate::output::csv;
use crate::output::form::Form;

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub to: Vec<To>,
    pub from: Vec<From>,
}

/// Which layers' bytes go along. All records of the build and the rows of their layers always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those of the image.
    Min,
    /// Those of every step.
    Max,
}

/// A cache to write.
#[derive(Clone, Debug)]
pub struct To {
    pub(super) kind: Kind,
    pub mode: Mode,
    /// A failure is a warning.
    pub ignore_error: bool,
    /// The cache mounts of the build go along.
    pub mounts: bool,
    pub(super) form: Form,
    /// As it was written.
    text: String,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Local {
        dest: PathBuf,
        tag: String,
    },
    Registry(Reference),
    /// In the config of the image itself.
    Inline,
}

impl To {
    /// As it was asked for.
    pub fn describe(&self) -> &str {
        &self.text
    }

    /// It goes into the image's config.
    pub fn is_inline(&self) -> bool {
        matches!(self.kind, Kind::Inline)
    }
}

/// A cache to read.
#[derive(Clone, Debug)]
pub struct From {
    pub(super) kind: Origin,
    text: String,
}

#[derive(Clone, Debug)]
pub(super) enum Origin {
    Local { src: PathBuf, tag: String, digest: Option<Digest> },
    Registry(Reference),
}

impl From {
    pub(super) fn of(kind: Origin) -> Self {
        From { kind, text: String::new() }
    }

    pub fn describe(&self) -> &str {
        &self.text
    }
}

const DEFAULT_TAG: &str = "latest";

/// One `--cache-to`.
pub fn parse_to(text: &str) -> Result<To> {
    let mut fields = Fields::read("--cache-to", text)?;
    let mode = match fields.take("mode").as_deref() {
        None | Some("" | "min") => Mode::Min,
        Some("max") => Mode::Max,
        Some(other) => return Err(fields.wrong("mode", other, "min or max")),
    };
    let ignore_error = fields.flag("ignore-error")?.unwrap_or(false);
    let mounts = fields.flag("mounts")?.unwrap_or(false);
    let form = form(&mut fields)?;
    // A cache of ours is an OCI manifest whatever is said.
    for (key, only) in [("image-manifest", true), ("oci-mediatypes", true)] {
        if fields.flag(key)?.is_some_and(|said| said != only) {
            return Err(fields.wrong(key, "false", "true: a cache is an OCI manifest"));
        }
    }
    let kind = match fields.kind.clone().as_str() {
        "local" => {
            let dest = fields.need("dest", "the directory to write to")?;
            let tag = fields.take("tag").filter(|tag| !tag.is_empty()).unwrap_or_else(|| DEFAULT_TAG.into());
            Kind::Local { dest: dest.into(), tag }
        }
        "registry" => {
            let name: Reference = fields.need("ref", "the name to write to")?.parse()?;
            if name.digest().is_some() {
                return Err(Error::invalid(format!("`{}` names a digest", name.familiar()))
                    .hint("a cache is written under a tag"));
            }
            Kind::Registry(name)
        }
        "inline" if mode == Mode::Max => {
            return Err(fields.wrong("mode", "max", "min: an image has no layers but its own"));
        }
        "inline" if mounts => {
            return Err(fields.wrong("mounts", "true", "false: they are in no image"));
        }
        "inline" => Kind::Inline,
        other => return Err(fields.unknown(other, &["local", "registry", "inline"])),
    };
    fields.finish()?;
    Ok(To { kind, mode, ignore_error, mounts, form, text: text.to_owned() })
}

/// One `--cache-from`; a name alone is that of a registry.
pub fn parse_from(text: &str) -> Result<From> {
    let mut fields = Fields::read("--cache-from", text)?;
    let kind = match fields.kind.clone().as_str() {
        "local" => {
            let src = fields.need("src", "the directory to read from")?;
            let tag = fields.take("tag").filter(|tag| !tag.is_empty()).unwrap_or_else(|| DEFAULT_TAG.into());
            let digest = fields.take("digest").map(|digest| digest.parse()).transpose()?;
            Origin::Local { src: src.into(), tag, digest }
        }
        "registry" => Origin::Registry(fields.need("ref", "the name to read from")?.parse()?),
        other => return Err(fields.unknown(other, &["local", "registry"])),
    };
    fields.finish()?;
    Ok(From { kind, text: text.to_owned() })
}

fn form(fields: &mut Fields) -> Result<Form> {
    let compression = match fields.take("compression").as_deref() {
        None | Some("zstd") => Compression::Zstd,
        Some("gzip") => Compression::Gzip,
        Some("uncompressed") => Compression::None,
        Some(other) => return Err(fields.wrong("compression", other, "uncompressed, gzip or zstd")),
    };
    let said = fields.take("compression-level").filter(|level| !level.is_empty());
    let level = match said.as_deref().map(str::parse::<u32>) {
        None => None,
        Some(Ok(level)) if level <= 22 => Some(level),
        Some(_) => {
            let said = said.unwrap_or_default();
            return Err(fields.wrong("compression-level", &said, "0 to 9 with gzip, 0 to 22 with zstd"));
        }
    };
    let force = fields.flag("force-compression")?.unwrap_or(false);
    Ok(Form { compression, level, force, oci: true })
}

struct Fields {
    flag: &'static str,
    text: String,
    kind: String,
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Fields {
    fn read(flag: &'static str, text: &str) -> Result<Self> {
        let parts = csv::fields(text)?;
        let mut fields = Fields {
            flag,
            text: text.to_owned(),
            kind: String::new(),
            pairs: Vec::new(),
            known: vec!["type"],
        };
        if let [name] = &parts[..]
            && !name.contains('=')
        {
            fields.kind = "registry".into();
            fields.pairs.push(("ref".into(), name.clone()));
            return Ok(fields);
        }
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                Error::invalid(format!("`{part}` in {flag} has no value"))
                    .hint("write key=value, as in type=local,dest=DIRECTORY")
            })?;
            let key = key.trim().to_lowercase();
            match key.as_str() {
                "type" => fields.kind = value.trim().to_owned(),
                _ => fields.pairs.push((key, value.to_owned())),
            }
        }
        if fields.kind.is_empty() {
            return Err(Error::invalid(format!("`{text}` in {flag} has no type"))
                .hint("write type=local, registry or inline"));
        }
        Ok(fields)
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let value = self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        self.pairs.retain(|(known, _)| known != key);
        value
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    fn need(&mut self, key: &'static str, what: &str) -> Result<String> {
        self.take(key).filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::invalid(format!("`{}` in {} has no {key}", self.text, self.flag))
                .hint(format!("add {key}=.., {what}"))
        })
    }

    fn wrong(&self, key: &str, value: &str, allowed: &str) -> Error {
        Error::invalid(format!("`{key}={value}` in {}", self.flag)).hint(format!("{key} may be {allowed}"))
    }

    fn unknown(&self, kind: &str, known: &[&'static str]) -> Error {
        if ["gha", "s3", "azblob"].contains(&kind) {
            return Error::unsupported(format!(
                "`type={kind}` in {} is not supported by this version",
                self.flag
            ))
            .hint(format!("there are {}", known.join(", ")));
        }
        let error = Error::invalid(format!("unknown type `{kind}` in {}", self.flag));
        match did_you_mean(kind, known.iter().copied()) {
            Some(hint) => error.hint(hint),
            None => error.hint(format!("there are {}", known.join(", "))),
        }
    }

    fn finish(self) -> Result<()> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        let error = Error::invalid(format!("unknown key `{key}` in {} type={}", self.flag, self.kind));
        Err(match did_you_mean(key, self.known.iter().copied()) {
            Some(hint) => error.hint(hint),
            None => error.hint(format!("type={} has {}", self.kind, self.known[1..].join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(read: Result<T>) -> String {
        match read {
            Ok(_) => "ok".into(),
            Err(error) => format!("{}; {}", error.message(), error.hint_text().unwrap_or_default()),
        }
    }

    #[test]
    fn the_flags_read_as_buildx_reads_them() {
        for (text, expected) in [
            ("type=local,dest=x", "ok"),
            ("type=local,dest=x,mode=max,tag=a,compression=gzip,compression-level=3,ignore-error=true", "ok"),
            (
                "type=local,dest=x,oci-mediatypes=true,image-manifest",
                "`image-manifest` in --cache-to has no value; write key=value, as in type=local,dest=DIRECTORY",
            ),
            ("host/name", "ok"),
            ("type=registry,ref=host/name:tag,mode=max", "ok"),
            ("type=inline", "ok"),
            (
                "type=inline,mode=max",
                "`mode=max` in --cache-to; mode may be min: an image has no layers but its own",
            ),
            ("type=local", "`type=local` in --cache-to has no dest; add dest=.., the directory to write to"),
            ("type=local,dest=x,mode=all", "`mode=all` in --cache-to; mode may be min or max"),
            (
                "type=local,dest=x,src=y",
                "unknown key `src` in --cache-to type=local; type=local has mode, ignore-error, mounts, compression, compression-level, force-compression, image-manifest, oci-mediatypes, dest, tag",
            ),
            ("dest=x", "`dest=x` in --cache-to has no type; write type=local, registry or inline"),
            (
                "type=gha",
                "`type=gha` in --cache-to is not supported by this version; there are local, registry, inline",
            ),
            ("type=lokal,dest=x", "unknown type `lokal` in --cache-to; did you mean `local`?"),
        ] {
            assert_eq!(said(parse_to(text)), expected, "{text}");
        }
        for (text, expected) in [
            ("type=local,src=x", "ok"),
            ("host/name:tag", "ok"),
            ("type=registry,ref=host/name", "ok"),
            (
                "type=registry",
                "`type=registry` in --cache-from has no ref; add ref=.., the name to read from",
            ),
            ("type=inline", "unknown type `inline` in --cache-from; there are local, registry"),
        ] {
            assert_eq!(said(parse_from(text)), expected, "{text}");
        }
    }
}
