//! A build's plans, one for each platform, carried out side by side.

use crate::build::{self, Inputs, Part, Reuse};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::Platform;
use crate::job::Job;
use crate::layer;
use crate::plan::Plan;

/// All platforms side by side: what two have in common the second finds in the cache, or waits for.
pub(super) fn build(
    engine: &Engine,
    platforms: &[Platform],
    plans: &[Plan],
    reuse: &[Reuse],
    inputs: &Inputs<'_>,
    job: &Job,
) -> Result<Vec<build::Outcome>> {
    let total = plans.iter().map(Plan::step_count).sum();
    let several = platforms.len() > 1;
    let job = &job.child();
    let mut before = 0;
    let mut parts = Vec::new();
    for ((platform, plan), reuse) in std::iter::zip(platforms, plans).zip(reuse) {
        let label = several.then(|| platform.to_string());
        let inputs = Inputs {
            epoch: plan.epoch,
            platform: inputs.platform.as_ref().map(|_| platform.clone()),
            reuse: reuse.clone(),
            part: Part { before, total, label },
            ..inputs.clone()
        };
        before += plan.step_count();
        parts.push((platform, plan, inputs));
    }
    let one = |(platform, plan, inputs): (&Platform, &Plan, Inputs<'_>)| {
        let built = build::build(engine, plan, &inputs, job);
        match built {
            Err(cause) if several => {
                // The others would be for nothing.
                job.cancel().set();
                Err(cause).context(|| format!("building for {platform}"))
            }
            built => built,
        }
    };
    let built: Vec<Result<build::Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|part| layer::spawn(scope, || one(part))).collect();
        let crashed = |_| Err(Error::internal("a thread of the build panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(crashed)).collect()
    });
    // What was stopped because of a failure is not the failure.
    let failed = built.iter().position(failed_by_itself).or_else(|| built.iter().position(Result::is_err));
    match failed {
        Some(failed) => Err(built.into_iter().nth(failed).and_then(Result::err).expect("it is an error")),
        None => built.into_iter().collect(),
    }
}

fn failed_by_itself(built: &Result<build::Outcome>) -> bool {
    built.as_ref().is_err_and(|error| error.kind() != Kind::Cancelled)
}

/// Each image as one layer on its base.
pub(super) fn squash(
    engine: &Engine,
    plans: &[Plan],
    outcomes: Vec<build::Outcome>,
    inputs: &Inputs<'_>,
    job: &Job,
) -> Result<Vec<build::Outcome>> {
    let squashed = std::iter::zip(plans, outcomes).map(|(plan, outcome)| {
        let inputs = Inputs { epoch: plan.epoch, ..inputs.clone() };
        build::squash(engine, plan, outcome, &inputs, job)
    });
    squashed.collect()
}
