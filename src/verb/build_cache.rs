//! The caches of a build: those it was given, and those it leaves.

use crate::build::mounts::caches;
use crate::build::{self, Inputs};
use crate::cache::{self, Built, Imported, MountDir};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::Digest;
use crate::job::Job;
use crate::output::Elsewhere as _;
use crate::rootfs::Stack;
use crate::verb::build::Options;

/// Tries it; what a cache promised and could not give does not count from then on, and it is tried again.
pub(super) fn until_kept<T>(inputs: &Inputs<'_>, job: &Job, attempt: impl Fn() -> Result<T>) -> Result<T> {
    loop {
        let outcome = attempt();
        let Some(imported) = inputs.imported else { return outcome };
        match (&outcome, imported.take_lost()) {
            (Err(_), Some(why)) => {
                job.warn(format!("building again without what a cache cannot give: {why}"));
                inputs.notes.start_again();
            }
            _ => return outcome,
        }
    }
}

/// The outcomes with all layers here that have to be.
pub(super) fn here(
    engine: &Engine,
    options: &Options,
    imported: &Imported<'_>,
    mut outcomes: Vec<build::Outcome>,
    job: &Job,
) -> Result<Vec<build::Outcome>> {
    if may_stay_away(engine, options, imported, &outcomes)? {
        return Ok(outcomes);
    }
    for outcome in &mut outcomes {
        outcome.stack = imported.here(&outcome.stack, job)?;
    }
    Ok(outcomes)
}

/// Whether layers that are not here are needed by no output. A name that an image has here would point at something else
/// than at its registry: there all of it comes.
fn may_stay_away(
    engine: &Engine,
    options: &Options,
    imported: &Imported<'_>,
    outcomes: &[build::Outcome],
) -> Result<bool> {
    let outputs = &options.results.outputs;
    let inline = options.cache.to.iter().any(cache::To::is_inline);
    if outputs.is_empty() || options.results.squash || inline {
        return Ok(false);
    }
    let names = outputs.iter().filter_map(|output| output.pushes_to()).flatten().chain(&options.names);
    for name in names {
        if engine.db.read(|index| index.tag(&name.to_string()))?.is_some() {
            return Ok(false);
        }
    }
    // The config of a base image that nothing was added to is as its maker wrote it.
    let is_ours =
        |outcome: &build::Outcome| Digest::of(&outcome.config.to_bytes()) == *outcome.image.digest();
    let layers = || outcomes.iter().flat_map(|outcome| outcome.stack.layers());
    let mut away = layers().filter(|layer| imported.is_away(layer)).map(|layer| imported.distant(layer));
    let taken = away.all(|distant| outputs.iter().all(|output| output.takes(distant.as_ref())));
    Ok(taken && outcomes.iter().all(is_ours))
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
    bases: &[Stack],
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
            bases,
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
