//! Image indexes and Docker's manifest lists, and which of their entries a platform takes
//! (image-spec image-index.md).
//!
//! The rule, so that every pull of one index takes the same image:
//! 1. Only entries that can run on the wanted platform count: same system; same architecture with the same or a lower
//!    variant (`arm/v7` runs v6 and v5, `amd64/v3` runs v2 and plain amd64); then the 32-bit architecture that the
//!    wanted one also runs (amd64: 386, arm64: arm). `arm` without a variant is v7, `arm64` v8, `amd64` v1.
//! 2. The nearest wins: same architecture before 32-bit, higher variant before lower, earlier entry before later.
//! 3. Entries without a platform come after all of these, in their order.
//! 4. Attestations and other artifacts never count.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::json::nullable;
use super::{Descriptor, Digest, Document, MediaType, Platform};
use crate::error::{Error, Result};

/// One name for the images of several platforms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Text", into = "Text")]
pub struct Index {
    pub schema_version: u32,
    pub media_type: Option<MediaType>,
    pub artifact_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    /// Entries with digests that cannot be verified here. Written again, they come last.
    pub unread: Vec<Unread>,
    pub subject: Option<Box<Descriptor>>,
    pub annotations: BTreeMap<String, String>,
    pub other: Map<String, Value>,
}

/// An entry whose digest is of another algorithm than SHA-256.
#[derive(Clone, Debug, PartialEq)]
pub struct Unread {
    pub digest: String,
    /// As it would be with a digest of ours, which it does not have.
    like: Descriptor,
    whole: Value,
}

impl Unread {
    /// `Unsupported`: it is the one that is wanted.
    pub fn refuse(&self) -> Error {
        Error::unsupported(format!("the index lists an image as `{}`; only sha256 is supported", self.digest))
    }
}

/// An index as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<MediaType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    manifests: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Box<Descriptor>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Clone)]
enum Entry {
    Read(Box<Descriptor>),
    Unread(Box<Unread>),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Read(entry) => entry.serialize(serializer),
            Entry::Unread(entry) => entry.whole.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Value::deserialize(deserializer)?;
        let read = |value: Value| Descriptor::deserialize(value).map_err(D::Error::custom);
        let digest = whole.get("digest").and_then(Value::as_str).unwrap_or_default();
        match digest.split_once(':') {
            Some((algorithm, _)) if !algorithm.is_empty() && algorithm != "sha256" => {
                let digest = digest.to_owned();
                let mut like = whole.clone();
                like["digest"] = Value::String(Digest::of(digest.as_bytes()).to_string());
                Ok(Entry::Unread(Box::new(Unread { digest, like: read(like)?, whole })))
            }
            _ => Ok(Entry::Read(Box::new(read(whole)?))),
        }
    }
}

impl From<Text> for Index {
    fn from(text: Text) -> Self {
        let Text {
            schema_version,
            media_type,
            artifact_type,
            manifests: entries,
            subject,
            annotations,
            other,
        } = text;
        let (mut manifests, mut unread) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Read(entry) => manifests.push(*entry),
                Entry::Unread(entry) => unread.push(*entry),
            }
        }
        Index { schema_version, media_type, artifact_type, manifests, unread, subject, annotations, other }
    }
}

impl From<Index> for Text {
    fn from(index: Index) -> Self {
        let Index {
            schema_version,
            media_type,
            artifact_type,
            manifests,
            unread,
            subject,
            annotations,
            other,
        } = index;
        let read = manifests.into_iter().map(|entry| Entry::Read(Box::new(entry)));
        let manifests = read.chain(unread.into_iter().map(|entry| Entry::Unread(Box::new(entry)))).collect();
        Text { schema_version, media_type, artifact_type, manifests, subject, annotations, other }
    }
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Index {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            artifact_type: None,
            manifests,
            unread: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Of bytes that must be an index; an image manifest is refused.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        match Document::parse(raw, None)? {
            Document::Index(index) => Ok(*index),
            Document::Image(_) => {
                Err(Error::invalid("this is an image manifest where an image index should be"))
            }
        }
    }

