//! `cache ls`, `cache inspect`, `cache prune`: the build cache's records, and what it keeps besides.

use std::process::ExitCode;

use outcrop::db::{RecordId, Time};
use outcrop::error::{Error, Result};
use outcrop::verb::cache::{self, Kind, Options, Pruned, Remembered};
use outcrop::verb::cache_kept::{self, Kept};
use serde_json::{Value, json};

use super::confirm::confirm;
use super::format::{Filters, List, Row, ago_at, ellipsis, inspect, short_id, size, size_exact};
use super::history::one_line;
use super::image_prune::{duration, until};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Ls {
    /// Only what matches: until=, type=, text= (a part of the instruction), shared=true or false
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// A Go template, `table` and a template, or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten keys and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Numbers alone
    #[arg(short, long)]
    quiet: bool,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Key", "KEY"),
    ("Type", "TYPE"),
    ("Instruction", "INSTRUCTION"),
    ("Size", "SIZE"),
    ("Frees", "FREES"),
    ("Shared", "SHARED"),
    ("Created", "CREATED"),
    ("LastUsed", "LAST USED"),
    ("Uses", "USES"),
];
const TABLE: &str = "{{.ID}}\t{{.Type}}\t{{.Instruction}}\t{{.Size}}\t{{.Frees}}\t{{.LastUsed}}\t{{.Uses}}";
const INSTRUCTION_WIDTH: usize = 45;

impl Verb for Ls {
    const NAMES: &'static [&'static str] = &["cache ls", "cache list", "builder du"];
    const ABOUT: &'static str = "List what the build cache remembers, the latest used first";
    const EXAMPLE: &'static str = "outcrop cache ls\noutcrop cache ls --filter until=24h --format json";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let list = match self.quiet {
            true => List::quiet("ID"),
            false => List::new(self.format.as_deref(), HEADINGS, TABLE)?,
        };
        let filters = Filters::parse(&self.filters, &["until", "type", "text", "shared"])?;
        let before = until(&filters)?;
        let shared = filters.values("shared").last().map(truth).transpose()?;
        let kinds = kinds(&filters)?;
        let fits = |kind: Kind, used_at: Time, text: &str, is_shared: bool| {
            before.is_none_or(|time| used_at < time)
                && kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
                && filters.values("text").all(|part| text.contains(part))
                && shared.is_none_or(|shared| shared == is_shared)
        };
        let engine = context.engine()?;
        let mut rows = Vec::new();
        for one in cache::list(engine)? {
            let record = &one.record;
            if fits(Kind::Regular, record.last_used_at, &record.instruction, is_shared(&one)) {
                rows.push((record.last_used_at, self.row(&one)));
            }
        }
        for one in cache_kept::list(engine)? {
            if fits(one.kind, one.used_at, &one.description, false) {
                rows.push((one.used_at, self.row_of_kept(&one)));
            }
        }
        rows.sort_by_key(|(used_at, _)| std::cmp::Reverse(*used_at));
        let mut out = context.out();
        list.write(&mut out, rows.into_iter().map(|(_, row)| Ok(row)))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What the filter `type` means. The last three are BuildKit's for what nothing is kept of here.
fn kinds(filters: &Filters) -> Result<Option<Vec<Kind>>> {
    let mut kinds = None;
    for name in filters.values("type") {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        if kind.is_none() && !["source.local", "frontend", "internal"].contains(&name) {
            let known = Kind::ALL.map(Kind::name).join(", ");
            return Err(Error::invalid(format!("the build cache has no type `{name}`"))
                .hint(format!("its types are {known}")));
        }
        kinds.get_or_insert_with(Vec::new).extend(kind);
    }
    Ok(kinds)
}

fn truth(text: &str) -> Result<bool> {
    text.parse().map_err(|cause| {
        Error::invalid(format!("`{text}` in the filter `shared` is neither true nor false")).because(cause)
    })
}

fn is_shared(one: &Remembered) -> bool {
    one.in_images || !one.shared_with.is_empty()
}

