//! A container whose files stay as they are while they are read.

use std::os::fd::OwnedFd;

use super::freeze::{Frozen, freeze};
use super::{has_mount_points, recover, turn};
use crate::db::{ContainerRow, ContainerState};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};

/// Nobody starts it while this lives, if it does not run. That it was removed, or has ended and was started again, is found
/// out at the end.
pub struct Still {
    /// As it is now.
    pub row: ContainerRow,
    _turn: Option<OwnedFd>,
    _frozen: Option<Frozen>,
}

impl Still {
    /// `pause`: its processes are stopped, if it runs; else what they write meanwhile may be read or not.
    pub fn of(engine: &Engine, row: &ContainerRow, pause: bool) -> Result<Still> {
        let turn = match turn(engine, &row.id) {
            // One that was created just now has no directory yet.
            Err(error) if error.kind() == Kind::NotFound => None,
            turn => Some(turn?),
        };
        let row = now(engine, row)?;
        if row.state != ContainerState::Running {
            if has_mount_points(engine, &row.id) {
                recover(engine, &row)?;
            }
            return Ok(Still { row, _turn: turn, _frozen: None });
        }
        drop(turn);
        let frozen = pause.then(|| freeze(engine, &row)).transpose()?;
        Ok(Still { row, _turn: None, _frozen: frozen })
    }

    pub fn runs(&self) -> bool {
        self.row.state == ContainerState::Running
    }

    /// `NotFound` or `Conflict`: what was read is not what it had at one moment.
    pub fn end(self, engine: &Engine) -> Result<()> {
        let now = now(engine, &self.row)?;
        if now.started_at != self.row.started_at || now.snapshot != self.row.snapshot {
            let started = format!("container {} was started meanwhile", self.row.id.short());
            return Err(Error::conflict(started).hint("try again"));
        }
        Ok(())
    }
}

fn now(engine: &Engine, row: &ContainerRow) -> Result<ContainerRow> {
    let now = engine.db.read(|index| index.container(&row.id))?;
    now.filter(|now| now.state != ContainerState::Removing)
        .ok_or_else(|| Error::not_found(format!("container {} was removed meanwhile", row.id.short())))
}
