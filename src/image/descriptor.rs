//! Descriptors: what a blob is, its digest and its size (image-spec descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::nullable;
use super::{Digest, MediaType, Platform};
use crate::error::{Error, Result};

/// Fields in the order of the spec; unknown ones are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: MediaType,
    pub digest: Digest,
    /// Bytes as stored.
    pub size: u64,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The blob itself in base64, where it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Descriptor {
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
            other: Map::new(),
        }
    }

    /// Of bytes at hand.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        let size = u64::try_from(bytes.len()).expect("memory is smaller than 2^64 bytes");
        Self::new(media_type, Digest::of(bytes), size)
    }

    /// `Corrupt` unless size and digest of `bytes` are the promised ones.
    pub fn verify(&self, bytes: &[u8]) -> Result<()> {
        let got = Descriptor::of(self.media_type.clone(), bytes);
        if got.size != self.size {
            return Err(Error::corrupt(format!(
                "{} has {} bytes where its descriptor says {}",
                self.digest, got.size, self.size
            )));
        }
        if got.digest != self.digest {
            return Err(Error::corrupt(format!("{} came with the digest {}", self.digest, got.digest)));
        }
        Ok(())
    }

    /// What BuildKit puts beside images: provenance and SBOMs, nothing that runs.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
    }
}

/// The platform of an index's entry, with what Windows adds (image-spec image-index.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlatformEntry {
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl PlatformEntry {
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
        }
    }
}

impl From<Platform> for PlatformEntry {
    fn from(platform: Platform) -> Self {
        PlatformEntry {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            ..PlatformEntry::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let text = format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{DIGEST}","size":7,"annotations":{{"a":"b"}},"platform":{{"architecture":"amd64","os":"windows","os.version":"10.0.1","os.features":["win32k"],"features":["sse4"]}},"x-new":[1,null]}}"#
        );
        let parsed: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    }

    #[test]
    fn nulls_read_as_absent() {
        let text = format!(
            r#"{{"mediaType":"x/y","size":0,"digest":"{DIGEST}","urls":null,"annotations":null,"data":null,"platform":null}}"#
        );
        let parsed: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, Descriptor::of(MediaType::Other("x/y".into()), b""));
    }

    #[test]
    fn a_negative_or_broken_size_is_refused() {
        for size in ["-1", "1.5", "\"7\"", "18446744073709551616", "null"] {
            let text = format!(r#"{{"mediaType":"x/y","digest":"{DIGEST}","size":{size}}}"#);
            assert!(serde_json::from_str::<Descriptor>(&text).is_err(), "{size}");
        }
    }

    #[test]
    fn verify_tells_a_wrong_size_from_a_wrong_digest() {
        let descriptor = Descriptor::of(MediaType::OciConfig, b"abc");
        assert!(descriptor.verify(b"abc").is_ok());
        assert!(descriptor.verify(b"ab").unwrap_err().message().contains("2 bytes"));
        assert!(descriptor.verify(b"abd").unwrap_err().message().contains("came with the digest"));
    }
}
