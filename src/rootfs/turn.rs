//! Of several processes that want a layer one brings and unpacks it, and the others take it.
//!
//! Who has the turn holds a lease until the layer is published, and who waits for one holds none that others wait for: so
//! there is always one who goes on, in whatever order they want their layers.

use std::cell::Cell;

use super::Stack;
use crate::db::Lease;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{ChainId, DiffId, LayerId};
use crate::job::{Event, Job, LOOK};

/// Of bringing the layer here, and unpacking it where it may stand on anything. `None`: somebody else has it. What is known
/// is looked up again by whoever gets it.
pub fn turn(engine: &Engine, layer: &DiffId) -> Result<Option<Lease>> {
    engine.db.try_lease(&format!("layer-{}", layer.hex()))
}

/// Of giving the layer its place on that stack.
pub fn wait_for_place(
    engine: &Engine,
    below: &Stack,
    layer: &DiffId,
    name: &LayerId,
    job: &Job,
) -> Result<Lease> {
    let told = Cell::new(false);
    let wait = || {
        if !told.replace(true) {
            job.report(Event::Note(format!("another process unpacks layer {name}; waiting for it")));
        }
        job.pause(LOOK)
    };
    let chain = ChainId::on(below.chain(), layer);
    engine.db.wait_for_lease(&format!("stack-{}", chain.hex()), &wait)
}
