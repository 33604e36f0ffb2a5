//! A layer's archive, made again for whoever sends it elsewhere.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd as _;

use super::ensure::holder;
use super::{Layer, Stack};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::ChainId;
use crate::job::Job;
use crate::layer;

/// Writes the tar of layer `n` of the stack, counted from the bottom, bit for bit. What was written is proved at the end:
/// an error then means that it was not the layer.
pub fn replay(engine: &Engine, stack: &Stack, n: usize, out: &mut dyn Write, job: &Job) -> Result<()> {
    let layer = &stack.layers()[n];
    let doing = || format!("making the archive of layer {} again", layer.diff_id.short());
    let from = match engine.snapshots.find(&chain_of(&stack.layers()[..=n])).context(doing)? {
        Some(own) => Some(own),
        None => holder(engine, layer).context(doing)?,
    };
    let from = from.ok_or_else(|| {
        Error::not_found("its files are in no tree any more")
            .hint("`outcrop system check` says what is wrong; pulling or building again makes it anew")
    });
    let tree = engine.snapshots.driver().tree(from.context(doing)?).context(doing)?.dir;
    let mut recipe = File::open(engine.recipe_path(&layer.diff_id)).context(doing)?;
    layer::replay(job, &mut recipe, tree.as_fd(), out).map(drop).context(doing)
}

fn chain_of(layers: &[Layer]) -> ChainId {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    ChainId::of(&diff_ids).expect("there is one layer at least")
}
