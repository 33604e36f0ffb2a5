//! `build --check` and `build --call`: what is asked about a Dockerfile, and how the answers look.

use std::fmt::Write as _;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use outcrop::dockerfile::{Checked, Finding, Outline, OutlineArg, OutlineMount, Target};
use outcrop::error::{Error, Result};
use outcrop::verb::build::Options;
use outcrop::verb::call;
use serde_json::{Map, Value, json};

use crate::cli::format::align;
use crate::cli::progress::{Mode, Progress};
use crate::cli::{Context, complain};

#[derive(clap::Args)]
pub(super) struct CallArgs {
    /// Check the Dockerfile and build nothing; the same as --call check
    #[arg(long, conflicts_with = "call")]
    check: bool,
    /// Answer instead of building: check, outline or targets; `,format=json` for programs
    #[arg(long, value_name = "METHOD[,format=json]")]
    call: Option<String>,
}

pub(super) struct Call {
    method: Method,
    json: bool,
    /// Findings are no failure.
    ignore_status: bool,
}

#[derive(Clone, Copy)]
enum Method {
    Check,
    Outline,
    Targets,
}

impl CallArgs {
    /// `None`: build.
    pub(super) fn call(&self) -> Result<Option<Call>> {
        if self.check {
            return Ok(Some(Call { method: Method::Check, json: false, ignore_status: false }));
        }
        self.call.as_deref().map_or(Ok(None), parse)
    }
}

/// `METHOD` and options, with commas between.
fn parse(text: &str) -> Result<Option<Call>> {
    const FORM: &str =
        "write --call check, --call outline or --call targets, and `,format=json` for programs";
    let invalid = |what: String| Error::invalid(format!("{what} in --call")).hint(FORM);
    let mut parts = text.split(',');
    let method = match parts.next().unwrap_or_default() {
        "build" | "" => return Ok(None),
        "check" | "lint" => Method::Check,
        "outline" => Method::Outline,
        "targets" => Method::Targets,
        other => return Err(invalid(format!("unknown method `{other}`"))),
    };
    let mut call = Call { method, json: false, ignore_status: false };
    for option in parts {
        match option.split_once('=').unwrap_or((option, "true")) {
            ("format", "json") => call.json = true,
            ("format", "text" | "") => call.json = false,
            ("format", other) => return Err(invalid(format!("unknown format `{other}`"))),
            ("ignorestatus", "true" | "1") => call.ignore_status = true,
            ("ignorestatus", "false" | "0") => call.ignore_status = false,
            _ => return Err(invalid(format!("unknown option `{option}`"))),
        }
    }
    Ok(Some(call))
}

