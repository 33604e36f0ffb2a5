//! Media types (image-spec media-types.md; Docker's image manifest version 2, schema 2).

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a blob is. Types nobody here knows are kept as `Other`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    OciIndex,
    OciManifest,
    OciConfig,
    OciLayer(Compression),
    /// Layers that licences keep from being pushed; the spec deprecates them.
    OciForeignLayer(Compression),
    /// The two bytes `{}`.
    OciEmpty,
    DockerManifestList,
    DockerManifest,
    DockerConfig,
    DockerLayer(Compression),
    DockerForeignLayer(Compression),
    /// Version 2, schema 1, signed or not: recognised only to be refused.
    DockerSchema1,
    Other(String),
}

/// What a layer's media type promises. The bytes decide: registries hold zstd under gzip's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

const DOCKER: &str = "application/vnd.docker.";
const OCI: &str = "application/vnd.oci.";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

impl MediaType {
    /// What a registry is asked for when a name or a manifest's digest is looked up.
    pub const MANIFESTS: [MediaType; 4] = [
        MediaType::OciIndex,
        MediaType::OciManifest,
        MediaType::DockerManifestList,
        MediaType::DockerManifest,
    ];

    pub fn is_index(&self) -> bool {
        matches!(self, MediaType::OciIndex | MediaType::DockerManifestList)
    }
    /// An image manifest, not an index.
    pub fn is_manifest(&self) -> bool {
        matches!(self, MediaType::OciManifest | MediaType::DockerManifest)
    }
    pub fn is_image_config(&self) -> bool {
        matches!(self, MediaType::OciConfig | MediaType::DockerConfig)
    }
    pub fn is_layer(&self) -> bool {
        self.compression().is_some()
    }
    /// Layers that may have to be fetched from a descriptor's `urls`.
    pub fn is_foreign(&self) -> bool {
        matches!(self, MediaType::OciForeignLayer(_) | MediaType::DockerForeignLayer(_))
    }
    /// `None` for what is no layer.
    pub fn compression(&self) -> Option<Compression> {
        match self {
            MediaType::OciLayer(compression)
            | MediaType::OciForeignLayer(compression)
            | MediaType::DockerLayer(compression)
            | MediaType::DockerForeignLayer(compression) => Some(*compression),
            _ => None,
        }
    }
    /// Reads an HTTP `Content-Type`: without parameters, in lower case.
    pub fn from_header(text: &str) -> Self {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        MediaType::from(essence.as_str())
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> Self {
        let compressed = |stem: &str| {
            text.strip_prefix(stem).and_then(|suffix| match suffix {
                "" => Some(Compression::None),
                "+gzip" | ".gzip" => Some(Compression::Gzip),
                "+zstd" | ".zstd" => Some(Compression::Zstd),
                _ => None,
            })
        };
        match text.strip_prefix(OCI) {
            Some("image.index.v1+json") => return MediaType::OciIndex,
            Some("image.manifest.v1+json") => return MediaType::OciManifest,
            Some("image.config.v1+json") => return MediaType::OciConfig,
            Some("empty.v1+json") => return MediaType::OciEmpty,
            _ => {}
        }
        match text.strip_prefix(DOCKER) {
            Some("distribution.manifest.list.v2+json") => return MediaType::DockerManifestList,
            Some("distribution.manifest.v2+json") => return MediaType::DockerManifest,
            Some("distribution.manifest.v1+json" | "distribution.manifest.v1+prettyjws") => {
                return MediaType::DockerSchema1;
            }
            Some("container.image.v1+json") => return MediaType::DockerConfig,
            _ => {}
        }
        if let Some(compression) = compressed(OCI_LAYER) {
            MediaType::OciLayer(compression)
        } else if let Some(compression) = compressed(OCI_FOREIGN) {
            MediaType::OciForeignLayer(compression)
        } else if let Some(compression) = compressed(DOCKER_LAYER) {
            MediaType::DockerLayer(compression)
        } else if let Some(compression) = compressed(DOCKER_FOREIGN) {
            MediaType::DockerForeignLayer(compression)
        } else {
            MediaType::Other(text.to_owned())
        }
    }
}

impl FromStr for MediaType {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |compression: &Compression, separator: &str| match compression {
            Compression::None => String::new(),
            Compression::Gzip => format!("{separator}gzip"),
            Compression::Zstd => format!("{separator}zstd"),
        };
        match self {
            MediaType::OciIndex => write!(f, "{OCI}image.index.v1+json"),
            MediaType::OciManifest => write!(f, "{OCI}image.manifest.v1+json"),
            MediaType::OciConfig => write!(f, "{OCI}image.config.v1+json"),
            MediaType::OciEmpty => write!(f, "{OCI}empty.v1+json"),
            MediaType::OciLayer(c) => write!(f, "{OCI_LAYER}{}", suffix(c, "+")),
            MediaType::OciForeignLayer(c) => write!(f, "{OCI_FOREIGN}{}", suffix(c, "+")),
            MediaType::DockerManifestList => write!(f, "{DOCKER}distribution.manifest.list.v2+json"),
            MediaType::DockerManifest => write!(f, "{DOCKER}distribution.manifest.v2+json"),
            MediaType::DockerConfig => write!(f, "{DOCKER}container.image.v1+json"),
            MediaType::DockerLayer(c) => write!(f, "{DOCKER_LAYER}{}", suffix(c, ".")),
            MediaType::DockerForeignLayer(c) => write!(f, "{DOCKER_FOREIGN}{}", suffix(c, ".")),
            MediaType::DockerSchema1 => write!(f, "{DOCKER}distribution.manifest.v1+json"),
            MediaType::Other(text) => f.write_str(text),
        }
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(MediaType::from(text.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_from_its_own_text() {
        for text in [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.empty.v1+json",
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.distribution.manifest.v1+json",
        ] {
            let parsed = MediaType::from(text);
            assert!(!matches!(parsed, MediaType::Other(_)), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(
            MediaType::from("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            MediaType::DockerSchema1
        );
        let helm = "application/vnd.cncf.helm.config.v1+json";
        assert_eq!(MediaType::from(helm), MediaType::Other(helm.into()));
    }

    #[test]
    fn a_content_type_is_read_without_its_parameters() {
        assert_eq!(
            MediaType::from_header("Application/vnd.oci.image.index.v1+json; charset=utf-8"),
            MediaType::OciIndex
        );
    }

    #[test]
    fn compression_is_what_the_name_promises() {
        let of = |text: &str| MediaType::from(text).compression();
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar"), Some(Compression::None));
        assert_eq!(of("application/vnd.docker.image.rootfs.diff.tar.gzip"), Some(Compression::Gzip));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd"), Some(Compression::Zstd));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), None);
        assert_eq!(of("application/vnd.oci.image.config.v1+json"), None);
    }
}
