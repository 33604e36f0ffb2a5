//! Layers and snapshots: a draft becomes a layer (`pack`), an archive becomes a layer (`unpack`), a stack of layers is
//! there to be stood on and read.

mod ensure;
mod merged;
mod pack;
mod stack;
mod unpack;
mod verify;

pub use ensure::ensure;
pub use pack::{Made, Outcome, pack};
pub use stack::{Layer, Stack};
pub use unpack::{Archive, Prepared, place, prepare};
pub use verify::{Flaw, Holder, verify};

use std::cell::Cell;

use crate::db::{LayerSlot, NewLayer};
use crate::error::Result;
use crate::snapshot::Draft;

/// The layer becomes visible, with its place on `parent` and its snapshot; not durable before the next barrier. Where
/// an equal layer stands already, that one is taken, and what was made for this one goes.
fn publish(draft: Draft<'_>, slot: LayerSlot, new: &NewLayer, parent: &Stack) -> Result<Layer> {
    let number = Cell::new(new.number);
    draft.commit(|index| {
        let published = index.publish_layer(new)?;
        number.set(published.number);
        index.add_chain(parent.chain(), published.number)
    })?;
    drop(slot);
    Ok(Layer { number: number.get(), diff_id: new.diff_id, content_id: new.content_id, size: new.size })
}
