//! Base images that are not here: layers whose contents a cache knows, and whose bytes their own registry has.
//!
//! Such an image comes whole, as a pull brings it, once something is to stand on it or an output needs it. Then it is seen
//! whether its layers are what the cache said.

use std::sync::Arc;

use super::import::Imported;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{ChainId, DiffId};
use crate::job::Job;
use crate::rootfs::{Layer, Stack};
use crate::transfer::Found;

/// Makes an image the store's own, with all of its layers.
pub type Bring = dyn Fn(&Engine, &Job) -> Result<()> + Send + Sync;

impl Imported<'_> {
    /// The stack of an image that is not here; `None`: what is in one of its layers is known nowhere, or all are here.
    pub fn base(&self, found: &Found, bring: Arc<Bring>) -> Result<Option<Stack>> {
        let mut stack = Stack::default();
        let mut distant = Vec::new();
        for own in found.layers() {
            let row = self.engine.db.read(|index| index.find_layer(&own.diff_id, stack.chain()))?;
            let layer = match (row, self.claim(&own.diff_id, stack.chain())) {
                (Some(row), _) => Layer::from(&row),
                (None, Some(index)) => {
                    distant.push((index, (own.descriptor.clone(), found.name.clone())));
                    self.numbered(index)?
                }
                (None, None) => return Ok(None),
            };
            stack = stack.with(layer);
        }
        let Some(chain) = stack.chain().filter(|_| !distant.is_empty()) else { return Ok(None) };
        let mut state = self.state();
        state.distant.extend(distant);
        state.bases.insert(*chain, bring);
        drop(state);
        Ok(Some(stack))
    }

    /// What a cache says of a layer on this chain.
    fn claim(&self, diff_id: &DiffId, below: Option<&ChainId>) -> Option<usize> {
        let state = self.state();
        let tells = |index: &usize| {
            let described = &self.layers[*index].described;
            let means = !described.leans || described.on.as_ref() == below;
            described.diff_id == *diff_id && means && !state.lost.contains(index)
        };
        (0..self.layers.len()).find(tells)
    }

    /// Brings the base image that the stack stands on, if there is one that is not here.
    pub(super) fn bring_base(&self, stack: &Stack, job: &Job) -> Result<()> {
        let mut below: Option<ChainId> = None;
        let mut base = None;
        for layer in stack.layers() {
            let chain = ChainId::on(below.as_ref(), &layer.diff_id);
            let known = self.state().bases.get(&chain).cloned();
            base = known.map(|bring| (chain, bring)).or(base);
            below = Some(chain);
        }
        let Some((chain, bring)) = base else { return Ok(()) };
        bring(self.engine, job)?;
        self.state().bases.remove(&chain);
        Ok(())
    }
}
