//! Annotations: where in an image's documents they stand, and for which platform.

use std::collections::BTreeMap;

use crate::error::{Error, Result, did_you_mean};
use crate::image::Platform;

/// Which document they stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Manifest,
    /// The entry of the manifest in an index.
    ManifestDescriptor,
    Index,
    /// The entry of the index in a layout's `index.json`.
    IndexDescriptor,
}

const LEVELS: [(&str, Level); 4] = [
    ("manifest", Level::Manifest),
    ("manifest-descriptor", Level::ManifestDescriptor),
    ("index", Level::Index),
    ("index-descriptor", Level::IndexDescriptor),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    level: Level,
    /// `None`: for all.
    platform: Option<Platform>,
    key: String,
    value: String,
}

impl Annotation {
    /// `[LEVEL[[PLATFORM]][,LEVEL..]:]KEY=VALUE`, as buildx's `--annotation` has it.
    pub fn of_flag(text: &str) -> Result<Vec<Annotation>> {
        let bad = |what: String| {
            Error::invalid(format!("`{text}` in --annotation: {what}"))
                .hint("write KEY=VALUE, or index:KEY=VALUE, or manifest[linux/amd64]:KEY=VALUE")
        };
        let (place, value) = text.split_once('=').ok_or_else(|| bad("it has no value".into()))?;
        let (levels, key) = match place.split_once(':') {
            Some((levels, key)) => (levels, key),
            None => ("manifest", place),
        };
        if key.is_empty() {
            return Err(bad("it has no key".into()));
        }
        let one = |place: &str| {
            let (level, platform) =
                split_place(place).ok_or_else(|| bad(format!("`{place}` is no place")))?;
            Annotation::new(level, platform, key, value)
        };
        levels.split(',').map(|place| one(place.trim())).collect()
    }

    pub(super) fn is_field(key: &str) -> bool {
        key.strip_prefix("annotation").is_some_and(|rest| rest.starts_with(['.', '-', '[']))
    }

    /// `annotation[-LEVEL][[PLATFORM]].KEY`
    pub(super) fn of_field(key: &str, value: &str) -> Result<Annotation> {
        let bad = || {
            Error::invalid(format!("`{key}` of an output is no annotation"))
                .hint("write annotation.KEY=VALUE, or annotation-index.KEY=VALUE")
        };
        let rest = key.strip_prefix("annotation").ok_or_else(bad)?;
        let (place, key) = match rest.find(']') {
            Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('.').ok_or_else(bad)?),
            None => rest.split_once('.').ok_or_else(bad)?,
        };
        if key.is_empty() {
            return Err(bad());
        }
        let place = match place.strip_prefix('-') {
            Some(place) => place.to_owned(),
            None => format!("manifest{place}"),
        };
        let (level, platform) = split_place(&place).ok_or_else(bad)?;
        Annotation::new(level, platform, key, value)
    }

    fn new(level: &str, platform: Option<&str>, key: &str, value: &str) -> Result<Annotation> {
        let found = LEVELS.iter().find(|(name, _)| *name == level).map(|(_, level)| *level);
        let level = found.ok_or_else(|| {
            let error = Error::invalid(format!("an annotation cannot stand in `{level}`"));
            let hint = did_you_mean(level, LEVELS.map(|(name, _)| name));
            error.hint(hint.unwrap_or_else(|| LEVELS.map(|(name, _)| name).join(", ")))
        })?;
        let platform: Option<Platform> = platform.map(str::parse).transpose()?;
        if platform.is_some() && matches!(level, Level::Index | Level::IndexDescriptor) {
            return Err(Error::invalid(format!("the annotation `{key}` of the index names a platform"))
                .hint("an index is of all platforms: leave the brackets out"));
        }
        Ok(Annotation { level, platform, key: key.into(), value: value.into() })
    }
}

