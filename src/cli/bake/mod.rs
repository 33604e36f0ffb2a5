//! `bake`: what bake files say is built, each target as by `build`.

mod files;
mod list;
mod scratch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use outcrop::bake::{Bake, Request, Settings, escape_json};
use outcrop::error::{Context as _, Error, Result};
use outcrop::image::Platform;
use time::OffsetDateTime;

use super::progress::Mode;
use super::{Context, Verb, build, complain};
use scratch::{Purpose, Scratch};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A bake file, HCL or JSON; several are merged in order, `-` is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Set a target's value, of all that match the pattern; += adds to it
    #[arg(long = "set", value_name = "TARGET.KEY[+]=VALUE")]
    set: Vec<String>,
    /// Set a variable, before the environment
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Print what would be built as JSON, and build nothing
    #[arg(long)]
    print: bool,
    /// List targets or variables; with ,format=json as JSON
    #[arg(long, value_name = "targets|variables")]
    list: Option<String>,
    /// What to do instead of building: check, outline or targets
    #[arg(long, value_name = "WHAT")]
    call: Option<String>,
    /// The same as --call=check
    #[arg(long)]
    check: bool,
    /// Run every step, whatever the cache holds
    #[arg(long)]
    no_cache: bool,
    /// Ask registries for newer base images
    #[arg(long)]
    pull: bool,
    /// Keep images in the store: what is done anyway
    #[arg(long)]
    load: bool,
    /// Push images; not in this version
    #[arg(long)]
    push: bool,
    /// Attest how images were built; not in this version
    #[arg(long, value_name = "ATTESTATION")]
    provenance: Option<String>,
    /// Attest what images hold; not in this version
    #[arg(long, value_name = "ATTESTATION")]
    sbom: Option<String>,
    /// Grant targets what they ask for: network.host, security.insecure, buildx.local.delete
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Write what was built to a file, as JSON: for each target what `build` writes
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// How to show what happens
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    progress: Mode,
    /// Targets and groups; patterns match several (default: default)
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["bake", "builder bake"];
    const ABOUT: &'static str = "Build what bake files say";
    const EXAMPLE: &'static str =
        "outcrop bake\noutcrop bake -f docker-bake.hcl --set '*.args.VERSION=2' web";

    fn run(self, context: &Context) -> Result<ExitCode> {
        self.refuse()?;
        let lookup = self.lookup()?;
        let settings = Settings {
            lookup: &lookup,
            platform: Platform::host().to_string(),
            home: std::env::var("HOME").unwrap_or_default(),
            now: OffsetDateTime::now_utc(),
        };
        let bake = Bake::read(files::read(&self.files)?, &settings)?;
        if let Some(list) = &self.list {
            list::list(&bake, list, context)?;
            return Ok(ExitCode::SUCCESS);
        }
        let names = match self.targets.is_empty() {
            true => vec!["default".to_owned()],
            false => self.targets.clone(),
        };
        let resolved = bake.resolve(&names, &self.overrides(), &lookup)?;
        if self.print {
            let mut out = context.out();
            out.line(resolved.json())?;
            out.done()?;
            return Ok(ExitCode::SUCCESS);
        }
        self.build(&resolved.requests(), context)
    }
}

impl Args {
    fn refuse(&self) -> Result<()> {
        let given = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false");
        for (given, flag) in [(given(&self.provenance), "--provenance"), (given(&self.sbom), "--sbom")] {
            if given {
                return Err(Error::unsupported(format!("{flag} is not supported by this version")));
            }
        }
        let remote = |name: &&String| name.contains("://") || name.starts_with("git@");
        if let Some(name) = self.targets.iter().chain(&self.files).find(remote) {
            return Err(Error::unsupported(format!(
                "bake files from `{name}` are not supported by this version"
            ))
            .hint("clone it first, and bake there"));
        }
        Ok(())
    }

    /// `--var`, else the environment.
    fn lookup(&self) -> Result<impl Fn(&str) -> Option<String> + use<>> {
        let mut given = BTreeMap::new();
        for said in &self.variables {
            match said.split_once('=') {
                Some((name, value)) if !name.is_empty() => given.insert(name.to_owned(), value.to_owned()),
                _ => {
                    return Err(Error::invalid(format!("`{said}` in --var has no name or no value"))
                        .hint("write --var NAME=VALUE"));
                }
            };
        }
        let off = std::env::var("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")
            .is_ok_and(|value| ["1", "t", "T", "true", "TRUE", "True"].contains(&value.as_str()));
        Ok(move |name: &str| {
            given.get(name).cloned().or_else(|| if off { None } else { std::env::var(name).ok() })
        })
    }

