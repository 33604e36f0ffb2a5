//! Image manifests: OCI's and Docker's version 2, schema 2, which differ in media types alone
//! (image-spec manifest.md). A manifest's digest is over the bytes as they came: keep them beside the parsed form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::nullable;
use super::{Descriptor, Index, MediaType};
use crate::error::{Context as _, Error, Result};

/// Bytes; what registries accept and clients must be able to read (distribution-spec, "Pushing Manifests").
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes; no spec bounds a config, so the manifests' bound serves.
pub const MAX_CONFIG: u64 = 4 << 20;

/// One image: its config and its layers, bottom first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Of bytes that must be an image manifest; an index is refused.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        match Document::parse(raw, None)? {
            Document::Image(manifest) => Ok(*manifest),
            Document::Index(_) => {
                Err(Error::invalid("this is an image index where an image manifest should be"))
            }
        }
    }

    /// Compact JSON, fields in the spec's order: the same value makes the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps have text keys")
    }

    /// What it is, also where it does not say so itself.
    pub fn media_type(&self) -> MediaType {
        self.media_type.clone().unwrap_or(match self.config.media_type {
            MediaType::DockerConfig => MediaType::DockerManifest,
            _ => MediaType::OciManifest,
        })
    }

    /// Bytes of all layers as stored; `None` when the sum is beyond what a file can be.
    pub fn layers_size(&self) -> Option<u64> {
        self.layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.size))
    }

    /// `Unsupported` for what is packed as a manifest and is no container image: charts, signatures, encrypted layers.
    pub fn check_runnable(&self) -> Result<()> {
        if !self.config.media_type.is_image_config() {
            return Err(Error::unsupported(format!(
                "this is not a container image: its config is of type `{}`",
                self.artifact_type.clone().unwrap_or_else(|| self.config.media_type.to_string())
            )));
        }
        match self.layers.iter().find(|layer| !layer.media_type.is_layer()) {
            None => Ok(()),
            Some(layer) => Err(Error::unsupported(format!(
                "layer {} is of type `{}`, which outcrop cannot unpack",
                layer.digest.short(),
                layer.media_type
            ))
            .hint("layers may be tar, tar with gzip, or tar with zstd")),
        }
    }
}

/// What a name or a digest leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    Image(Box<Manifest>),
    Index(Box<Index>),
}

impl Document {
    /// `said` is what came with it: a Content-Type or a descriptor's media type. A document that contradicts it, or
    /// reads as both a manifest and an index, is refused: two readers must not see two images under one digest.
    pub fn parse(raw: &[u8], said: Option<&MediaType>) -> Result<Self> {
        /// Presence only; the members are read later.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline {
            #[serde(default, deserialize_with = "nullable")]
            schema_version: u32,
            #[serde(default)]
            media_type: Option<MediaType>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            config: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            layers: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let size = u64::try_from(raw.len()).unwrap_or(u64::MAX);
        if size > MAX_MANIFEST {
            return Err(Error::invalid(format!(
                "a manifest of {size} bytes; no more than {MAX_MANIFEST} are allowed"
            )));
        }
        let outline: Outline = serde_json::from_slice(raw).context(|| "reading a manifest")?;

        if outline.media_type == Some(MediaType::DockerSchema1)
            || outline.fs_layers.is_some()
            || outline.schema_version == 1
        {
            return Err(schema_1());
        }
        if outline.manifests.is_some() && (outline.config.is_some() || outline.layers.is_some()) {
            return Err(Error::invalid("a manifest that claims to be an image and an index at once"));
        }
        let known = |media_type: &&MediaType| media_type.is_index() || media_type.is_manifest();
        let said = said.filter(known);
        let own = outline.media_type.as_ref().filter(known);
        if let (Some(said), Some(own)) = (said, own)
            && said != own
        {
            return Err(Error::invalid(format!("a manifest served as `{said}` says that it is `{own}`")));
        }
        let shape = outline.manifests.is_some();
        let is_index = own.or(said).map_or(shape, MediaType::is_index);
        if is_index != shape && (outline.manifests.is_some() || outline.config.is_some()) {
            return Err(Error::invalid("a manifest whose media type and content disagree"));
        }
        if is_index {
            serde_json::from_slice(raw)
                .map(|index| Document::Index(Box::new(index)))
                .context(|| "reading an image index")
        } else {
            serde_json::from_slice(raw)
                .map(|image| Document::Image(Box::new(image)))
                .context(|| "reading an image manifest")
        }
    }