impl Ls {
    fn row(&self, one: &Remembered) -> Row {
        let instruction = one_line(&one.record.instruction);
        let fields = [
            ("ID", one.record.id.to_string()),
            ("Key", short_id(&one.record.key.0, self.no_trunc)),
            ("Type", Kind::Regular.name().to_owned()),
            ("Instruction", self.shortened(instruction)),
            ("Size", size(one.layer.as_ref().map_or(0, |layer| layer.size))),
            ("Frees", size(one.frees)),
            ("Shared", is_shared(one).to_string()),
            ("Created", ago_at(one.record.made_at.seconds())),
            ("LastUsed", ago_at(one.record.last_used_at.seconds())),
            ("Uses", one.record.uses.to_string()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    fn row_of_kept(&self, one: &Kept) -> Row {
        let fields = [
            ("ID", one.name.clone()),
            ("Key", String::new()),
            ("Type", one.kind.name().to_owned()),
            ("Instruction", self.shortened(one.description.clone())),
            ("Size", size(one.bytes)),
            ("Frees", size(freed(one))),
            ("Shared", false.to_string()),
            ("Created", ago_at(one.made_at.seconds())),
            ("LastUsed", ago_at(one.used_at.seconds())),
            ("Uses", String::new()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    fn shortened(&self, text: String) -> String {
        if self.no_trunc { text } else { ellipsis(&text, INSTRUCTION_WIDTH) }
    }
}

#[derive(clap::Args)]
pub(super) struct Inspect {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Its number, or the beginning of its key; or the name of what is no record
    #[arg(required = true, value_name = "RECORD")]
    records: Vec<String>,
}

impl Verb for Inspect {
    const NAMES: &'static [&'static str] = &["cache inspect"];
    const ABOUT: &'static str = "Show all that is known of a cache record, its key in full";
    const EXAMPLE: &'static str =
        "outcrop cache inspect 12\noutcrop cache inspect --format '{{json .Key}}' 12";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        inspect(context.out(), self.format.as_deref(), "cache record", &self.records, |name| {
            Ok(match cache::find(engine, name)? {
                Some(record) => Some(object(&record)),
                None => cache_kept::find(engine, name)?.as_ref().map(object_of_kept),
            })
        })
    }
}

fn object(one: &Remembered) -> Value {
    let record = &one.record;
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let ids = |ids: &[RecordId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    json!({
        "Id": record.id.0,
        "Type": Kind::Regular.name(),
        "Digest": record.key.0.to_string(),
        "Kind": record.kind.to_string(),
        "Instruction": record.instruction,
        "Key": parsed(&record.key_text),
        "Step": record.step.map(|key| key.0.to_string()),
        "Reads": record.reads.as_deref().map(parsed),
        "Layer": one.layer.as_ref().map(|layer| json!({
            "DiffId": layer.diff_id.to_string(),
            "ContentId": layer.content_id.to_string(),
            "Size": layer.size,
            "Files": layer.row_count,
        })),
        "InImages": one.in_images,
        "SharedWith": ids(&one.shared_with),
        "Frees": one.frees,
        "Build": record.build.map(|build| build.0),
        "Created": record.made_at.to_string(),
        "LastUsed": record.last_used_at.to_string(),
        "Uses": record.uses,
    })
}

fn object_of_kept(one: &Kept) -> Value {
    json!({
        "Id": one.name,
        "Type": one.kind.name(),
        "Description": one.description,
        "Size": one.bytes,
        "InUse": one.in_use,
        "Frees": freed(one),
        "Created": one.made_at.to_string(),
        "LastUsed": one.used_at.to_string(),
    })
}

/// What removing it now would free.
fn freed(one: &Kept) -> u64 {
    if one.in_use { 0 } else { one.bytes }
}

#[derive(clap::Args)]
pub(super) struct Prune {
    /// Also records whose layers images have, caches of RUN, and what was fetched
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what was not used for that long, as in 24h
    #[arg(long, value_name = "AGE")]
    max_age: Option<String>,
    /// Remove the least recently used until the cache alone takes no more than that, as in 10GB
    #[arg(long, value_name = "BYTES", visible_aliases = ["max-used-space", "reserved-space"])]
    keep_storage: Option<String>,
    /// Only what matches: until=, type=
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Verb for Prune {
    const NAMES: &'static [&'static str] = &["cache prune", "builder prune"];
    const ABOUT: &'static str = "Forget what the build cache remembers, and free its layers";
    const EXAMPLE: &'static str = "outcrop cache prune --max-age 168h\noutcrop cache prune --keep-storage 10GB -f\noutcrop cache prune -a --dry-run";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let options = self.options()?;
        let pruned = if self.dry_run {
            cache::prune_what_if(context.engine()?, &options)?
        } else {
            if !self.force {
                let would = cache::prune_what_if(context.engine()?, &options)?;
                let question = format!(
                    "WARNING! This will remove {} things from the build cache and free {}.",
                    would.records.len() + would.kept.len(),
                    size_exact(would.bytes)
                );
                if !confirm(&question)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            cache::prune(context.engine_to_prune()?, &options)?
        };
        self.say(context, &pruned)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Prune {
    fn options(&self) -> Result<Options> {
        let age = |text: &str| -> Result<Time> {
            let nanoseconds = duration(text).ok_or_else(|| {
                Error::invalid(format!("`{text}` in --max-age is no age")).hint("write it as in 24h or 1h30m")
            })?;
            Ok(Time(Time::now().0.saturating_sub(nanoseconds)))
        };
        let by_age = self.max_age.as_deref().map(age).transpose()?;
        let filters = Filters::parse(&self.filters, &["until", "type"])?;
        let by_filter = until(&filters)?;
        let bytes = |text: &str| {
            outcrop::size::parse(text).map_err(|error| {
                Error::invalid(format!("`{text}` in --keep-storage is no size"))
                    .hint("write it as in 500MB or 10GB")
                    .because(error)
            })
        };
        Ok(Options {
            all: self.all,
            unused_since: by_age.into_iter().chain(by_filter).min(),
            kinds: kinds(&filters)?,
            keep_storage: self.keep_storage.as_deref().map(bytes).transpose()?,
        })
    }

    fn say(&self, context: &Context, pruned: &Pruned) -> Result<()> {
        let mut out = context.out();
        if !pruned.records.is_empty() || !pruned.kept.is_empty() {
            out.line(if self.dry_run {
                "Would delete build cache objects:"
            } else {
                "Deleted build cache objects:"
            })?;
            pruned.records.iter().try_for_each(|record| out.line(record))?;
            pruned.kept.iter().try_for_each(|name| out.line(name))?;
            out.line("")?;
        }
        let total = if self.dry_run { "Total that would be reclaimed" } else { "Total reclaimed space" };
        out.line(format_args!("{total}: {}", size_exact(pruned.bytes)))?;
        out.done()
    }
}