/// `manifest[linux/amd64]`
fn split_place(place: &str) -> Option<(&str, Option<&str>)> {
    match place.split_once('[') {
        None => Some((place, None)),
        Some((level, rest)) => Some((level, Some(rest.strip_suffix(']')?))),
    }
}

/// Those of one document. What names the platform wins over what names none, the later over the earlier.
pub(super) fn of<'a>(
    all: impl IntoIterator<Item = &'a Annotation> + Clone,
    level: Level,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let fits = |annotation: &Annotation, named: bool| {
        annotation.level == level
            && match (&annotation.platform, platform) {
                (None, _) => !named,
                (Some(wanted), Some(platform)) => named && wanted.normal() == platform.normal(),
                (Some(_), None) => false,
            }
    };
    let mut found = BTreeMap::new();
    for named in [false, true] {
        let these = all.clone().into_iter().filter(|annotation| fits(annotation, named));
        found.extend(these.map(|annotation| (annotation.key.clone(), annotation.value.clone())));
    }
    found
}

/// `Invalid` where one would stand nowhere.
pub(super) fn check(all: &[&Annotation], platforms: &[Platform], index: bool) -> Result<()> {
    for annotation in all {
        if !index && matches!(annotation.level, Level::Index | Level::IndexDescriptor) {
            return Err(Error::invalid(format!(
                "the annotation `{}` belongs to an index, and an image for one platform has none",
                annotation.key
            ))
            .hint("--build-arg BUILDKIT_MULTI_PLATFORM=1 makes an index of one platform"));
        }
        if let Some(wanted) = &annotation.platform
            && !platforms.iter().any(|platform| platform.normal() == wanted.normal())
        {
            return Err(Error::invalid(format!(
                "the annotation `{}` is for {wanted}, which is not built",
                annotation.key
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(annotation: &Annotation) -> String {
        let platform = annotation.platform.as_ref().map(Platform::to_string).unwrap_or_default();
        format!("{:?} {platform} {}={}", annotation.level, annotation.key, annotation.value)
    }

    #[test]
    fn flags_and_fields_say_the_same_things() {
        for (flag, expected) in [
            ("a.b=c=d", &["Manifest  a.b=c=d"][..]),
            ("index:a=", &["Index  a="]),
            ("manifest[linux/arm64]:a=b", &["Manifest linux/arm64 a=b"]),
            ("index,manifest-descriptor:a=b", &["Index  a=b", "ManifestDescriptor  a=b"]),
        ] {
            let read: Vec<String> = Annotation::of_flag(flag).unwrap().iter().map(shown).collect();
            assert_eq!(read, expected, "{flag}");
        }
        for (key, expected) in [
            ("annotation.a.b", "Manifest  a.b=v"),
            ("annotation-index.a", "Index  a=v"),
            ("annotation[linux/amd64].a.b", "Manifest linux/amd64 a.b=v"),
            ("annotation-manifest-descriptor[linux/amd64].a", "ManifestDescriptor linux/amd64 a=v"),
        ] {
            assert_eq!(shown(&Annotation::of_field(key, "v").unwrap()), expected, "{key}");
        }
        for bad in ["a", "=b", "indx:a=b", "index[linux/amd64]:a=b", "manifest[:a=b", "manifest[x/y/z/w]:a=b"]
        {
            assert!(Annotation::of_flag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_names_the_platform_wins() {
        let all: Vec<Annotation> = ["manifest[linux/arm64]:a=arm", "a=all", "b=1", "b=2", "index:a=no"]
            .iter()
            .flat_map(|flag| Annotation::of_flag(flag).unwrap())
            .collect();
        let of = |platform: &str| of(&all, Level::Manifest, Some(&platform.parse().unwrap()));
        assert_eq!(of("linux/arm64/v8"), [("a".into(), "arm".into()), ("b".into(), "2".into())].into());
        assert_eq!(of("linux/amd64"), [("a".into(), "all".into()), ("b".into(), "2".into())].into());
    }
}
