//! `--squash`: all that was built on the base image becomes one layer; config and history as Docker's `--squash` leaves them.

use serde::Serialize;

use super::{Base, Inputs, Outcome, imported, record};
use crate::engine::{self, Engine};
use crate::error::{Context as _, Result};
use crate::image::{CacheKey, ContentId, Digest, History, ImageId};
use crate::job::{Event, Job};
use crate::plan::{self, Plan};
use crate::rootfs::{self, Layer, Made, Stack};

/// Raised when equal layers may come to another one than they used to.
const VERSION: u32 = 1;

/// All that the merged layer depends on; with `image` all that its image does.
#[derive(Serialize)]
struct Key<'k> {
    version: u32,
    parent: &'k [ContentId],
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
    squash: &'k [ContentId],
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageId>,
}

impl Key<'_> {
    fn digest(&self) -> (CacheKey, String) {
        let text = serde_json::to_string(self).expect("keys are plain data");
        (CacheKey(Digest::of(text.as_bytes())), text)
    }
}

/// The image with one layer on its base; as it is where nothing was added to that.
pub fn squash(
    engine: &Engine,
    plan: &Plan,
    outcome: Outcome,
    inputs: &Inputs<'_>,
    job: &Job,
) -> Result<Outcome> {
    let base = base(plan, inputs, job)?;
    let (kept, history) =
        base.as_ref().map_or((0, 0), |base| (base.stack.layers().len(), base.config.history.len()));
    let merged = outcome.stack.layers().len() - kept;
    if merged == 0 {
        return Ok(outcome);
    }
    job.report(Event::Note(format!("squashing {merged} layer{}", if merged == 1 { "" } else { "s" })));
    let base_image = base.as_ref().and_then(|base| base.image);
    let below = base.map(|base| base.stack).unwrap_or_default();
    let (layer, created) = layer(engine, &outcome, &below, inputs, job).context(|| "squashing the image")?;

    let mut config = outcome.config;
    config.rootfs.diff_ids.truncate(kept);
    config.rootfs.diff_ids.push(layer.diff_id);
    for entry in config.history.iter_mut().skip(history) {
        entry.empty_layer = true;
    }
    let from = outcome.image;
    config.history.push(History {
        created: Some(created.clone()),
        comment: Some(match base_image {
            Some(base) => format!("merge {from} to {base}"),
            None => format!("create new from {from}"),
        }),
        ..History::default()
    });
    config.created = Some(created);
    let stack = below.with(layer);
    let image = record::publish_image(engine, &config, Some(from), &stack, inputs.record)?;
    Ok(Outcome { image, config, stack, ran: outcome.ran })
}

/// The image that the target stands on in the end; `None` where that is nothing, or files.
fn base(plan: &Plan, inputs: &Inputs<'_>, job: &Job) -> Result<Option<Base>> {
    let mut stage = &plan.stages[plan.target.0];
    loop {
        match &stage.base {
            plan::Base::Stage(below) => stage = &plan.stages[below.0],
            plan::Base::Image(name) if inputs.images.directory(name)?.is_none() => {
                let base = inputs.images.image(name, &stage.platform, inputs.imported, job)?;
                let stack = imported::here(inputs, &base.stack, job)?;
                return Ok(Some(Base { stack, ..base }));
            }
            plan::Base::Scratch | plan::Base::Image(_) => return Ok(None),
        }
    }
}

/// The merged layer and the time of the squashing: of an equal image those of the time before.
fn layer(
    engine: &Engine,
    outcome: &Outcome,
    below: &Stack,
    inputs: &Inputs<'_>,
    job: &Job,
) -> Result<(Layer, String)> {
    let content = outcome.stack.content_ids();
    let (parent, squash) = content.split_at(below.layers().len());
    let mut key = Key { version: VERSION, parent, epoch: inputs.epoch, squash, image: None };
    let step = key.digest().0;
    key.image = Some(outcome.image);
    let (key, key_text) = key.digest();
    if let Some(hit) = record::look_up(engine, &key, None, inputs.notes)?
        && let Some(layer) = hit.layer
        && rootfs::ensure(engine, below, &layer, inputs.lease, job)?
    {
        return Ok((layer, hit.created));
    }
    let layer = match record::made_last(engine, &step)?.and_then(|made| made.layer) {
        Some(layer) if rootfs::ensure(engine, below, &layer, inputs.lease, job)? => layer,
        _ => {
            let made = Made { instruction: Some("squash"), build: Some(inputs.record), epoch: inputs.epoch };
            rootfs::merge(engine, &outcome.stack, below.layers().len(), &made, inputs.lease, job)?
        }
    };
    let created = engine::rfc3339(inputs.epoch);
    let new = record::New { key, step, key_text, instruction: "squash" };
    let came = record::Came { layer: Some(&layer), created: &created, reads: None, made_at: None };
    record::remember(engine, &new, came, inputs.record)?;
    Ok((layer, created))
}
