//! `start`, and the second half of `run`: a container's process in the foreground, to its end.

use crate::container::{self, Foreground};
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::error::Result;
use crate::job::Job;
use crate::runtime::Exit;

/// A container made to go with its end is gone when it returns.
pub fn start(engine: &Engine, row: &ContainerRow, foreground: Foreground<'_>, job: &Job) -> Result<Exit> {
    let exit = container::start(engine, row, foreground, job);
    engine.sweep()?;
    exit
}