    /// Flags for all targets are overrides of all targets.
    fn overrides(&self) -> Vec<String> {
        let mut all = self.set.clone();
        let call = self.call.clone().or_else(|| self.check.then(|| "check".to_owned()));
        let flags = [
            ("no-cache", self.no_cache.then(|| "true".to_owned())),
            ("pull", self.pull.then(|| "true".to_owned())),
            ("load", self.load.then(|| "true".to_owned())),
            ("push", self.push.then(|| "true".to_owned())),
            ("call", call),
        ];
        all.extend(flags.into_iter().filter_map(|(key, value)| Some(format!("*.{key}={}", value?))));
        all
    }

    fn build(&self, requests: &[Request], context: &Context) -> Result<ExitCode> {
        for request in requests {
            self.granted(request)?;
        }
        let scratch = Scratch::new()?;
        // Every flag is understood before the first target is built.
        for request in requests {
            let links = request.links.iter().map(|(name, _)| (name.clone(), "scratch".to_owned())).collect();
            drop(scratch.args(request, self, &links, Purpose::Asked)?);
        }
        let several_calls = requests.iter().filter(|request| request.call.is_some()).count() > 1;
        let mut code = ExitCode::SUCCESS;
        let mut made = BTreeMap::new();
        let mut metadata = serde_json::Map::new();
        for request in requests {
            let links = request
                .links
                .iter()
                .map(|(name, target)| {
                    let made: &String = made.get(target).expect("those it builds on are built before it");
                    (name.clone(), made.clone())
                })
                .collect();
            // An image is what links ask for, whatever else its target makes.
            let elsewhere = request.delivery.iter().any(|word| !word.starts_with("--tag="));
            if request.is_linked && (elsewhere || request.call.is_some() || request.several_platforms) {
                run(scratch.args(request, self, &links, Purpose::Link)?, request, context)?;
                made.insert(request.target.clone(), scratch.made(request)?);
            }
            let args = scratch.args(request, self, &links, Purpose::Asked)?;
            if let Some(call) = &request.call {
                if several_calls && !call.contains("json") {
                    heading(request, context)?;
                }
                // The other targets are asked too.
                match args.run(context).context(|| format!("target `{}`", request.target)) {
                    Ok(said) if said == ExitCode::SUCCESS => {}
                    Ok(said) => code = said,
                    Err(error) => {
                        complain(&error);
                        code = ExitCode::FAILURE;
                    }
                }
                continue;
            }
            run(args, request, context)?;
            if self.metadata_file.is_some() {
                metadata.insert(request.target.clone(), scratch.metadata(request)?);
            }
            if request.is_linked && !made.contains_key(&request.target) {
                made.insert(request.target.clone(), scratch.made(request)?);
            }
        }
        if let Some(file) = &self.metadata_file {
            let text = escape_json(&format!("{:#}\n", serde_json::Value::Object(metadata)));
            std::fs::write(file, text).context(|| format!("writing `{}`", file.display()))?;
        }
        Ok(code)
    }

    fn granted(&self, request: &Request) -> Result<()> {
        let granted = |wanted: &&String| {
            self.allow.iter().any(|given| {
                let given =
                    given.strip_prefix("network=").map_or(given.clone(), |name| format!("network.{name}"));
                given == **wanted
            })
        };
        match request.entitlements.iter().find(|wanted| !granted(wanted)) {
            Some(missing) => Err(Error::invalid(format!(
                "target `{}` asks for `{missing}`, which was not granted",
                request.target
            ))
            .hint(format!("to grant it: outcrop bake --allow {missing}"))),
            None => Ok(()),
        }
    }
}

fn run(args: build::Args, request: &Request, context: &Context) -> Result<()> {
    let code = args.run(context).context(|| format!("target `{}`", request.target))?;
    match code == ExitCode::SUCCESS {
        true => Ok(()),
        false => Err(Error::invalid(format!("target `{}` did not succeed", request.target))),
    }
}

/// Whose answer follows.
fn heading(request: &Request, context: &Context) -> Result<()> {
    let mut out = context.out();
    out.line(&request.target)?;
    out.line("")?;
    out.done()
}
