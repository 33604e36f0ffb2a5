//! The Dockerfile language: text in, a [`Plan`] out. No I/O; what base images say comes through [`Resolver`].

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::image::{ImageConfig, Platform};
use crate::plan::{Network, Plan};

/// A parsed Dockerfile: every instruction known and well formed, nothing expanded yet.
#[derive(Debug)]
pub struct Dockerfile {
    name: String,
}

/// What the caller decides, beyond the text.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// `--build-arg NAME=value`; a caller resolves `--build-arg NAME` from its environment.
    pub build_args: BTreeMap<String, String>,
    /// A stage's name or number; `None` is the last stage.
    pub target: Option<String>,
    /// What is built, unless FROM says otherwise.
    pub platform: Platform,
    /// What builds.
    pub build_platform: Platform,
    /// `--label`: a last LABEL step of the target.
    pub labels: BTreeMap<String, String>,
    /// The network of every RUN that does not name one.
    pub network: Network,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            build_args: BTreeMap::new(),
            target: None,
            platform: Platform::host(),
            build_platform: Platform::host(),
            labels: BTreeMap::new(),
            network: Network::Default,
        }
    }
}

/// Tells what a base image says of itself. Asked once for each stage that is needed and stands on an image.
pub trait Resolver {
    /// `reference` as the user wrote it, expanded; never `scratch`. The caller looks it up or pulls it.
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig>;
}

impl Dockerfile {
    /// `name` as the user wrote it (`-` for standard input), for messages alone.
    pub fn parse(name: &str, text: &str) -> Result<Dockerfile> {
        if text.is_empty() {
            return Err(
                Error::invalid(format!("reading `{name}`")).because(Error::invalid("the file is empty"))
            );
        }
        Ok(Dockerfile { name: name.to_owned() })
    }

    /// Everything expanded and resolved. An error names file and line; nothing has run yet.
    pub fn plan(&self, _options: &PlanOptions, _resolver: &dyn Resolver) -> Result<Plan> {
        Err(Error::unsupported(format!("planning `{}`", self.name)))
    }
}