    pub fn media_type(&self) -> MediaType {
        match self {
            Document::Image(manifest) => manifest.media_type(),
            Document::Index(index) => index.media_type(),
        }
    }
}

fn schema_1() -> Error {
    Error::unsupported(
        "this image has a manifest of Docker's version 2, schema 1, which was retired for its weak digests",
    )
    .hint(
        "ask its publisher for a newer tag, or convert it once: \
         `skopeo copy --format v2s2 docker://NAME docker://YOUR-REGISTRY/NAME`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// As Docker writes them: three spaces, size before digest, no mediaType missing.
    fn docker_manifest() -> String {
        format!(
            r#"{{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
   "config": {{
      "mediaType": "application/vnd.docker.container.image.v1+json",
      "size": 1469,
      "digest": "{DIGEST}"
   }},
   "layers": [
      {{
         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
         "size": 2207025,
         "digest": "{DIGEST}"
      }}
   ]
}}"#
        )
    }

    #[test]
    fn docker_and_oci_manifests_are_one_type() {
        let manifest = Manifest::parse(docker_manifest().as_bytes()).unwrap();
        assert_eq!(manifest.media_type(), MediaType::DockerManifest);
        assert_eq!(manifest.config.size, 1469);
        assert_eq!(manifest.layers_size(), Some(2_207_025));
        manifest.check_runnable().unwrap();
    }

    #[test]
    fn what_we_write_reads_back_and_keeps_unknown_fields() {
        let mut manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new());
        manifest.other.insert("x-later".into(), Value::from(vec![1, 2]));
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        assert!(bytes.starts_with(
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":"#
        ));
    }

    #[test]
    fn an_oci_manifest_need_not_name_its_type() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":2}},"layers":null}}"#
        );
        let Document::Image(manifest) = Document::parse(text.as_bytes(), None).unwrap() else {
            panic!("not an image");
        };
        assert_eq!(manifest.media_type(), MediaType::OciManifest);
        assert!(manifest.layers.is_empty());
    }

    #[test]
    fn schema_1_is_refused_with_the_way_out() {
        for text in [
            r#"{"schemaVersion":1,"name":"library/x","fsLayers":[],"history":[]}"#,
            r#"{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}"#,
        ] {
            let error = Document::parse(text.as_bytes(), None).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains("schema 1"));
            assert!(error.hint_text().unwrap().contains("skopeo copy --format v2s2"));
        }
    }

    #[test]
    fn a_document_of_two_faces_is_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"config":{{"mediaType":"x","digest":"{DIGEST}","size":1}},"layers":[]}}"#
        );
        assert!(Document::parse(both.as_bytes(), None).is_err());

        let image = docker_manifest();
        assert!(Document::parse(image.as_bytes(), Some(&MediaType::DockerManifestList)).is_err());
        assert!(Document::parse(image.as_bytes(), Some(&MediaType::DockerManifest)).is_ok());

        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(Document::parse(index, Some(&MediaType::OciManifest)).is_err());
        assert!(matches!(Document::parse(index, None).unwrap(), Document::Index(_)));
    }

    #[test]
    fn too_large_and_broken_documents_are_refused() {
        let large = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
        assert!(Document::parse(&large, None).unwrap_err().message().contains("4194304"));
        for broken in ["", "[]", "null", "{", "{}", r#"{"schemaVersion":2}"#, "<html>"] {
            assert!(Document::parse(broken.as_bytes(), None).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_is_no_container_image_is_named() {
        let chart = Manifest::new(
            Descriptor::of(MediaType::Other("application/vnd.cncf.helm.config.v1+json".into()), b"{}"),
            Vec::new(),
        );
        assert!(chart.check_runnable().unwrap_err().message().contains("helm"));
        let encrypted = Manifest::new(
            Descriptor::of(MediaType::OciConfig, b"{}"),
            vec![Descriptor::of(
                MediaType::from("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
                b"",
            )],
        );
        assert!(encrypted.check_runnable().unwrap_err().message().contains("encrypted"));
    }
}
