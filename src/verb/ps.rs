//! `ps`: the containers.

use super::images;
use crate::container::{self, Config};
use crate::db::{ContainerRow, ContainerState};
use crate::engine::Engine;
use crate::error::Result;
use crate::job::Job;

pub struct Listed {
    pub row: ContainerRow,
    pub config: Config,
    /// As the user named it; its id once that name means another.
    pub image: String,
    /// Bytes of the image's layers.
    pub image_bytes: u64,
}

/// All but those that are going, the latest first.
pub fn ps(engine: &Engine) -> Result<Vec<Listed>> {
    // Those whose outcrop was killed do not run.
    engine.sweep()?;
    let rows = engine.db.read(|index| index.containers())?;
    let rows = rows.into_iter().filter(|row| row.state != ContainerState::Removing);
    rows.map(|row| listed(engine, row)).collect()
}

fn listed(engine: &Engine, row: ContainerRow) -> Result<Listed> {
    let config = Config::of(&row)?;
    let named = images::find(engine, &config.image).ok().flatten();
    let image = match named {
        Some(image) if image.id == row.image => config.image.clone(),
        _ => row.image.short(),
    };
    let image_bytes = engine.db.read(|index| index.image(&row.image))?.map_or(0, |image| image.size);
    Ok(Listed { row, config, image, image_bytes })
}

/// Bytes that it has written, and those with the image's.
pub fn sizes(engine: &Engine, listed: &Listed, job: &Job) -> Result<(u64, u64)> {
    let own = container::changed_bytes(engine, &listed.row, job)?;
    Ok((own, own + listed.image_bytes))
}
