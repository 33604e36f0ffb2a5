//! A container goes: its row first, its tree and directory by the sweep.

use std::time::{Duration, Instant};

use super::{process, volume};
use crate::db::{ContainerRow, ContainerState};
use crate::engine::Engine;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kills what runs.
    pub force: bool,
    /// With its nameless volumes.
    pub volumes: bool,
}

/// How long a container that was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// `Conflict` where it runs and force is not wanted. Its tree goes with the next sweep.
pub fn remove(engine: &Engine, row: &ContainerRow, options: RemoveOptions) -> Result<()> {
    if row.state == ContainerState::Running {
        if !options.force {
            return Err(Error::conflict(format!(
                "cannot remove container \"/{}\": container is running: stop the container before removing or force remove",
                row.name
            ))
            .hint("`outcrop rm -f` kills it first"));
        }
        end(engine, row)?;
    }
    let volumes = if options.volumes { volume::names_of(engine, row)? } else { Vec::new() };
    engine.db.durable(|index| match index.container(&row.id)? {
        // Gone by itself when it ended.
        None => Ok(()),
        Some(now) if now.state == ContainerState::Removing => Ok(()),
        Some(_) => index.remove_container(&row.id),
    })?;
    volume::remove_anonymous(engine, &volumes)
}

/// Kills it, and waits until whoever watches over it has written that down.
fn end(engine: &Engine, row: &ContainerRow) -> Result<()> {
    let free = || row.lease.as_deref().map_or(Ok(true), |lease| engine.db.lease_is_free(lease));
    let killed = free()? || process::kill(engine, row, rustix::process::Signal::KILL)?;
    let begun = Instant::now();
    while !free()? {
        if begun.elapsed() > PATIENCE {
            let hint = match killed {
                true => "the process that runs it may be stopped; end that one",
                false => "where it runs in another container, its process cannot be seen from here",
            };
            return Err(Error::unavailable(format!("container {} does not end", row.id.short())).hint(hint));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Of a container whose outcrop was killed.
    engine.sweep()
}
