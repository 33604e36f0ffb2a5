//! `history`: what an image was made by, instruction by instruction.

use std::process::ExitCode;

use outcrop::db::Time;
use outcrop::error::Result;
use outcrop::verb::history::{self, Entry};
use outcrop::verb::images;

use super::format::{List, Row, ago_at, ellipsis, short_id, size};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, `table` and a template, or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and times as people read them; `--human=false` for bytes and RFC 3339
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_name = "BOOL", hide_default_value = true, action = clap::ArgAction::Set)]
    human: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Show ids alone
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
    ("N", "N"),
    ("Layer", "LAYER"),
];
const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_EXACT: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/// As Docker cuts an instruction off.
const CREATED_BY_WIDTH: usize = 45;

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["history", "image history"];
    const ABOUT: &'static str = "Show the instructions that made an image, each with an image of its own";
    const EXAMPLE: &'static str =
        "outcrop history site\noutcrop history --format '{{.N}} {{.ID}} {{.CreatedBy}}' site";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let list = match (self.quiet, self.format.as_deref()) {
            (true, None | Some("table" | "json")) => List::quiet("ID"),
            (_, format) => List::new(format, HEADINGS, if self.human { TABLE } else { TABLE_EXACT })?,
        };
        let engine = context.engine()?;
        let image = images::resolve(engine, &self.image)?;
        let mut entries = history::entries(engine, &image.id)?;
        entries.reverse();
        let mut out = context.out();
        list.write(&mut out, entries.iter().map(|entry| Ok(self.row(entry))))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn row(&self, entry: &Entry) -> Row {
        let created: Option<Time> = entry.created.as_deref().and_then(|text| text.parse().ok());
        let created_by = one_line(&entry.created_by);
        let mut row = Row::new();
        row.insert("N".into(), entry.n.into());
        row.insert("ID".into(), short_id(entry.id.digest(), self.no_trunc).into());
        row.insert(
            "CreatedSince".into(),
            created.map_or_else(|| "N/A".into(), |at| ago_at(at.seconds())).into(),
        );
        row.insert("CreatedAt".into(), entry.created.clone().unwrap_or_else(|| "N/A".into()).into());
        let created_by = if self.no_trunc { created_by } else { ellipsis(&created_by, CREATED_BY_WIDTH) };
        row.insert("CreatedBy".into(), created_by.into());
        let size = if self.human { size(entry.size) } else { entry.size.to_string() };
        row.insert("Size".into(), size.into());
        row.insert("Comment".into(), entry.comment.clone().into());
        let layer = entry.layer.map(|layer| short_id(layer.digest(), self.no_trunc));
        row.insert("Layer".into(), layer.unwrap_or_default().into());
        row
    }
}

/// Tabs and line breaks would make columns and rows of their own.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}
