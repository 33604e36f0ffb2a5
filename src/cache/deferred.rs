//! What a build came to on layers that are not here: written into the index once they are.

use super::import::{Imported, RemoteHit};
use crate::db::{NewCacheRecord, Time};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::ChainId;
use crate::rootfs::{Layer, Stack};

pub(super) struct Deferred {
    /// The stack that it waits for.
    chain: Option<ChainId>,
    then: Box<Then>,
}

type Then = dyn FnOnce(&Engine, &Stack) -> Result<()> + Send;

impl Imported<'_> {
    /// `then` is called with the stack once all of it is here, in the order of the calls; never, if that does not happen.
    pub fn defer(&self, stack: &Stack, then: impl FnOnce(&Engine, &Stack) -> Result<()> + Send + 'static) {
        let then = Box::new(then);
        self.state().deferred.push(Deferred { chain: stack.chain().copied(), then });
    }

    /// The record is to be the store's own once its layer is here, on top of `stack`.
    pub fn keep_later(&self, hit: &RemoteHit, stack: &Stack) {
        let new = self.new_record(hit);
        self.defer(stack, move |engine, stack| {
            let new = NewCacheRecord { layer: stack.layers().last().map(|layer| layer.number), ..new };
            insert(engine, &new)
        });
    }

    /// The record is the store's own, with its layer, which is here.
    pub fn keep(&self, hit: &RemoteHit, layer: Option<&Layer>) -> Result<()> {
        let new = NewCacheRecord { layer: layer.map(|layer| layer.number), ..self.new_record(hit) };
        insert(self.engine, &new)
    }

    /// Does all that waited for a part of the stack, which is here.
    pub(super) fn settle(&self, stack: &Stack) -> Result<()> {
        let stacks = prefixes(stack);
        let ready: Vec<Deferred> = {
            let mut state = self.state();
            let all = std::mem::take(&mut state.deferred);
            let is_ready = |one: &Deferred| stacks.iter().any(|stack| stack.chain() == one.chain.as_ref());
            let (ready, rest) = all.into_iter().partition(is_ready);
            state.deferred = rest;
            ready
        };
        for one in ready {
            let on = stacks.iter().find(|stack| stack.chain() == one.chain.as_ref()).expect("it is ready");
            (one.then)(self.engine, on)?;
        }
        Ok(())
    }

    fn new_record(&self, hit: &RemoteHit) -> NewCacheRecord {
        let entry = &self.records[hit.entry];
        NewCacheRecord {
            kind: entry.kind,
            key: entry.record.key,
            key_text: entry.record.key_text.clone(),
            step: entry.record.step,
            reads: entry.record.reads.clone(),
            instruction: entry.record.instruction.clone(),
            layer: None,
            created: entry.record.created.clone(),
            image: None,
            build: None,
            made_at: Some(Time(entry.record.made_at)),
        }
    }
}

fn insert(engine: &Engine, new: &NewCacheRecord) -> Result<()> {
    engine.db.write(|index| {
        let known = index.cached(new.kind, &new.key)?;
        if known.is_some_and(|known| known.layer == new.layer && known.created == new.created) {
            return Ok(());
        }
        index.insert_cache_record(new).map(drop)
    })
}

/// The stack and all below it, the empty one first.
fn prefixes(stack: &Stack) -> Vec<Stack> {
    let mut all = vec![Stack::default()];
    for layer in stack.layers() {
        let next = all.last().expect("there is one").with(layer.clone());
        all.push(next);
    }
    all
}
