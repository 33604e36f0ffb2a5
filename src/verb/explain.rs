//! `explain`: what became of each step of a build, and why what ran had to.

use crate::build::difference::Difference;
use crate::db::{BuildId, BuildRow, BuildStep, StepOutcome};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};

#[derive(Clone, Debug)]
pub struct Explained {
    pub build: BuildRow,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub row: BuildStep,
    /// Of a step that ran; empty where nothing is known, as for steps that change the configuration alone.
    pub why: Vec<Difference>,
}

/// Of the build with this number, else of the last one; all steps, or the one that people count as `step`.
pub fn explain(engine: &Engine, build: Option<BuildId>, step: Option<u64>) -> Result<Explained> {
    let found = engine.db.read(|index| {
        let row = match build {
            Some(id) => index.build(id)?,
            None => index.builds(1)?.into_iter().next(),
        };
        row.map(|row| Ok((index.build_steps(row.id)?, row))).transpose()
    })?;
    let Some((rows, build)) = found else {
        return Err(match build {
            Some(id) => Error::not_found(format!("there is no build {id}"))
                .hint("only the latest builds are remembered; leave the number out for the last one"),
            None => Error::not_found("nothing was built in this store yet"),
        });
    };
    let count = rows.len();
    let rows: Vec<BuildStep> = rows.into_iter().filter(|row| step.is_none_or(|step| row.n == step)).collect();
    if let (Some(step), true) = (step, rows.is_empty()) {
        return Err(Error::not_found(format!("build {} has nothing to tell of a step {step}", build.id))
            .hint(format!(
                "it did {count} steps; they are counted as in the build's output, from 1 with each FROM"
            )));
    }
    let steps = rows.into_iter().map(told).collect::<Result<_>>()?;
    Ok(Explained { build, steps })
}

fn told(row: BuildStep) -> Result<Step> {
    let why = match (&row.outcome, &row.reason) {
        (StepOutcome::Ran, Some(reason)) => serde_json::from_str(reason)
            .context(|| format!("reading what is known of step {} of a build", row.n))?,
        _ => Vec::new(),
    };
    Ok(Step { row, why })
}
