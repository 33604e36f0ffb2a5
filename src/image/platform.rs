//! Platforms: `os/architecture[/variant]` (image-spec image-index.md, "platform").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::json::nullable;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The platform this binary was built for, in Go's names.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant: String::new() }
    }

    /// One spelling per platform: Go's names, and `v1`, `v7`, `v8` written as nothing where they are the default
    /// (`arm` becomes `arm/v7` instead, as its variants have a number in every list).
    #[must_use]
    pub fn normal(&self) -> Self {
        let architecture = match self.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "i386" | "i486" | "i586" | "i686" | "x86" => "386".to_owned(),
            "armhf" => "arm".to_owned(),
            "armel" => {
                return Platform { architecture: "arm".into(), os: self.os.clone(), variant: "v6".into() };
            }
            other => other.to_owned(),
        };
        let variant = self.variant.to_ascii_lowercase();
        let variant = match (architecture.as_str(), variant.as_str()) {
            ("amd64", "v1") => String::new(),
            ("arm64", "8" | "v8" | "v8.0") => String::new(),
            ("arm", "") => "v7".to_owned(),
            ("arm", "5" | "6" | "7" | "8") => format!("v{variant}"),
            _ => variant,
        };
        Platform { architecture, os: self.os.to_ascii_lowercase(), variant }
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("`{text}` is not a platform"))
                .hint("write os/architecture[/variant], as in linux/arm64 or linux/arm/v7")
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| {
            part.is_empty()
                || part.starts_with('.')
                || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }) {
            return Err(bad());
        }
        let arch = |name: &str| match name {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        match parts[..] {
            [os @ ("linux" | "windows" | "darwin" | "freebsd" | "wasip1")] => {
                Ok(Platform { os: os.into(), ..Platform::host() })
            }
            [architecture] => {
                Ok(Platform { architecture: arch(architecture), os: "linux".into(), variant: String::new() })
            }
            [os, architecture] => {
                Ok(Platform { architecture: arch(architecture), os: os.into(), variant: String::new() })
            }
            [os, architecture, variant] => {
                Ok(Platform { architecture: arch(architecture), os: os.into(), variant: variant.into() })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_read_as_people_write_them() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "/", "linux/", "/amd64", "linux/arm/v7/x", "li nux/amd64", "linux/../x"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_normal_form_has_one_spelling() {
        for (text, expected) in [
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/i686", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().normal().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_null_variant_is_none() {
        let parsed: Platform =
            serde_json::from_str(r#"{"architecture":"amd64","os":"linux","variant":null}"#).unwrap();
        assert_eq!(parsed, "linux/amd64".parse().unwrap());
    }
}
