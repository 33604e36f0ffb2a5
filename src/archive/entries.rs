//! The entries of a layout's `index.json` (image-spec image-layout.md): which one a name means, which are images, and
//! which refer to another.

use super::write::{NAME, REF_NAME};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Document, Index, Reference};
use crate::registry::referrers_tag;

/// Not what was written beside an image: signatures, SBOMs.
pub(super) fn is_image(entry: &Descriptor) -> bool {
    entry.artifact_type.is_none() && !names_of(entry).any(is_referrers_tag)
}

/// As [`referrers_tag`] makes them, and with what cosign puts behind: `.sig`, `.att`, `.sbom`.
fn is_referrers_tag(text: &str) -> bool {
    let hex = text.strip_prefix("sha256-").map(|rest| rest.split('.').next().unwrap_or_default());
    hex.is_some_and(|hex| Digest::from_hex(hex).is_some())
}

/// The entry of this very tag.
pub(super) fn tagged(entries: &[Descriptor], tag: &str) -> Option<Descriptor> {
    entries.iter().find(|entry| names_of(entry).any(|name| name == tag)).cloned()
}

/// The full name first.
pub(super) fn names_of(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [NAME, REF_NAME].iter().filter_map(|key| entry.annotations.get(*key)).map(String::as_str)
}

/// By digest, by the very text, by the name that it reads as, by the tag of a full name.
pub(super) fn choose(entries: &[Descriptor], text: Option<&str>, place: &str) -> Result<Descriptor> {
    let Some(text) = text else { return only(entries, place) };
    let digest = text.strip_prefix('@').unwrap_or(text).parse::<Digest>().ok();
    let name: Option<Reference> = text.parse().ok();
    let same =
        |other: &str| name.as_ref().is_some_and(|name| other.parse().is_ok_and(|o: Reference| o == *name));
    let tag =
        |other: &str| other.contains('/') && other.parse().is_ok_and(|o: Reference| o.tag() == Some(text));
    let ways: [&dyn Fn(&Descriptor) -> bool; 4] = [
        &|entry| Some(entry.digest) == digest,
        &|entry| names_of(entry).any(|other| other == text),
        &|entry| names_of(entry).any(same),
        &|entry| names_of(entry).any(tag),
    ];
    for way in ways {
        let mut found: Vec<&Descriptor> = entries.iter().filter(|entry| way(entry)).collect();
        found.dedup_by_key(|entry| entry.digest);
        match found.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            many => {
                return Err(Error::conflict(format!("`{text}` names {} images in {place}", many.len()))
                    .hint("name one by its digest: sha256:..."));
            }
        }
    }
    Err(with_names(Error::not_found(format!("{place} does not have `{text}`")), entries))
}

fn only(entries: &[Descriptor], place: &str) -> Result<Descriptor> {
    let mut images: Vec<&Descriptor> = entries.iter().filter(|entry| is_image(entry)).collect();
    images.dedup_by_key(|entry| entry.digest);
    match images.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::not_found(format!("there is no image in {place}"))),
        many => {
            let error = Error::conflict(format!("there are {} images in {place}: which one?", many.len()));
            Err(with_names(error, entries))
        }
    }
}

fn with_names(error: Error, entries: &[Descriptor]) -> Error {
    let images = entries.iter().filter(|entry| is_image(entry));
    let name =
        |entry: &Descriptor| names_of(entry).next().map_or_else(|| entry.digest.to_string(), str::to_owned);
    let mut names: Vec<String> = images.map(name).collect();
    names.dedup();
    if names.is_empty() { error } else { error.hint(format!("it has {}", names.join(", "))) }
}

/// Those whose manifest says so, and those that an index under the tag for it lists. `read`: `None` where the manifest
/// is not there.
pub(super) fn referrers(
    entries: &[Descriptor],
    subject: &Digest,
    read: impl Fn(&Descriptor) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<Descriptor>> {
    let mut found: Vec<Descriptor> = Vec::new();
    let tag = referrers_tag(subject);
    for entry in entries {
        if names_of(entry).any(|name| name == tag) {
            let listed = read(entry)?.and_then(|raw| Index::parse(&raw).ok());
            found.extend(listed.map(|index| index.manifests).unwrap_or_default());
        } else if names_of(entry).next().is_none()
            && let Some(raw) = read(entry)?
        {
            let of = match Document::parse(&raw, None) {
                Ok(Document::Image(manifest)) => manifest.subject,
                Ok(Document::Index(index)) => index.subject,
                Err(_) => None,
            };
            found.extend(of.filter(|of| of.digest == *subject).map(|_| entry.clone()));
        }
    }
    found.dedup_by_key(|entry| entry.digest);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::write::{named, tagged};
    use super::*;
    use crate::image::MediaType;

    #[test]
    fn a_name_means_one_entry() {
        let entry = |text: &str| Descriptor::of(MediaType::OciManifest, text.as_bytes());
        let entries = [
            tagged(entry("a"), "v1"),
            named(entry("b"), &"reg.test/app:v2".parse().unwrap()),
            tagged(entry("c"), "reg.test/other:v3"),
            entry("d"),
            tagged(entry("list"), &referrers_tag(&Digest::of(b"a"))),
        ];
        let chosen = |text: Option<&str>| choose(&entries, text, "it").map(|entry| entry.digest);
        for (text, bytes) in [
            ("v1", "a"),
            ("v2", "b"),
            ("reg.test/app:v2", "b"),
            ("reg.test/other:v3", "c"),
            ("v3", "c"),
            (&Digest::of(b"d").to_string(), "d"),
        ] {
            assert_eq!(chosen(Some(text)).unwrap(), Digest::of(bytes.as_bytes()), "{text}");
        }
        let error = chosen(Some("v9")).unwrap_err();
        assert!(error.hint_text().unwrap().starts_with("it has v1, reg.test/app:v2, "), "{error}");
        assert!(chosen(None).unwrap_err().message().contains("4 images"));
        let one = [entries[0].clone(), entries[4].clone()];
        assert_eq!(choose(&one, None, "it").unwrap().digest, Digest::of(b"a"));
    }
}
