//! `image prune`: images that nothing uses.

use crate::db::{Condemned, Durable, ImageRow, Time};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{Digest, ImageConfig, ImageId, Reference};
use crate::verb::images;
use crate::verb::rmi::{Removed, Stacks};

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also those with names, unless a container uses them.
    pub all: bool,
    /// Only those made before.
    pub until: Option<Time>,
    /// Only those with all of these labels: key, and value where one is asked for.
    pub labels: Vec<(String, Option<String>)>,
}

/// What went, and how much room that makes.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    /// Bytes.
    pub reclaimed: u64,
}

/// For a disk so full that nothing can be written: the reserve of the store is given up first.
pub fn image_prune(engine: &Engine, options: &Options) -> Result<Pruned> {
    engine.db.give_up_reserve()?;
    let pruned = prune(engine, options)?;
    engine.sweep()?;
    restore_reserve(engine);
    Ok(pruned)
}

/// Drops the compressed forms of layers that a registry is known to have: which, and their bytes. The layers stay, and
/// whatever needs such a form again (a push elsewhere, `save`) fetches it.
pub fn blobs(engine: &Engine) -> Result<(Vec<Digest>, u64)> {
    engine.db.give_up_reserve()?;
    // Where they are is on disk before a byte goes: a new index is to know it, too.
    let noted = engine.db.write(|index| {
        let blobs: Vec<Digest> =
            index.blobs_to_be_had_again()?.into_iter().map(|(digest, _)| digest).collect();
        index.write_origins(&blobs)?;
        Ok(blobs)
    })?;
    if !noted.is_empty() {
        engine.db.write_out()?;
    }
    let dropped = engine.db.durable(|index| {
        let mut blobs = index.blobs_to_be_had_again()?;
        blobs.retain(|(digest, _)| noted.contains(digest));
        let bytes = blobs.iter().map(|(_, size)| size).sum();
        let blobs: Vec<Digest> = blobs.into_iter().map(|(digest, _)| digest).collect();
        index.drop_blobs(&blobs)?;
        Ok((blobs, bytes))
    })?;
    engine.sweep()?;
    restore_reserve(engine);
    Ok(dropped)
}

pub(super) fn restore_reserve(engine: &Engine) {
    if let Err(error) = engine.db.restore_reserve() {
        tracing::warn!("there is no room yet for the store's reserve: {error}");
    }
}

/// Without the sweep.
pub(super) fn prune(engine: &Engine, options: &Options) -> Result<Pruned> {
    let listed = images::list(engine)?;
    let mut fitting = Vec::new();
    for image in &listed {
        if options.fits(engine, &image.row, image.created)? {
            fitting.push(image.row.id);
        }
    }
    engine.db.durable(|index| {
        let mut pruned = Pruned::default();
        if options.all {
            for image in &fitting {
                remove_names(index, image, &mut pruned.removed)?;
            }
        }
        let going: Vec<ImageId> =
            index.dangling_images()?.into_iter().filter(|image| fitting.contains(image)).collect();
        let stacks = Stacks::of_all(index, &going)?;
        let mut gone = Condemned::default();
        for image in &going {
            // A parent that nothing keeps went with its child.
            let here = index.image(image)?.is_some_and(|row| !row.condemned);
            if here && index.image_is_unused(image)? {
                let more = index.condemn_images(&[*image])?;
                gone.images.extend(more.images);
                gone.layers.extend(more.layers);
                gone.blobs.extend(more.blobs);
            }
        }
        pruned.removed.extend(stacks.told(&gone));
        pruned.reclaimed = gone.bytes();
        Ok(pruned)
    })
}

impl Options {
    fn fits(&self, engine: &Engine, row: &ImageRow, created: Option<Time>) -> Result<bool> {
        if self.until.is_some_and(|until| created.unwrap_or(row.made_at) >= until) {
            return Ok(false);
        }
        if self.labels.is_empty() {
            return Ok(true);
        }
        let (config, _) = images::config(engine, &row.id)?;
        Ok(self.labels.iter().all(|(key, value)| has_label(&config, key, value.as_deref())))
    }
}

fn has_label(config: &ImageConfig, key: &str, value: Option<&str>) -> bool {
    let found = config.config.labels.as_ref().and_then(|labels| labels.get(key));
    found.is_some_and(|found| value.is_none_or(|value| found == value))
}

fn remove_names(index: &Durable<'_>, image: &ImageId, removed: &mut Vec<Removed>) -> Result<()> {
    if !index.containers_of(image)?.is_empty() {
        return Ok(());
    }
    for tag in index.tags_of(image)? {
        index.remove_tag(&tag.name, "prune", None)?;
        removed.push(Removed::Name(tag.name.parse::<Reference>()?.familiar()));
    }
    for known in index.repo_digests_of(image)? {
        index.remove_repo_digest(&known.repository, &known.digest)?;
        let name: Reference = format!("{}@{}", known.repository, known.digest).parse()?;
        removed.push(Removed::Name(name.familiar()));
    }
    Ok(())
}
