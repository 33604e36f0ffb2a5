//! `commit`: what a container has changed becomes a layer, and its image with that layer a new image.

use std::os::fd::AsFd as _;

use super::{change, images};
use crate::container::{self, Config, Still};
use crate::db::{ContainerRow, NewImage, Origin};
use crate::engine::{self, Engine};
use crate::error::{Context as _, Error, Result};
use crate::image::{History, ImageConfig, ImageId, Reference, RunConfig};
use crate::job::Job;
use crate::rootfs::{self, Known, Made, Outcome, Stack};
use crate::snapshot::Purpose;

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub name: Option<Reference>,
    pub author: Option<String>,
    pub message: Option<String>,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Stop a container that runs while its files are copied.
    pub pause: bool,
}

/// The container keeps its writable layer as it is.
pub fn commit(engine: &Engine, row: &ContainerRow, options: &Options, job: &Job) -> Result<ImageId> {
    let doing = || format!("committing container {}", row.id.short());
    let config = Config::of(row)?;
    let (base, _) = images::config(engine, &row.image)?;
    let image = engine.db.read(|index| index.image(&row.image))?;
    let image = image.ok_or_else(|| Error::internal("a container without its image")).context(doing)?;
    let run = change::apply(run_config(&config, &base.config), &options.changes)?;
    let parent = Stack::load(engine, image.chain.as_ref())?;
    let created_by = config.args().join(" ");

    let lease = engine.db.lease()?;
    let draft = copy(engine, row, options.pause).context(doing)?;
    let made = Made { instruction: Some(&created_by), ..Made::default() };
    let layer =
        match rootfs::pack(engine, draft, &parent, &made, Known::default(), &lease, job).context(doing)? {
            Outcome::Layer(layer) => layer,
            Outcome::Differs(path) => return Err(Error::internal(format!("{path} was not copied"))),
        };
    let stack = parent.with(layer.clone());
    let created = engine::rfc3339(None);
    let mut whole = ImageConfig {
        author: options.author.clone().or_else(|| base.author.clone()),
        config: run,
        created: Some(created.clone()),
        ..base
    };
    whole.rootfs.diff_ids.push(layer.diff_id);
    whole.history.push(History {
        created: Some(created.clone()),
        created_by: Some(created_by.clone()),
        author: options.author.clone(),
        comment: options.message.clone().filter(|text| !text.is_empty()),
        ..History::default()
    });
    let id = publish(engine, &whole, row, &stack, created, created_by)?;
    engine.barrier(|durable| match &options.name {
        Some(name) => durable.move_tag(&name.to_string(), &id, None, "commit", None).map(drop),
        None => Ok(()),
    })?;
    drop(lease);
    engine.sweep()?;
    Ok(id)
}

/// Visible, not yet durable.
fn publish(
    engine: &Engine,
    config: &ImageConfig,
    row: &ContainerRow,
    stack: &Stack,
    created: String,
    created_by: String,
) -> Result<ImageId> {
    let staged = engine.blobs.stage(&config.to_bytes())?;
    engine.db.write(|index| {
        let id = ImageId(staged.publish(index, None)?);
        index.insert_image(&NewImage {
            id,
            parent: Some(row.image),
            chain: stack.chain().copied(),
            platform: config.platform().to_string(),
            created: Some(created),
            created_by: Some(created_by),
            origin: Origin::Committed,
            build: None,
        })?;
        Ok(id)
    })
}

/// The image's configuration as the container had it.
fn run_config(config: &Config, image: &RunConfig) -> RunConfig {
    let some = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    RunConfig {
        user: config.user.clone(),
        env: Some(config.env.iter().filter(|variable| variable.contains('=')).cloned().collect::<Vec<_>>())
            .filter(|env| !env.is_empty()),
        entrypoint: some(&config.entrypoint),
        cmd: some(&config.cmd),
        working_dir: config.working_dir.clone(),
        labels: Some(config.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: config.stop_signal.clone(),
        ..image.clone()
    }
}

/// Its changes, in a tree that nobody writes to.
fn copy<'e>(engine: &'e Engine, row: &ContainerRow, pause: bool) -> Result<crate::snapshot::Draft<'e>> {
    let still = Still::of(engine, row, pause)?;
    // Before its files: if it ends meanwhile, its mount points go, and the copy may still have some.
    let made = container::mount_points(engine, &row.id)?;
    let copied = engine.snapshots.copy(still.row.snapshot, Purpose::Layer);
    // Before what the copying says: a tree that was removed beneath it is the cause, and not the effect.
    still.end(engine)?;
    let draft = copied?;
    if !made.is_empty() {
        made.undo(draft.mounted()?.as_fd())?;
    }
    Ok(draft)
}
