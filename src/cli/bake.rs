//! `bake`: what bake files say is built, each target as by `build`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args as _, FromArgMatches as _};
use outcrop::bake::{Bake, COMPOSE_FILES, DEFAULT_FILES, File, Request, Settings, escape_json};
use outcrop::error::{Context as _, Error, Kind, Result};
use outcrop::image::Platform;
use time::OffsetDateTime;

use super::progress::Mode;
use super::{Context, Verb, build, complain};

/// Bake files are text that people write.
const LARGEST_FILE: u64 = 4 << 20;

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
    /// Grant targets what they ask for: network.host, security.insecure
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
        let bake = Bake::read(self.read()?, &settings)?;
        if let Some(list) = &self.list {
            list_of(&bake, list, context)?;
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

    fn read(&self) -> Result<Vec<File>> {
        if !self.files.is_empty() {
            return self.files.iter().map(|name| read_file(name)).collect();
        }
        // As in buildx: where its own variable names them.
        if let Ok(names) = std::env::var("BUILDX_BAKE_FILE") {
            let separator = std::env::var("BUILDX_BAKE_FILE_SEPARATOR").unwrap_or_else(|_unset| ":".into());
            let names = names.split(&separator).filter(|name| !name.is_empty());
            return names.map(read_file).collect();
        }
        let present = |name: &&str| Path::new(name).exists();
        let found: Vec<&str> = DEFAULT_FILES.into_iter().filter(present).collect();
        if let Some(compose) = COMPOSE_FILES.into_iter().find(|name| present(name)) {
            let error = Error::unsupported(format!(
                "`{compose}` would be read too, and compose files are not supported by this version"
            ));
            return Err(match found.first() {
                Some(file) => error
                    .hint(format!("to leave it out: outcrop bake -f {}", found.join(" -f ")))
                    .because(Error::unsupported(format!("it may change the targets of `{file}`"))),
                None => error.hint("write its services as targets of a docker-bake.hcl"),
            });
        }
        if found.is_empty() {
            return Err(Error::not_found("no bake file in this directory")
                .hint(format!("looked for: {}; name another with -f FILE", DEFAULT_FILES.join(", "))));
        }
        found.into_iter().map(read_file).collect()
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// An image for those who build on it.
    Link,
    /// What the target itself says.
    Asked,
}

/// Where image ids come back and Dockerfiles of targets stand; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("outcrop-bake-{}", std::process::id()));
        std::fs::create_dir(&dir).context(|| format!("making `{}`", dir.display()))?;
        Ok(Scratch(dir))
    }

    /// The same words that a person would type, read by the same parser.
    fn args(
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
    fn made(&self, request: &Request) -> Result<String> {
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

    fn metadata(&self, request: &Request) -> Result<serde_json::Value> {
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

fn read_file(name: &str) -> Result<File> {
    let say = || format!("reading `{name}`");
    let mut bytes = Vec::new();
    let read = match name {
        "-" => std::io::stdin().lock().take(LARGEST_FILE + 1).read_to_end(&mut bytes),
        name => {
            let open = std::fs::File::open(name).context(say)?;
            open.take(LARGEST_FILE + 1).read_to_end(&mut bytes)
        }
    };
    read.context(say)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Error::invalid(say()).because(Error::invalid("it is larger than 4 MiB")));
    }
    let text = String::from_utf8(bytes).map_err(|cause| {
        Error::invalid(say()).because(Error::invalid(format!("it is not UTF-8: {cause}")))
    })?;
    Ok(File { name: name.to_owned(), text })
}

/// `targets`, `type=variables,format=json`.
fn list_of(bake: &Bake, said: &str, context: &Context) -> Result<()> {
    let mut what = None;
    let mut json = false;
    for part in said.split(',') {
        match part.split_once('=').unwrap_or(("type", part)) {
            ("type", kind @ ("targets" | "variables")) => what = Some(kind),
            ("format", "json") => json = true,
            ("format", "table") => json = false,
            _ => {
                return Err(Error::new(Kind::Invalid, format!("`{part}` in --list is not known"))
                    .hint("write --list targets, or --list variables,format=json"));
            }
        }
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut objects = Vec::new();
    if what == Some("variables") {
        rows.push(["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec());
        for variable in &bake.variables {
            let value = variable.value.clone();
            objects.push(object(&[
                ("name", &variable.name),
                ("description", &variable.description),
                ("type", &variable.kind),
                ("value", value.as_deref().unwrap_or_default()),
            ]));
            rows.push(vec![
                variable.name.clone(),
                variable.kind.clone(),
                value.unwrap_or_else(|| "<null>".into()),
                variable.description.clone(),
            ]);
        }
    } else {
        rows.push(["TARGET", "DESCRIPTION"].map(str::to_owned).to_vec());
        for (name, description, group) in bake.list() {
            let mut target = object(&[("name", &name), ("description", &description)]);
            if group {
                target.insert("group".into(), true.into());
            }
            objects.push(target);
            rows.push(vec![name, description]);
        }
    }
    let mut out = context.out();
    match json {
        true => {
            let objects = serde_json::Value::Array(objects.into_iter().map(Into::into).collect());
            out.line(escape_json(&format!("{objects:#}")))?;
        }
        false => out.text(table(&rows))?,
    }
    out.done()
}

/// Empty values are left out.
fn object(pairs: &[(&str, &str)]) -> serde_json::Map<String, serde_json::Value> {
    let full = pairs.iter().filter(|(_, value)| !value.is_empty());
    full.map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}
