//! `images`: what images there are.

use std::process::ExitCode;

use outcrop::engine::Engine;
use outcrop::error::{Error, Kind, Result};
use outcrop::image::Reference;
use outcrop::verb::images::{self, Listed};
use serde_json::json;

use super::format::{Filters, List, Row, ago_at, glob, short_id, size, time};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Show intermediate images too: one after each instruction of a build
    #[arg(short, long)]
    all: bool,
    /// Show the digests that repositories know images by
    #[arg(long)]
    digests: bool,
    /// Show only what matches: dangling=, label=, reference=, before=, since=
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// A Go template, `table` and a template, or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show ids alone
    #[arg(short, long)]
    quiet: bool,
    /// A repository, with or without a tag; `*` stands for anything but a slash
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];
const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const KNOWN_FILTERS: &[&str] = &["dangling", "label", "reference", "before", "since"];

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["images", "image ls", "image list"];
    const ABOUT: &'static str = "List images";
    const EXAMPLE: &'static str = "outcrop images\noutcrop images -a --filter since=debian:bookworm\n\
                                   outcrop images -q --filter dangling=true";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let filters = Filters::parse(&self.filters, KNOWN_FILTERS)?;
        let default = if self.digests { TABLE_WITH_DIGESTS } else { TABLE };
        let list = match (self.quiet, self.format.as_deref()) {
            (true, None | Some("table" | "json")) => List::quiet("ID"),
            (_, format) => List::new(format, HEADINGS, default)?,
        };
        let needs_digests =
            self.digests || self.format.as_deref().is_some_and(|format| format.contains(".Digest"));
        let engine = context.engine()?;
        let wanted = Wanted::of(engine, &filters, self.name.as_deref())?;
        let mut rows = Vec::new();
        for image in images::list(engine)? {
            if (image.intermediate && !self.all) || !wanted.image(engine, &image)? {
                continue;
            }
            for name in wanted.names(&image, needs_digests) {
                rows.push(Ok(row(&image, &name, self.no_trunc)));
            }
        }
        let mut out = context.out();
        list.write(&mut out, rows)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// One line's worth of an image.
struct Name {
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
}

/// As Docker: all tags, each with each of its repository's digests where digests are asked for; then repositories that
/// know the image by digest alone.
fn names(image: &Listed, tags: &[&Reference], digests: &[Reference], with_digests: bool) -> Vec<Name> {
    if image.tags.is_empty() && image.digests.is_empty() {
        return vec![Name { repository: None, tag: None, digest: None }];
    }
    let name = |of: &Reference, tag: Option<&str>, digest: Option<&Reference>| Name {
        repository: Some(of.familiar_name()),
        tag: tag.map(str::to_owned),
        digest: digest.and_then(|known| known.digest()).map(ToString::to_string),
    };
    let mut names = Vec::new();
    for tag in tags {
        let own: Vec<&Reference> = digests.iter().filter(|known| known.name() == tag.name()).collect();
        match own.is_empty() || !with_digests {
            true => names.push(name(tag, tag.tag(), None)),
            false => names.extend(own.iter().map(|known| name(tag, tag.tag(), Some(known)))),
        }
    }
    let alone = |known: &&Reference| !image.tags.iter().any(|tag| tag.name() == known.name());
    names.extend(digests.iter().filter(alone).map(|known| name(known, None, Some(known))));
    names
}

pub(super) const NONE: &str = "<none>";

fn row(image: &Listed, name: &Name, no_trunc: bool) -> Row {
    let text = |part: &Option<String>| part.clone().unwrap_or_else(|| NONE.to_owned());
    let mut row = Row::new();
    let size = size(image.row.size);
    row.insert("Repository".into(), text(&name.repository).into());
    row.insert("Tag".into(), text(&name.tag).into());
    row.insert("Digest".into(), text(&name.digest).into());
    row.insert("ID".into(), short_id(image.row.id.digest(), no_trunc).into());
    let seconds = image.created.map(|created| created.seconds());
    row.insert("CreatedSince".into(), seconds.map_or_else(|| "N/A".into(), ago_at).into());
    row.insert("CreatedAt".into(), seconds.map_or_else(|| "N/A".into(), time).into());
    row.insert("Size".into(), size.clone().into());
    row.insert("VirtualSize".into(), size.into());
    for unknown in ["SharedSize", "UniqueSize"] {
        row.insert(unknown.into(), json!("N/A"));
    }
    row.insert("Containers".into(), image.containers.to_string().into());
    row
}

/// What `--filter` and the name leave.
struct Wanted<'f> {
    filters: &'f Filters,
    dangling: Option<bool>,
    patterns: Vec<Pattern>,
    before: Option<i64>,
    since: Option<i64>,
}

impl<'f> Wanted<'f> {
    fn of(engine: &Engine, filters: &'f Filters, name: Option<&str>) -> Result<Self> {
        let patterns = filters.values("reference").chain(name).map(Pattern::new).collect();
        // Nanoseconds: images of one build are often of one second.
        let time = |key: &str| -> Result<Option<i64>> {
            let Some(name) = filters.values(key).last() else { return Ok(None) };
            let image = images::resolve(engine, name)?;
            Ok(Some(images::created(&image).unwrap_or(image.made_at).0))
        };
        Ok(Wanted {
            filters,
            dangling: filters.truth("dangling")?,
            patterns,
            before: time("before")?,
            since: time("since")?,
        })
    }

    fn image(&self, engine: &Engine, image: &Listed) -> Result<bool> {
        let created = image.created.unwrap_or(image.row.made_at).0;
        if self.dangling.is_some_and(|wanted| wanted != image.dangling())
            || self.before.is_some_and(|before| created >= before)
            || self.since.is_some_and(|since| created <= since)
        {
            return Ok(false);
        }
        if self.filters.values("label").next().is_none() {
            return Ok(true);
        }
        let labels = images::config(engine, &image.row.id)?.0.config.labels.unwrap_or_default();
        Ok(self.filters.labels(|key| labels.get(key).map(String::as_str)))
    }

    fn names(&self, image: &Listed, with_digests: bool) -> Vec<Name> {
        let fits = |name: &Reference| {
            self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(name))
        };
        let tags: Vec<&Reference> = image.tags.iter().filter(|tag| fits(tag)).collect();
        let digests = image
            .digests
            .iter()
            .filter_map(|known| format!("{}@{}", known.repository, known.digest).parse::<Reference>().ok());
        let digests: Vec<Reference> = digests.filter(|known| fits(known)).collect();
        let unnamed = tags.is_empty() && digests.is_empty();
        if unnamed && !self.patterns.is_empty() {
            return Vec::new();
        }
        names(image, &tags, &digests, with_digests)
    }
}

/// `debian`, `debian:book*`, `docker.io/library/debian`.
struct Pattern {
    text: String,
    /// The name it is, where it is one, and whether it says a tag or digest.
    name: Option<(Reference, bool)>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Pattern { text: text.to_owned(), name: Reference::parse_loose(text).ok() }
    }

    fn matches(&self, name: &Reference) -> bool {
        let is_it = self.name.as_ref().is_some_and(|(wanted, selected)| match selected {
            true => wanted == name,
            false => wanted.name() == name.name(),
        });
        is_it || glob(&self.text, &name.familiar()) || glob(&self.text, &name.familiar_name())
    }
}

/// That a name is of an image that is not here is said as Docker says it, whatever else went well.
pub(super) fn is_missing(error: &Error) -> bool {
    error.kind() == Kind::NotFound
}
