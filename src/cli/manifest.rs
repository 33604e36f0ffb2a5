//! `manifest create`, `annotate`, `inspect`, `push`, `rm`: indexes put together by hand.

use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use outcrop::error::{Context as _, Error, Result};
use outcrop::image::{Descriptor, Document, Reference};
use outcrop::registry::Options;
use outcrop::verb::manifest::{self, Annotations, Inspected, Shown};
use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value, json};

use super::progress::{Mode, Progress};
use super::registry::options;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Create {
    /// Add to a list that is there
    #[arg(short, long)]
    amend: bool,
    /// Plain HTTP will do, and certificates are not looked at
    #[arg(long)]
    insecure: bool,
    #[arg(value_name = "LIST")]
    list: Reference,
    /// Images of the store, else of their registries
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

#[derive(clap::Args)]
pub(super) struct Annotate {
    /// The architecture, as in arm64
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// What it must be able to do
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Its version
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Of the architecture, as in v7
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// What the index says of the image besides
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[arg(value_name = "LIST")]
    list: Reference,
    /// As it was added
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(clap::Args)]
pub(super) struct Inspect {
    /// With descriptors and platforms, and each manifest of an index
    #[arg(short, long)]
    verbose: bool,
    /// Plain HTTP will do, and certificates are not looked at
    #[arg(long)]
    insecure: bool,
    /// A list, or an image at its registry; with two names the second is an image of the first
    #[arg(value_name = "[LIST] NAME", required = true, num_args = 1..=2)]
    names: Vec<Reference>,
}

#[derive(clap::Args)]
pub(super) struct Push {
    /// Remove the list here afterwards
    #[arg(short, long)]
    purge: bool,
    /// Plain HTTP will do, and certificates are not looked at
    #[arg(long)]
    insecure: bool,
    #[arg(value_name = "LIST")]
    list: Reference,
}

#[derive(clap::Args)]
pub(super) struct Remove {
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<Reference>,
}

fn registry(insecure: bool) -> Options {
    Options { insecure, ..options() }
}

impl Verb for Create {
    const NAMES: &'static [&'static str] = &["manifest create"];
    const ABOUT: &'static str = "Make a list of images for several platforms";
    const EXAMPLE: &'static str =
        "outcrop manifest create registry.example.com/app:1 app:1-amd64 app:1-arm64";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let progress = Progress::aside(Mode::Auto);
        let job = context.job(progress.report());
        let engine = context.engine()?;
        manifest::create(engine, &self.list, &self.images, self.amend, &registry(self.insecure), &job)
            .context(|| format!("making the list `{}`", self.list.familiar()))?;
        drop(progress);
        let mut out = context.out();
        out.line(format!("Created manifest list {}", self.list))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb for Annotate {
    const NAMES: &'static [&'static str] = &["manifest annotate"];
    const ABOUT: &'static str = "Say what an image of a list is for";
    const EXAMPLE: &'static str =
        "outcrop manifest annotate --arch arm --variant v7 registry.example.com/app:1 app:1-arm";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::invalid(format!("`--annotation {text}` has no value")).hint("write KEY=VALUE")),
        };
        let said = Annotations {
            architecture: self.arch,
            os: self.os,
            os_features: self.os_features,
            os_version: self.os_version,
            variant: self.variant,
            annotations: self.annotation.iter().map(pair).collect::<Result<_>>()?,
        };
        manifest::annotate(context.engine()?, &self.list, &self.image, &said)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb for Inspect {
    const NAMES: &'static [&'static str] = &["manifest inspect"];
    const ABOUT: &'static str = "Show a list, or what a registry has under a name; nothing is pulled";
    const EXAMPLE: &'static str = "outcrop manifest inspect debian:12\noutcrop manifest inspect -v registry.example.com/app:1 app:1-arm";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let progress = Progress::aside(Mode::Quiet);
        let job = context.job(progress.report());
        let name = &self.names[0];
        let options = registry(self.insecure);
        let found =
            manifest::inspect(context.engine()?, name, self.names.get(1), self.verbose, &options, &job)
                .context(|| format!("inspecting `{}`", name.familiar()))?;
        let text = match (found, self.verbose) {
            (Inspected::One(one), false) => indented(&parsed(&one.raw)?, b"\t")?,
            (Inspected::One(one), true) => indented(&verbose(&one)?, b"\t")?,
            (Inspected::List(raw, _), false) => indented(&parsed(&raw)?, b"   ")?,
            (Inspected::List(_, below), true) => {
                indented(&Value::Array(below.iter().map(verbose).collect::<Result<_>>()?), b"\t")?
            }
        };
        let mut out = context.out();
        out.line(text)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn parsed(raw: &[u8]) -> Result<Value> {
    serde_json::from_slice(raw).context(|| "reading the manifest")
}

/// The fields that Docker's own structure has.
fn verbose(shown: &Shown) -> Result<Value> {
    let Shown { name, descriptor, raw } = shown;
    let kind = match Document::parse(raw, Some(&descriptor.media_type))? {
        Document::Image(manifest) if manifest.media_type() == outcrop::image::MediaType::DockerManifest => {
            "SchemaV2Manifest"
        }
        Document::Image(_) => "OCIManifest",
        Document::Index(_) => "OCIIndex",
    };
    let Descriptor { media_type, digest, size, platform, annotations, .. } = descriptor;
    let mut entry = json!({ "mediaType": media_type, "digest": digest, "size": size });
    if let Some(platform) = platform {
        entry["platform"] = serde_json::to_value(platform).context(|| "writing a platform")?;
    }
    if !annotations.is_empty() {
        entry["annotations"] = json!(annotations);
    }
    Ok(json!({
        "Ref": name.to_string(),
        "Descriptor": entry,
        "Raw": BASE64_STANDARD.encode(raw),
        kind: parsed(raw)?,
    }))
}

fn indented(value: &Value, indent: &[u8]) -> Result<String> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(indent));
    value.serialize(&mut serializer).context(|| "writing JSON")?;
    Ok(String::from_utf8(text).expect("JSON is text"))
}

impl Verb for Push {
    const NAMES: &'static [&'static str] = &["manifest push"];
    const ABOUT: &'static str = "Push a list, with what of it the registry does not have";
    const EXAMPLE: &'static str = "outcrop manifest push --purge registry.example.com/app:1";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let progress = Progress::aside(Mode::Quiet);
        let job = context.job(progress.report());
        let mut out = context.out();
        let mut told = |name: &Reference, descriptor: &Descriptor| {
            out.line(format!("Pushed ref {name} with digest: {}", descriptor.digest))
        };
        let (engine, options) = (context.engine()?, registry(self.insecure));
        let top = manifest::push(engine, &self.list, self.purge, &options, &mut told, &job)
            .context(|| format!("pushing the list `{}`", self.list.familiar()))?;
        out.line(top.digest)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb for Remove {
    const NAMES: &'static [&'static str] = &["manifest rm"];
    const ABOUT: &'static str = "Remove lists from the store; what registries have stays";
    const EXAMPLE: &'static str = "outcrop manifest rm registry.example.com/app:1";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        self.lists.iter().try_for_each(|list| manifest::remove(engine, list))?;
        Ok(ExitCode::SUCCESS)
    }
}
