//! `log`: every move of a name.

use std::process::ExitCode;

use outcrop::db::TagMove;
use outcrop::error::Result;
use outcrop::image::ImageId;
use outcrop::verb::log;

use super::format::{List, Row, ago_at, short_id};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, `table` and a template, or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

const HEADINGS: &[(&str, &str)] = &[
    ("Place", "PLACE"),
    ("Since", "MOVED"),
    ("At", "MOVED AT"),
    ("Verb", "BY"),
    ("From", "FROM"),
    ("To", "TO"),
    ("Detail", "DETAIL"),
];
const TABLE: &str = "{{.Place}}\t{{.Since}}\t{{.Verb}}\t{{.From}}\t{{.To}}\t{{.Detail}}";

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["log", "image log"];
    const ABOUT: &'static str = "Show where a name pointed, move by move, the latest first";
    const EXAMPLE: &'static str = "outcrop log site\noutcrop rollback site --to @{2}";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let list = List::new(self.format.as_deref(), HEADINGS, TABLE)?;
        let moves = log::log(context.engine()?, &self.name.parse()?)?;
        let mut out = context.out();
        list.write(&mut out, moves.iter().enumerate().map(|(ago, entry)| Ok(self.row(ago, entry))))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn row(&self, ago: usize, entry: &TagMove) -> Row {
        let end = |image: Option<ImageId>| match image {
            Some(image) => short_id(image.digest(), self.no_trunc),
            None => "-".to_owned(),
        };
        let fields = [
            ("Place", format!("@{{{ago}}}")),
            ("Since", ago_at(entry.at.seconds())),
            ("At", entry.at.to_string()),
            ("Verb", entry.verb.clone()),
            ("From", end(entry.from)),
            ("To", end(entry.to)),
            ("Detail", entry.detail.clone().unwrap_or_default()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}
