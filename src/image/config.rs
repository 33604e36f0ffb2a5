//! The image config (image-spec config.md, Docker image spec v1.2). Fields in the order BuildKit writes them (by name at
//! the top, where it passes through a map; as declared below); unknown ones survive a round trip.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::nullable;
use super::{ChainId, DiffId, Platform};
use crate::error::{Context as _, Error, Result};

/// What an image's id is over. Times are RFC 3339 text, kept as they came.
///
/// The id is over the bytes: an image that came from elsewhere keeps its bytes, and `to_bytes` makes those of a new one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ImageConfig {
    /// Of a config's bytes; `Invalid` for anything else.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(raw).context(|| "reading an image config")?;
        if config.rootfs.kind != "layers" {
            return Err(Error::unsupported(format!(
                "an image config with a root filesystem of type `{}`",
                config.rootfs.kind
            )));
        }
        Ok(config)
    }

    /// Compact JSON: the same value makes the same bytes, and so the same image id.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps have text keys")
    }

    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
        }
    }

    /// The whole stack; `None` for an image without layers.
    pub fn chain(&self) -> Option<ChainId> {
        ChainId::of(&self.rootfs.diff_ids)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default = "layers")]
    pub kind: String,
    /// Bottom first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<DiffId>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for RootFs {
    fn default() -> Self {
        RootFs { kind: layers(), diff_ids: Vec::new(), other: Map::new() }
    }
}

fn layers() -> String {
    "layers".into()
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// How a container of the image runs (config.md, "config"; then Docker's additions, as BuildKit orders them).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Keys `port/proto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Durations in nanoseconds, 0 for the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", arg..]` or `["CMD-SHELL", line]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub retries: i64,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn round_trip(text: &str) -> String {
        String::from_utf8(ImageConfig::parse(text.as_bytes()).unwrap().to_bytes()).unwrap()
    }

    /// As BuildKit writes an image with every field it has.
    #[test]
    fn a_buildkit_config_keeps_its_bytes() {
        let text = format!(
            concat!(
                r#"{{"architecture":"arm64","author":"me","config":{{"User":"app","ExposedPorts":{{"80/tcp":{{}}}},"#,
                r#""Env":["PATH=/bin"],"Entrypoint":["/e"],"Cmd":["c"],"Volumes":{{"/v":{{}}}},"WorkingDir":"/w","#,
                r#""Labels":{{"a":"b"}},"StopSignal":"SIGINT","ArgsEscaped":true,"Healthcheck":{{"Test":["CMD","true"],"#,
                r#""Interval":30000000000,"Timeout":1,"StartPeriod":2,"StartInterval":3,"Retries":4}},"#,
                r#""OnBuild":["RUN x"],"StopTimeout":7,"Shell":["/bin/bash","-c"]}},"#,
                r#""created":"2024-01-02T03:04:05.123456789Z","#,
                r#""history":[{{"created":"2024-01-02T03:04:05Z","created_by":"RUN x # buildkit","comment":"buildkit.dockerfile.v0"}},"#,
                r#"{{"created_by":"CMD [\"c\"]","empty_layer":true}}],"#,
                r#""os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}},"variant":"v8","#,
                r#""moby.buildkit.cache.v0":"e30="}}"#
            ),
            HEX
        );
        assert_eq!(round_trip(&text), text);
    }

    /// As the classic engine wrote them: every field of its container config, nulls for what is empty.
    #[test]
    fn a_classic_config_reads_nulls_and_keeps_what_only_docker_knows() {
        let run = concat!(
            r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"#,
            r#""Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Healthcheck":null,"#,
            r#""ArgsEscaped":true,"Image":"sha256:abc","Volumes":null,"WorkingDir":"","Entrypoint":null,"#,
            r#""OnBuild":null,"Labels":null}"#
        );
        let text = format!(
            concat!(
                r#"{{"architecture":"amd64","config":{},"container":"0123","container_config":{},"created":null,"#,
                r#""docker_version":"20.10.23","history":null,"os":"linux","parent":"sha256:{}","#,
                r#""rootfs":{{"type":"layers","diff_ids":null}}}}"#
            ),
            run, run, HEX
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.cmd, None);
        assert!(config.config.args_escaped);
        assert_eq!(config.rootfs, RootFs::default());
        assert_eq!(config.chain(), None);
        let again: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        let first: Value = serde_json::from_str(&text).unwrap();
        for key in ["container", "container_config", "docker_version", "parent"] {
            assert_eq!(again[key], first[key], "{key}");
        }
        for key in ["Hostname", "AttachStdin", "Image", "StdinOnce"] {
            assert_eq!(again["config"][key], first["config"][key], "{key}");
        }
        assert_eq!(ImageConfig::parse(&config.to_bytes()).unwrap(), config);
    }

    #[test]
    fn an_empty_list_is_not_null() {
        let text = r#"{"architecture":"amd64","config":{"Entrypoint":[],"Cmd":[]},"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.entrypoint, Some(Vec::new()));
        assert_eq!(round_trip(text), text);
    }

    #[test]
    fn every_field_may_be_null() {
        let text = concat!(
            r#"{"architecture":null,"author":null,"config":{"User":null,"ExposedPorts":null,"WorkingDir":null,"#,
            r#""StopSignal":null,"ArgsEscaped":null,"StopTimeout":null,"Shell":null,"Healthcheck":{"Test":null,"#,
            r#""Interval":null,"Retries":null}},"history":[{"created":null,"empty_layer":null,"comment":null}],"#,
            r#""os":null,"variant":null,"rootfs":{"type":"layers","diff_ids":[]}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.history, [History::default()]);
        assert_eq!(config.config.healthcheck, Some(Healthcheck::default()));
        let bare = r#"{"config":null,"rootfs":{"diff_ids":null}}"#;
        assert_eq!(ImageConfig::parse(bare.as_bytes()).unwrap(), ImageConfig::default());
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"rootfs":{"type":"tape","diff_ids":[]}}"#,
            r#"{"rootfs":{"diff_ids":["x"]}}"#,
        ] {
            assert!(ImageConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    /// Ids must not move between versions of outcrop: caches and tags hang on them.
    #[test]
    fn the_bytes_of_a_new_config_are_pinned() {
        let mut config =
            ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..Default::default() };
        config.config.env = Some(vec!["PATH=/usr/bin".into()]);
        config.rootfs.diff_ids.push(DiffId(Digest::of(b"")));
        assert_eq!(
            String::from_utf8(config.to_bytes()).unwrap(),
            format!(
                r#"{{"architecture":"amd64","config":{{"Env":["PATH=/usr/bin"]}},"os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{HEX}"]}}}}"#
            )
        );
    }
}
