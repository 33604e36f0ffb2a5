//! The caches of a build: those it was given, and those it leaves.

use crate::build::mounts::caches;
use crate::build::{self, Inputs, Reuse};
use crate::cache::{self, Built, Imported, MountDir};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::Platform;
use crate::job::Job;
use crate::plan::Plan;
use crate::rootfs::Stack;
use crate::verb::build::Options;
use crate::verb::build_platforms;

/// What the plans come to, all of it here. What a cache promised and cannot give does not count, and the build begins anew.
pub(super) fn outcomes(
    engine: &Engine,
    platforms: &[Platform],
    plans: &[Plan],
    reuse: &[Reuse],
    inputs: &Inputs<'_>,
    job: &Job,
) -> Result<Vec<build::Outcome>> {
    loop {
        let outcomes = build_platforms::build(engine, platforms, plans, reuse, inputs, job);
        let Some(imported) = inputs.imported else { return outcomes };
        let outcomes = outcomes.and_then(|outcomes| here(imported, outcomes, job));
        match (&outcomes, imported.take_lost()) {
            (Err(_), Some(why)) => {
                job.warn(format!("building again without what a cache cannot give: {why}"));
                inputs.notes.start_again();
            }
            _ => return outcomes,
        }
    }
}

fn here(
    imported: &Imported<'_>,
    mut outcomes: Vec<build::Outcome>,
    job: &Job,
) -> Result<Vec<build::Outcome>> {
    for outcome in &mut outcomes {
        outcome.stack = imported.here(&outcome.stack, job)?;
    }
    Ok(outcomes)
}

/// The outcomes with what their steps came to in their configs, where that was asked for.
pub(super) fn inline(
    engine: &Engine,
    options: &Options,
    inputs: &Inputs<'_>,
    epoch: Option<i64>,
    outcomes: &mut [build::Outcome],
) -> Result<()> {
    if !options.cache.to.iter().any(cache::To::is_inline) {
        return Ok(());
    }
    let steps = inputs.notes.keys();
    let latest = epoch.map(|epoch| epoch.saturating_mul(1_000_000_000));
    for outcome in outcomes {
        let config = cache::inline(engine, &steps, &outcome.config, &outcome.stack, latest)?;
        let parent = Some(outcome.image);
        outcome.image = build::publish_image(engine, &config, parent, &outcome.stack, inputs.record)?;
        outcome.config = config;
    }
    Ok(())
}

/// Writes the caches that were asked for.
pub(super) fn export(
    engine: &Engine,
    options: &Options,
    inputs: &Inputs<'_>,
    stacks: &[Stack],
    job: &Job,
) -> Result<()> {
    for to in &options.cache.to {
        let wanted = if to.mounts { inputs.notes.caches() } else { Vec::new() };
        let held: Vec<_> = wanted
            .into_iter()
            .map(|identity| Ok((caches::hold(engine, &identity)?, identity)))
            .collect::<Result<_>>()?;
        let mounts = held.iter().map(|(slot, identity)| MountDir {
            identity: identity.text(),
            dir: slot.as_ref().map(caches::Slot::data),
        });
        let built = Built {
            engine,
            steps: inputs.notes.keys(),
            stacks: stacks.iter().collect(),
            registry: &options.registry,
            mounts: mounts.collect(),
            imported: inputs.imported,
        };
        match cache::export(&built, to, job) {
            Err(problem) if to.ignore_error && !job.cancel().is_set() => {
                job.warn(format!("{}, and the build goes on", problem.one_line()));
            }
            exported => exported?,
        }
    }
    Ok(())
}
