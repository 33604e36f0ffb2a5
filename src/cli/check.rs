//! `system check`: what is wrong with the store, one line for each.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::check::{self, Report};
use outcrop::verb::rebuild::{self, Rebuilt};
use serde_json::{Value, json};

use super::format::{Template, size};
use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Say only what is wrong
    #[arg(short, long)]
    quiet: bool,
    /// Make the databases again from layers, blobs and the log of tags; the old ones are kept beside them
    #[arg(long, conflicts_with = "format")]
    rebuild_index: bool,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["system check"];
    const ABOUT: &'static str = "Verify every byte and row of the store";
    const EXAMPLE: &'static str =
        "outcrop system check\noutcrop system check --format json\noutcrop system check --rebuild-index";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(template) => Some(Template::parse(template)?),
        };
        let mut out = context.out();
        let progress = Progress::aside(if self.quiet { Mode::Quiet } else { Mode::Auto });
        let job = context.job(progress.report());
        if self.rebuild_index {
            let rebuilt = rebuild::rebuild(&context.globals.root(), &context.storage_options()?, &job)?;
            drop(progress);
            for line in rebuilt_lines(&rebuilt, self.quiet) {
                out.line(line)?;
            }
            out.done()?;
            return Ok(ExitCode::from(u8::from(!rebuilt.lost.is_empty())));
        }
        let report = check::check(context.engine()?, &job)?;
        drop(progress);
        match (&template, self.format.as_deref()) {
            (Some(template), _) => out.line(template.render(&object(&report))?)?,
            (None, Some("json")) => out.line(object(&report))?,
            _ => {
                for line in lines(&report, self.quiet) {
                    out.line(line)?;
                }
            }
        }
        out.done()?;
        Ok(ExitCode::from(u8::from(!report.is_clean())))
    }
}

/// Leftovers that are named one by one.
const NAMED: usize = 20;

fn lines(report: &Report, quiet: bool) -> Vec<String> {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if quiet {
        return lines;
    }
    lines.extend(report.hints().iter().map(|hint| format!("hint: {hint}")));
    let left = &report.leftovers;
    lines.extend(left.iter().take(NAMED).map(|left| format!("left over, no damage: {left}")));
    if left.len() > NAMED {
        lines.push(format!("left over, no damage: {} more", left.len() - NAMED));
    }
    let checked = &report.checked;
    let verdict = match report.findings.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    };
    lines.push(format!(
        "{verdict}: {}, {}, {}, {}, {}; {} read",
        count(checked.images, "image"),
        count(checked.layers, "layer"),
        count(checked.trees, "tree"),
        count(checked.blobs, "blob"),
        count(checked.containers, "container"),
        size(checked.bytes),
    ));
    lines
}

fn rebuilt_lines(rebuilt: &Rebuilt, quiet: bool) -> Vec<String> {
    let mut lines: Vec<String> = rebuilt.lost.iter().map(|lost| format!("lost: {lost}")).collect();
    if quiet {
        return lines;
    }
    lines.push(
        "gone with the old index: cache records and the history of builds; the next build runs its steps"
            .into(),
    );
    lines.push("the old databases are kept as outcrop.db.old and files.db.old".into());
    lines.push(format!(
        "made again: {}, {}, {}, {}, {}, {}",
        count(rebuilt.images, "image"),
        count(rebuilt.tags, "tag"),
        count(rebuilt.layers, "layer"),
        count(rebuilt.blobs, "blob"),
        count(rebuilt.containers, "container"),
        count(rebuilt.volumes, "volume"),
    ));
    lines
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn object(report: &Report) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| json!({ "Object": finding.object, "File": finding.file, "What": finding.what }))
        .collect();
    let checked = &report.checked;
    json!({
        "Clean": report.is_clean(),
        "Findings": findings,
        "Hints": report.hints(),
        "Leftovers": report.leftovers,
        "Checked": {
            "Images": checked.images,
            "Layers": checked.layers,
            "Trees": checked.trees,
            "Blobs": checked.blobs,
            "Containers": checked.containers,
            "Bytes": checked.bytes,
        },
    })
}
