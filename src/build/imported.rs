//! Steps that another store came to: hits on layers that are not here yet, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use super::stage::Stage;
use super::{Base, Inputs, image, record};
use crate::context::Listing;
use crate::db::{KeyKind, LayerNumber, Time};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{CacheKey, Digest, ImageConfig, ImageId};
use crate::job::Job;
use crate::rootfs::{self, Layer, Stack};
use crate::snapshot::driver::Shape;

impl Stage<'_> {
    /// The stack with all of its layers here.
    pub(super) fn here(&self, stack: &Stack) -> Result<Stack> {
        here(self.inputs, stack, self.job)
    }

    /// The files of a stack that is not here; `None` where it is, or where they are not known well enough.
    pub(super) fn listing(&self, stack: &Stack) -> Result<Option<Arc<Listing>>> {
        let Some(imported) = self.inputs.imported.filter(|imported| imported.is_remote(stack)) else {
            return Ok(None);
        };
        let Some(chain) = stack.chain() else { return Ok(None) };
        if let Some(known) = self.board.listing(chain) {
            return Ok(known);
        }
        let listing = match imported.rows(stack, self.job)? {
            true => {
                let numbers: Vec<LayerNumber> = stack.layers().iter().map(|layer| layer.number).collect();
                Listing::new(rootfs::merged(&self.engine.db, &numbers))?.map(Arc::new)
            }
            false => None,
        };
        self.board.keep_listing(*chain, listing.clone());
        Ok(listing)
    }

    /// As `stands`, on a stack that may not be here yet.
    pub(super) fn stands_or_will(&self, below: &Stack, layer: Option<&Layer>) -> Result<bool> {
        let remote = self.inputs.imported.is_some_and(|imported| imported.is_remote(below));
        // One tree serves every stack, also those to come.
        if remote && self.engine.snapshots.driver().shape() == Shape::Layered {
            return Ok(true);
        }
        self.stands(&self.here(below)?, layer)
    }

    /// A record of a cache that the build was given.
    pub(super) fn imported_hit(
        &self,
        base: &Base,
        key: &CacheKey,
        newest: Option<Duration>,
    ) -> Result<Option<record::Hit>> {
        let Some(imported) = self.inputs.imported else { return Ok(None) };
        let Some(hit) = imported.look_up(KeyKind::Chain, key, oldest(newest))? else { return Ok(None) };
        let created = hit.created.clone();
        let Some(layer) = &hit.layer else {
            imported.keep(&hit, None)?;
            return Ok(Some(record::Hit { layer: None, created, build: None }));
        };
        if !imported.is_remote(&base.stack)
            && let Some(known) = base.stack.find(self.engine, &layer.diff_id)?
            && known.content_id == layer.content_id
        {
            imported.keep(&hit, Some(&known))?;
            return Ok(Some(record::Hit { layer: Some(known), created, build: None }));
        }
        imported.keep_later(&hit, &base.stack.with(layer.clone()));
        Ok(Some(record::Hit { layer: hit.layer, created, build: None }))
    }

    /// A record of the same step on another stack, which shows what the step saw; `new` is what it is remembered as here.
    pub(super) fn imported_elsewhere(
        &self,
        base: &Base,
        new: &record::New<'_>,
    ) -> Result<Option<record::Hit>> {
        let Some(imported) = self.inputs.imported else { return Ok(None) };
        let holds = |reads: &str| Ok(imported.rows(&base.stack, self.job)? && self.shows(base, reads)?);
        let hit = imported.look_up_step(&new.step, oldest(self.inputs.reuse.newest), holds)?;
        let Some(hit) = hit else { return Ok(None) };
        let created = image::not_before(&base.config, hit.created, self.inputs.epoch);
        let came =
            record::Came { layer: None, created: &created, reads: hit.reads, made_at: Some(hit.made_at) };
        let mut record = new.record(came, self.inputs.record);
        match &hit.layer {
            None => drop(self.engine.db.write(|index| index.insert_cache_record(&record))?),
            Some(layer) => imported.defer(&base.stack.with(layer.clone()), move |engine, stack| {
                record.layer = stack.layers().last().map(|layer| layer.number);
                engine.db.write(|index| index.insert_cache_record(&record)).map(drop)
            }),
        }
        Ok(Some(record::Hit { layer: hit.layer, created, build: None }))
    }
}

/// Steps that ran before do not count.
fn oldest(newest: Option<Duration>) -> Option<Time> {
    newest.map(|newest| {
        let age = i64::try_from(newest.as_nanos()).unwrap_or(i64::MAX);
        Time(Time::now().0.saturating_sub(age))
    })
}

pub(super) fn here(inputs: &Inputs<'_>, stack: &Stack, job: &Job) -> Result<Stack> {
    match inputs.imported {
        Some(imported) => imported.here(stack, job),
        None => Ok(stack.clone()),
    }
}

/// As `record::publish_image`; on a stack that is not here the image is published when that is.
pub(super) fn publish_image(
    engine: &Engine,
    inputs: &Inputs<'_>,
    config: &ImageConfig,
    parent: Option<ImageId>,
    stack: &Stack,
) -> Result<ImageId> {
    let build = inputs.record;
    let Some(imported) = inputs.imported.filter(|imported| imported.is_remote(stack)) else {
        return record::publish_image(engine, config, parent, stack, build);
    };
    let id = ImageId(Digest::of(&image::to_bytes(config)));
    let config = config.clone();
    imported.defer(stack, move |engine, stack| {
        record::publish_image(engine, &config, parent, stack, build).map(drop)
    });
    Ok(id)
}