    /// Compact JSON, fields in the spec's order.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps have text keys")
    }

    /// What it is, also where it does not say so itself.
    pub fn media_type(&self) -> MediaType {
        self.media_type.clone().unwrap_or(MediaType::OciIndex)
    }

    /// The entry that `platform` takes; may be an index in turn. `NotFound` lists what there is.
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor> {
        let images = || {
            let read = self.manifests.iter().map(|entry| (entry, None));
            let all = read.chain(self.unread.iter().map(|entry| (&entry.like, Some(entry))));
            all.filter(|(entry, _)| {
                !entry.is_attestation() && (entry.media_type.is_manifest() || entry.media_type.is_index())
            })
        };
        let nearest = images()
            .filter_map(|(entry, unread)| {
                let distance = match &entry.platform {
                    Some(offered) => distance(platform, &offered.platform())?,
                    None => (2, Reverse((0, 0))),
                };
                Some((distance, entry, unread))
            })
            // min_by_key keeps the first of equals.
            .min_by_key(|(distance, ..)| *distance);
        if let Some((_, _, Some(unread))) = nearest {
            return Err(unread.refuse());
        }
        nearest.map(|(_, entry, _)| entry).ok_or_else(|| {
            let offered: Vec<String> = images()
                .filter_map(|(entry, _)| Some(entry.platform.as_ref()?.platform().to_string()))
                .collect();
            let error = Error::not_found(format!("there is no image for {platform} under this name"));
            if offered.is_empty() {
                error.hint("its index lists no image at all")
            } else {
                error.hint(format!("choose with --platform; there is {}", offered.join(", ")))
            }
        })
    }
}

/// Less is nearer: architecture, then variant. `None` where the offered cannot run on the wanted.
fn distance(wanted: &Platform, offered: &Platform) -> Option<(u8, Reverse<(u32, u32)>)> {
    let (wanted, offered) = (wanted.normal(), offered.normal());
    if wanted.os != offered.os {
        return None;
    }
    let level = |platform: &Platform| version(&platform.variant);
    match (wanted.architecture.as_str(), offered.architecture.as_str()) {
        (w, o) if w == o => {
            if wanted.variant == offered.variant {
                // Also for variants that are no number.
                return Some((0, Reverse((u32::MAX, 0))));
            }
            let (limit, level) = (level(&wanted)?, level(&offered)?);
            (level <= limit).then_some((0, Reverse(level)))
        }
        ("amd64", "386") => Some((1, Reverse((0, 0)))),
        ("arm64", "arm") => {
            let level = level(&offered)?;
            (level <= (8, 0)).then_some((1, Reverse(level)))
        }
        _ => None,
    }
}

