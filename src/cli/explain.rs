//! `explain`: hit or miss, step by step, and what made each miss.

use std::process::ExitCode;

use outcrop::build::difference::Difference;
use outcrop::db::{BuildId, BuildStatus, StepOutcome};
use outcrop::error::{Error, Result};
use outcrop::verb::explain::{self, Explained, Step};
use serde_json::{Value, json};

use super::format::ago_at;
use super::frame::Out;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_default_value = true)]
    format: String,
    /// Another build than the last one, by its number
    #[arg(long, value_name = "NUMBER")]
    build: Option<u64>,
    /// One step alone, as the build's output counts them
    #[arg(value_name = "STEP")]
    step: Option<u64>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["explain"];
    const ABOUT: &'static str = "Tell why each step of a build ran or did not";
    const EXAMPLE: &'static str = "outcrop explain\noutcrop explain 4\noutcrop explain --format json";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let explained = explain::explain(context.engine()?, self.build.map(BuildId), self.step)?;
        let mut out = context.out();
        match self.format.as_str() {
            "text" => text(&mut out, &explained)?,
            "json" => out.line(object(&explained))?,
            other => {
                return Err(Error::invalid(format!("unknown format `{other}` in --format"))
                    .hint("there are: text, json"));
            }
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `build --explain` ends with the same.
pub(super) fn text(out: &mut Out, explained: &Explained) -> Result<()> {
    let build = &explained.build;
    let status = match build.status {
        BuildStatus::Running => "running",
        BuildStatus::Done => "done",
        BuildStatus::Failed => "failed",
        BuildStatus::Cancelled => "cancelled",
        BuildStatus::Killed => "killed",
    };
    out.line(format_args!(
        "Build {} of {} with {}, {}: {status}",
        build.id,
        build.dockerfile,
        build.context,
        ago_at(build.started_at.seconds())
    ))?;
    for step in &explained.steps {
        let row = &step.row;
        let stage = row.stage.as_ref().map_or(String::new(), |stage| format!("[{stage}] "));
        let result = match row.outcome {
            StepOutcome::Hit => format!("hit   {}", kind(step)),
            StepOutcome::Ran => format!("ran   {:.1}s", row.took.as_secs_f64()),
            StepOutcome::Failed => "failed".to_owned(),
        };
        out.line(format_args!("{:>3}  {stage}{}", row.n, row.instruction))?;
        out.line(format_args!("     {}", result.trim_end()))?;
        for difference in &step.why {
            out.line(format_args!("       {}", difference.sentence()))?;
        }
        if let (StepOutcome::Failed, Some(reason)) = (row.outcome, &row.reason) {
            out.line(format_args!("       {}", reason.lines().next().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// The key that hit, in a word.
fn kind(step: &Step) -> String {
    step.row.key.map_or(String::new(), |(kind, _)| format!("by its {kind} key"))
}

fn object(explained: &Explained) -> Value {
    let build = &explained.build;
    let differences = |why: &[Difference]| -> Vec<Value> {
        why.iter()
            .map(|difference| {
                let mut value = json!(difference);
                value["sentence"] = difference.sentence().into();
                value
            })
            .collect()
    };
    let steps: Vec<Value> = explained
        .steps
        .iter()
        .map(|step| {
            let row = &step.row;
            json!({
                "step": row.n,
                "stage": row.stage,
                "lines": row.lines,
                "instruction": row.instruction,
                "outcome": row.outcome.to_string(),
                "key_kind": row.key.map(|(kind, _)| kind.to_string()),
                "key": row.key.map(|(_, key)| key.0.to_string()),
                "why": differences(&step.why),
                "error": row.reason.as_ref().filter(|_| row.outcome == StepOutcome::Failed),
                "seconds": row.took.as_secs_f64(),
            })
        })
        .collect();
    json!({
        "build": build.id.0,
        "context": build.context,
        "dockerfile": build.dockerfile,
        "status": build.status.to_string(),
        "image": build.image.map(|image| image.to_string()),
        "steps": steps,
    })
}
