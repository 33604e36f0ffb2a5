//! Layers and snapshots: a draft becomes a layer (`pack`), an archive becomes a layer (`unpack`), a stack of layers is
//! there to be stood on and read.

mod ensure;
mod located;
mod merge;
mod merged;
mod moved;
mod pack;
mod replay;
mod reread;
mod stack;
mod unpack;
mod verify;

pub use ensure::ensure;
pub use located::{Located, located};
pub use merge::merge;
pub use merged::merged;
pub use moved::{NewTree, move_layer, move_writable};
pub use pack::{Known, Made, Outcome, Twin, pack};
pub use replay::replay;
pub use reread::{Reread, reread, shows};
pub use stack::{Layer, Stack};
pub use unpack::{Archive, Prepared, place, prepare};
pub use verify::{Flaw, Holder, verify};

use std::cell::Cell;

use crate::db::{LayerSlot, NewLayer};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::ChainId;
use crate::snapshot::Draft;

/// The layer becomes visible, with its place on `parent` and its snapshot; not durable before the next barrier. Where
/// an equal layer stands already, that one is taken, and what was made for this one goes.
fn publish(
    engine: &Engine,
    draft: Draft<'_>,
    slot: LayerSlot,
    new: &NewLayer,
    parent: &Stack,
) -> Result<Layer> {
    let number = Cell::new(new.number);
    let own = draft.id();
    let sealed = draft.commit(|index| {
        let published = index.publish_layer(new)?;
        number.set(published.number);
        index.add_chain(parent.chain(), published.number)
    })?;
    drop(slot);
    if sealed == own {
        let chain = ChainId::on(parent.chain(), &new.diff_id);
        let driver = engine.snapshots.driver().name().to_owned();
        located::note(&engine.root, &new.diff_id, &Located { driver, snapshot: own, chain })?;
    }
    Ok(Layer { number: number.get(), diff_id: new.diff_id, content_id: new.content_id, size: new.size })
}