impl Call {
    pub(super) fn run(&self, context: &Context, options: &Options) -> Result<ExitCode> {
        let mut failed = None;
        let mut code = ExitCode::SUCCESS;
        let text = match self.method {
            Method::Check => {
                let checked = call::check(context.engine()?, options)?;
                let progress = Progress::aside(Mode::Plain);
                let job = context.job(progress.report());
                for warning in checked.plan.iter().flat_map(|plan| &plan.warnings) {
                    job.warn(warning.clone());
                }
                if !self.ignore_status && (!checked.findings.is_empty() || checked.plan.is_err()) {
                    code = ExitCode::FAILURE;
                }
                match self.json {
                    true => pretty(&check_json(&checked, options)),
                    false => {
                        let text = check_text(&checked, options);
                        failed = checked.plan.err();
                        text
                    }
                }
            }
            Method::Outline => {
                let outline = call::outline(context.engine()?, options)?;
                if self.json { pretty(&outline_json(&outline, options)) } else { outline_text(&outline) }
            }
            Method::Targets => {
                let targets = call::targets(options)?;
                if self.json { pretty(&targets_json(&targets, options)) } else { targets_text(&targets) }
            }
        };
        let mut out = context.out();
        out.text(text)?;
        out.done()?;
        match failed {
            Some(error) if self.ignore_status => {
                complain(&error);
                Ok(code)
            }
            Some(error) => Err(error),
            None => Ok(code),
        }
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Where each check is described.
const DOCUMENTATION: &str = "docs/checks.md#";

fn check_text(checked: &Checked, options: &Options) -> String {
    let mut text = match (checked.findings.len(), &checked.plan) {
        (0, Ok(_)) => return "Check complete, no warnings found.\n".to_owned(),
        (0, Err(_)) => return String::new(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (many, _) => format!("Check complete, {many} warnings have been found!\n"),
    };
    for finding in &checked.findings {
        let (name, anchor) = (finding.check.name, finding.check.name.to_lowercase());
        let _infallible = writeln!(text, "\nWARNING: {name} - {DOCUMENTATION}{anchor}\n{}", finding.message);
        show(&mut text, options, finding.lines);
    }
    text
}

/// The lines, marked, with some around them.
fn show(text: &mut String, options: &Options, (first, last): (usize, usize)) {
    let lines: Vec<&str> = options.dockerfile.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let last = last.min(lines.len());
    let around = if first == last { 2 } else { 1 };
    let (from, to) = (first.saturating_sub(around).max(1), (last + around).min(lines.len()));
    let rule = "-".repeat(20);
    let _infallible = writeln!(text, "{}:{first}\n{rule}", options.dockerfile_name);
    for number in from..=to {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = format!(" {number:>3} | {mark} {}", lines[number - 1]);
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    let _infallible = writeln!(text, "{rule}");
}

fn check_json(checked: &Checked, options: &Options) -> Value {
    let warning = |finding: &Finding| {
        json!({
            "ruleName": finding.check.name,
            "description": finding.check.description,
            "url": format!("{DOCUMENTATION}{}", finding.check.name.to_lowercase()),
            "detail": finding.message,
            "location": location(finding.lines),
        })
    };
    let mut answer = json!({
        "warnings": checked.findings.iter().map(warning).collect::<Vec<_>>(),
        "sources": [{
            "filename": options.dockerfile_name,
            "language": "Dockerfile",
            "data": BASE64_STANDARD.encode(&options.dockerfile),
        }],
    });
    if let Err(error) = &checked.plan {
        let lines = checked.line_of_error().map(|line| location((line, line)));
        answer["buildError"] = json!({ "message": whole(error), "location": lines.unwrap_or(json!({})) });
    }
    answer
}

/// An error with its causes, on one line each.
fn whole(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let _infallible = write!(text, "\n{next}");
        cause = next.source();
    }
    text
}

fn location((first, last): (usize, usize)) -> Value {
    json!({ "ranges": [{ "start": { "line": first }, "end": { "line": last } }] })
}

fn outline_text(outline: &Outline) -> String {
    let mut blocks = Vec::new();
    let mut head = Vec::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        head.push(format!("TARGET:\t{name}"));
    }
    if !outline.description.is_empty() {
        head.push(format!("DESCRIPTION:\t{}", outline.description));
    }
    blocks.push(head);
    let arg = |arg: &OutlineArg| {
        format!("{}\t{}\t{}", arg.name, arg.value.as_deref().unwrap_or_default(), arg.description)
    };
    blocks.push(table("BUILD ARG\tVALUE\tDESCRIPTION", outline.args.iter().map(arg)));
    let mount =
        |mount: &OutlineMount| format!("{}\t{}", mount.name, if mount.required { "true" } else { "" });
    blocks.push(table("SECRET\tREQUIRED", outline.secrets.iter().map(mount)));
    blocks.push(table("SSH\tREQUIRED", outline.ssh.iter().map(mount)));
    let blocks: Vec<String> =
        blocks.into_iter().filter(|lines| !lines.is_empty()).map(|lines| columns(&lines)).collect();
    blocks.join("\n")
}

fn targets_text(targets: &[Target]) -> String {
    let lines = targets.iter().enumerate().map(|(number, target)| {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            ("", false) => number.to_string(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        format!("{name}\t{}", target.description)
    });
    columns(&table("TARGET\tDESCRIPTION", lines))
}

fn table(head: &str, lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut table: Vec<String> = lines.collect();
    if !table.is_empty() {
        table.insert(0, head.to_owned());
    }
    table
}

/// Without blanks at the ends of lines.
fn columns(lines: &[String]) -> String {
    let mut text = String::new();
    for line in align(&format!("{}\n", lines.join("\n"))).lines() {
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn outline_json(outline: &Outline, options: &Options) -> Value {
    let mut answer = Map::new();
    put(&mut answer, "name", &outline.name);
    put(&mut answer, "description", &outline.description);
    let args = outline.args.iter().map(|arg| {
        let mut told = Map::new();
        told.insert("name".into(), arg.name.clone().into());
        put(&mut told, "description", &arg.description);
        put(&mut told, "value", arg.value.as_deref().unwrap_or_default());
        told.insert("location".into(), location(arg.lines));
        Value::Object(told)
    });
    let mount = |mount: &OutlineMount| {
        let mut told = json!({ "name": mount.name, "location": location(mount.lines) });
        if mount.required {
            told["required"] = true.into();
        }
        told
    };
    for (name, list) in [
        ("args", args.collect::<Vec<_>>()),
        ("secrets", outline.secrets.iter().map(mount).collect()),
        ("ssh", outline.ssh.iter().map(mount).collect()),
    ] {
        if !list.is_empty() {
            answer.insert(name.into(), list.into());
        }
    }
    answer.insert("sources".into(), json!([BASE64_STANDARD.encode(&options.dockerfile)]));
    Value::Object(answer)
}

fn targets_json(targets: &[Target], options: &Options) -> Value {
    let targets = targets.iter().map(|target| {
        let mut told = Map::new();
        put(&mut told, "name", &target.name);
        if target.default {
            told.insert("default".into(), true.into());
        }
        put(&mut told, "description", &target.description);
        put(&mut told, "base", &target.base);
        put(&mut told, "platform", &target.platform);
        told.insert("location".into(), location(target.lines));
        Value::Object(told)
    });
    json!({
        "targets": targets.collect::<Vec<_>>(),
        "sources": [BASE64_STANDARD.encode(&options.dockerfile)],
    })
}

/// What is empty is left out.
fn put(object: &mut Map<String, Value>, name: &str, value: &str) {
    if !value.is_empty() {
        object.insert(name.into(), value.into());
    }
}
