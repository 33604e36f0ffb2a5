//! A new container: a writable layer on an image, and a row that keeps both.

use super::names::made_up;
use super::{Config, Record, check_name, directory, volume};
use crate::db::{
    ContainerId, ContainerRow, ContainerState, ImageRow, Lease, NewContainer, Reader, SnapshotId,
};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::RunConfig;
use crate::job::Job;
use crate::network;
use crate::snapshot::Purpose;

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct New {
    /// `None`: one is made up.
    pub name: Option<String>,
    /// What was said, without what the image says.
    pub config: Config,
    /// It goes when it ends.
    pub auto_remove: bool,
}

/// `starter` is held by whoever is going to start it at once: nobody takes it for idle meanwhile. Errors: no command, a name that is taken (`Conflict`), flags that contradict each other. Nothing is left then.
pub fn create(
    engine: &Engine,
    image: &ImageRow,
    image_config: &RunConfig,
    new: New,
    starter: Option<&Lease>,
    job: &Job,
) -> Result<ContainerRow> {
    let mut config = new.config.on(image_config);
    check(&config)?;
    if let Some(name) = &new.name {
        check_name(name)?;
        // Said before anything is made; that nobody was faster is for the row to tell.
        if let Some(other) = engine.db.read(|index| index.container_by_name(name))? {
            return Err(crate::db::name_is_taken(name, &other.id));
        }
    }
    let volumes = volume::make(engine, &mut config, image.chain.as_ref(), job)?;
    let id = ContainerId::random();
    let row = insert(engine, image, &id, new.name, &config, new.auto_remove, &volumes, starter)
        .inspect_err(|_| volumes.iter().for_each(|volume| volume.give_up(engine)))?;
    if let Err(error) = record(engine, &row) {
        engine.db.write(|index| index.remove_container(&id))?;
        return Err(error);
    }
    Ok(row)
}

/// Its directory comes after the row, so that none stands without one; in a transaction, so that none comes after its
/// removal.
pub(super) fn record(engine: &Engine, row: &ContainerRow) -> Result<()> {
    write_record(engine, row, None)
}

fn write_record(engine: &Engine, row: &ContainerRow, moved: Option<SnapshotId>) -> Result<()> {
    let dir = directory(engine, &row.id);
    engine.db.write(|index| match index.container(&row.id)? {
        Some(now) if matches!(now.state, ContainerState::Created | ContainerState::Exited) => {
            std::fs::create_dir_all(&dir).context(|| format!("making {}", dir.display()))?;
            let record = Record::of(row, index.volumes_of(&row.id)?);
            Record { moved, ..record }.write(&engine.root, &row.id)
        }
        _ => Ok(()),
    })
}

/// Of every container anew, after their writable layers were moved.
pub fn record_all(engine: &Engine) -> Result<()> {
    let moved = engine.db.read(|index| index.moved())?;
    for row in engine.db.read(|index| index.containers())? {
        let also = moved.iter().find(|moved| moved.container == row.id).map(|moved| moved.snapshot);
        write_record(engine, &row, also)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "what a row and its neighbours hold")]
fn insert(
    engine: &Engine,
    image: &ImageRow,
    id: &ContainerId,
    name: Option<String>,
    config: &Config,
    auto_remove: bool,
    volumes: &[volume::Used],
    starter: Option<&Lease>,
) -> Result<ContainerRow> {
    let draft = engine.snapshots.draft(image.chain.as_ref(), Purpose::Container)?;
    if let Some(bytes) = config.storage_size {
        draft.limit(bytes)?;
    }
    let config = config.to_json()?;
    draft.keep(|index, snapshot| {
        let name = match name {
            Some(name) => name,
            None => free_name(index)?,
        };
        let new = NewContainer { id: id.clone(), name, image: image.id, snapshot, auto_remove, config };
        index.insert_container(&new)?;
        for volume in volumes {
            volume.record(engine, index, id)?;
        }
        if let Some(starter) = starter {
            index.container_is_starting(id, starter)?;
        }
        let row = index.container(id)?;
        row.ok_or_else(|| Error::internal("a container that was inserted is not there"))
    })
}

/// One that nobody has.
fn free_name(index: &Reader<'_>) -> Result<String> {
    let mut number = 0_u64;
    loop {
        let mut bytes = [0; 2];
        // Where there are none, the same name with a number will do.
        let _filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let mut name = made_up(bytes);
        if number > 0 {
            name.push_str(&number.to_string());
        }
        if index.container_by_name(&name)?.is_none() {
            return Ok(name);
        }
        number += 1;
    }
}

fn check(config: &Config) -> Result<()> {
    if config.args().is_empty() {
        return Err(Error::invalid("no command specified")
            .hint("the image has neither CMD nor ENTRYPOINT: put a command behind its name"));
    }
    config.capabilities()?;
    network::find(&config.network)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    let mut targets: Vec<&str> = config.mounts.iter().map(|mount| mount.target.as_str()).collect();
    targets.extend(config.tmpfs.iter().map(|tmpfs| tmpfs.target.as_str()));
    targets.sort_unstable();
    if let Some(twice) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", twice[0])));
    }
    Ok(())
}
