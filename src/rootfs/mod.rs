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
mod turn;
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
pub use turn::{turn, wait_for_place};
pub use unpack::{Archive, Prepared, place, prepare, publish_alone};
pub use verify::{Flaw, Holder, verify};

use std::cell::Cell;

use crate::db::{LayerSlot, NewLayer, SnapshotId};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{ChainId, DiffId};
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
        engine.snapshots.stand(index, parent.chain(), published.number).map(|(chain, _)| chain)
    })?;
    drop(slot);
    if sealed == own {
        note(engine, &new.diff_id, own, ChainId::on(parent.chain(), &new.diff_id))?;
    }
    Ok(Layer { number: number.get(), diff_id: new.diff_id, content_id: new.content_id, size: new.size })
}

/// The layer becomes visible in no stack yet, which a driver that keeps layers apart can have.
fn publish_free(draft: Draft<'_>, slot: LayerSlot, new: &NewLayer) -> Result<Layer> {
    let number = Cell::new(new.number);
    draft.commit_alone(|index| {
        number.set(index.publish_layer(new)?.number);
        Ok(number.get())
    })?;
    drop(slot);
    Ok(Layer { number: number.get(), diff_id: new.diff_id, content_id: new.content_id, size: new.size })
}

/// Beside the recipe: which tree holds the layer on which stack.
fn note(engine: &Engine, diff_id: &DiffId, snapshot: SnapshotId, chain: ChainId) -> Result<()> {
    let driver = engine.snapshots.driver().name().to_owned();
    located::note(&engine.root, diff_id, &Located { driver, snapshot, chain })
}