/// `v8.2` as (8, 2). No variant is (0, 0), below all others.
fn version(variant: &str) -> Option<(u32, u32)> {
    if variant.is_empty() {
        return Some((0, 0));
    }
    let number = variant.strip_prefix('v')?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::image::PlatformEntry;

    /// An index with one entry per platform, each told apart by its size.
    fn index(platforms: &[&str]) -> Index {
        let entries = platforms.iter().zip(1..).map(|(text, size)| {
            let mut entry = Descriptor::of(MediaType::OciManifest, text.as_bytes());
            entry.size = size;
            entry.platform = match *text {
                "" => None,
                "unknown/unknown" => Some(PlatformEntry {
                    os: "unknown".into(),
                    architecture: "unknown".into(),
                    ..Default::default()
                }),
                text => {
                    let mut parts = text.split('/').map(str::to_owned);
                    Some(PlatformEntry {
                        os: parts.next().unwrap(),
                        architecture: parts.next().unwrap(),
                        variant: parts.next().unwrap_or_default(),
                        ..Default::default()
                    })
                }
            };
            entry
        });
        Index::new(entries.collect())
    }

    fn pick<'a>(offered: &[&'a str], wanted: &str) -> Option<&'a str> {
        let index = index(offered);
        let platform: Platform = wanted.parse().unwrap();
        match index.select(&platform) {
            Ok(entry) => Some(offered[usize::try_from(entry.size).unwrap() - 1]),
            Err(error) => {
                assert_eq!(error.kind(), Kind::NotFound);
                None
            }
        }
    }

    #[test]
    fn an_entry_with_a_digest_of_another_algorithm_is_refused_where_it_is_the_one_and_kept() {
        let entry = |digest: &str, architecture: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,"platform":{{"architecture":"{architecture}","os":"linux"}},"x-new":1}}"#
            )
        };
        let ours = format!("sha256:{}", "a".repeat(64));
        let other = format!("sha512:{}", "b".repeat(128));
        let text =
            |first: &str, second: &str| format!(r#"{{"schemaVersion":2,"manifests":[{first},{second}]}}"#);
        let (amd64, arm64) = (entry(&ours, "amd64"), entry(&other, "arm64"));
        let index = Index::parse(text(&arm64, &amd64).as_bytes()).unwrap();
        assert_eq!(index.select(&"linux/amd64".parse().unwrap()).unwrap().digest.to_string(), ours);
        let refused = index.select(&"linux/arm64".parse().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unsupported);
        assert!(refused.message().contains(&other), "{refused}");
        let missing = index.select(&"linux/s390x".parse().unwrap()).unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        assert_eq!(missing.hint_text(), Some("choose with --platform; there is linux/amd64, linux/arm64"));
        assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), text(&amd64, &arm64));
        // What is wrong in another way is no entry at all.
        assert!(Index::parse(text(&arm64, &entry("sha256:abc", "amd64")).as_bytes()).is_err());
        assert!(Index::parse(text(&arm64.replace('7', "-7"), &amd64).as_bytes()).is_err());
    }

    #[test]
    fn the_nearest_platform_wins() {
        let arms = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64"];
        for (offered, wanted, expected) in [
            (&arms[..], "linux/amd64", Some("linux/amd64")),
            (&arms, "linux/arm64", Some("linux/arm64/v8")),
            (&arms, "linux/arm64/v8", Some("linux/arm64/v8")),
            (&arms, "linux/arm64/v9", Some("linux/arm64/v8")),
            (&arms, "linux/arm", Some("linux/arm/v7")),
            (&arms, "linux/arm/v7", Some("linux/arm/v7")),
            (&arms, "linux/arm/v6", Some("linux/arm/v6")),
            (&arms, "linux/arm/v8", Some("linux/arm/v7")),
            (&arms, "linux/s390x", None),
            (&arms, "windows/amd64", None),
            (&arms[..2], "linux/arm/v7", Some("linux/arm/v6")),
            (&arms[1..3], "linux/arm/v5", None),
            // amd64's levels
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["linux/amd64/v3"], "linux/amd64", None),
            (
                &["linux/amd64", "linux/amd64/v4", "linux/amd64/v2", "linux/amd64/v3"],
                "linux/amd64/v3",
                Some("linux/amd64/v3"),
            ),
            (&["linux/amd64", "linux/amd64/v4", "linux/amd64/v2"], "linux/amd64/v3", Some("linux/amd64/v2")),
            (&["linux/amd64/v1"], "linux/amd64", Some("linux/amd64/v1")),
            // 32-bit last
            (&["linux/386", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["linux/386"], "linux/amd64", Some("linux/386")),
            (&["linux/amd64"], "linux/386", None),
            (&["linux/arm/v6", "linux/arm/v7"], "linux/arm64", Some("linux/arm/v7")),
            // other names of an architecture
            (&["linux/x86_64"], "linux/amd64", Some("linux/x86_64")),
            (&["linux/aarch64"], "linux/arm64", Some("linux/aarch64")),
            // a variant that is no number
            (&["linux/mips64le/softfloat"], "linux/mips64le/softfloat", Some("linux/mips64le/softfloat")),
            (&["linux/mips64le/softfloat"], "linux/mips64le", None),
            // without a platform
            (&["", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["", "linux/arm64"], "linux/amd64", Some("")),
            // attestations
            (&["unknown/unknown"], "linux/amd64", None),
        ] {
            assert_eq!(pick(offered, wanted), expected, "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn of_equals_the_first_wins() {
        let mut twice = index(&["linux/amd64", "linux/amd64"]);
        assert_eq!(twice.select(&"linux/amd64".parse().unwrap()).unwrap().size, 1);
        twice.manifests.reverse();
        assert_eq!(twice.select(&"linux/amd64".parse().unwrap()).unwrap().size, 2);
    }

    #[test]
    fn a_missing_platform_lists_what_there_is() {
        let error = index(&["linux/arm64/v8", "linux/s390x", "unknown/unknown"])
            .select(&"linux/amd64".parse().unwrap())
            .unwrap_err();
        assert_eq!(error.message(), "there is no image for linux/amd64 under this name");
        assert_eq!(error.hint_text(), Some("choose with --platform; there is linux/arm64/v8, linux/s390x"));
    }

    #[test]
    fn attestations_by_annotation_are_passed_over() {
        let mut index = index(&["linux/amd64", "linux/amd64"]);
        index.manifests[0]
            .annotations
            .insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        assert_eq!(index.select(&"linux/amd64".parse().unwrap()).unwrap().size, 2);
    }

    #[test]
    fn a_docker_manifest_list_reads_and_keeps_what_it_does_not_know() {
        let text = concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","#,
            r#""manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","#,
            r#""digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":528,"#,
            r#""platform":{"architecture":"amd64","os":"linux","features":["sse4"]}}],"x":{"y":null}}"#
        );
        let parsed = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.media_type(), MediaType::DockerManifestList);
        assert_eq!(String::from_utf8(parsed.to_bytes()).unwrap(), text);
    }
}
