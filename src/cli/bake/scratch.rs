//! A target's words for `build`, and the files that pass between targets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args as _, FromArgMatches as _};
use outcrop::bake::Request;
use outcrop::error::{Context as _, Error, Result};

use super::super::build;
use super::Args;

/// Granted for all targets, not asked for by one.
const LOCAL_DELETE: &str = "buildx.local.delete";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An image for those who build on it.
    Link,
    /// What the target itself says.
    Asked,
}

/// Where image ids come back and Dockerfiles of targets stand; removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("outcrop-bake-{}", std::process::id()));
        std::fs::create_dir(&dir).context(|| format!("making `{}`", dir.display()))?;
        Ok(Scratch(dir))
    }

    /// The same words that a person would type, read by the same parser.
    pub(super) fn args(
        &self,
        request: &Request,
        bake: &Args,
        links: &BTreeMap<String, String>,
        purpose: Purpose,
    ) -> Result<build::Args> {
        let mut words = request.words.clone();
        if let Some(text) = &request.inline {
            let file = self.0.join(format!("{}.Dockerfile", request.target));
            std::fs::write(&file, text).context(|| format!("writing `{}`", file.display()))?;
            words.push(format!("--file={}", file.display()));
        }
        for (name, image) in links {
            words.push(format!("--build-context={name}={image}"));
        }
        if purpose == Purpose::Asked {
            words.extend(request.delivery.iter().cloned());
            words.extend(request.call.iter().map(|call| format!("--call={call}")));
            if bake.metadata_file.is_some() {
                words.push(format!("--metadata-file={}", self.metadata_file(request).display()));
            }
        }
        if purpose == Purpose::Link && request.several_platforms {
            words.push(format!("--output=type=oci,tar=false,dest={}", self.layout(request).display()));
        }
        if bake.allow.iter().any(|granted| granted == LOCAL_DELETE) {
            words.push(format!("--allow={LOCAL_DELETE}"));
        }
        words.push(format!("--iidfile={}", self.id_file(request).display()));
        let progress = clap::ValueEnum::to_possible_value(&bake.progress).expect("none is hidden");
        words.push(format!("--progress={}", progress.get_name()));
        words.extend(["--".to_owned(), request.context.clone()]);
        parse(&words).map_err(|error| {
            let target = format!("target `{}`", request.target);
            match error.kind() {
                ErrorKind::UnknownArgument => {
                    let flag = match error.get(ContextKind::InvalidArg) {
                        Some(ContextValue::String(flag)) => flag.clone(),
                        _ => "a flag".to_owned(),
                    };
                    let say = format!("`outcrop build {flag}` is not supported by this version");
                    Error::unsupported(target).because(Error::unsupported(say))
                }
                _ => {
                    let text = error.render().to_string();
                    let said = text.lines().next().unwrap_or_default().to_owned();
                    let said = said.strip_prefix("error: ").unwrap_or(&said).to_owned();
                    Error::invalid(target).because(Error::invalid(said))
                }
            }
        })
    }

    fn id_file(&self, request: &Request) -> PathBuf {
        self.0.join(format!("{}.id", request.target))
    }

    fn layout(&self, request: &Request) -> PathBuf {
        self.0.join(format!("{}.layout", request.target))
    }

    /// As a context is named: the image, or a layout of those for several platforms.
    pub(super) fn made(&self, request: &Request) -> Result<String> {
        if request.several_platforms {
            return Ok(format!("oci-layout://{}", self.layout(request).display()));
        }
        let text = std::fs::read_to_string(self.id_file(request))
            .context(|| format!("target `{}`: reading its image's id", request.target))?;
        Ok(format!("docker-image://{}", text.trim()))
    }

    fn metadata_file(&self, request: &Request) -> PathBuf {
        self.0.join(format!("{}.json", request.target))
    }

    pub(super) fn metadata(&self, request: &Request) -> Result<serde_json::Value> {
        let say = || format!("target `{}`: reading what was built", request.target);
        let text = std::fs::read(self.metadata_file(request)).context(say)?;
        serde_json::from_slice(&text).context(say)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left there is in nobody's way.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

fn parse(words: &[String]) -> Result<build::Args, clap::Error> {
    let command = build::Args::augment_args(clap::Command::new("build").no_binary_name(true));
    build::Args::from_arg_matches(&command.try_get_matches_from(words)?)
}
