//! The caches that a build was given: what their indexes say, consulted where the store itself knows nothing.
//!
//! A layer of theirs has a number of its own like any in the making: its rows may stand under it, nothing publishes it, and
//! with the build it goes. So whatever dies leaves nothing, and nothing that is not all here has a name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::base::Bring;
use super::deferred::Deferred;
use super::document::{Document, Layer as Described, Mount, Record};
use super::options::From;
use super::origin::{self, Origin};
use super::rows;
use crate::db::{KeyKind, LayerNumber, LayerSlot, Lease, Time};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{CacheKey, ChainId, ContentId, Descriptor, Reference};
use crate::job::Job;
use crate::layer;
use crate::registry;
use crate::rootfs::{Layer, Stack};

/// Bytes of a layer's rows, compressed.
const MAX_ROWS: u64 = 512 << 20;

/// What all given caches know.
pub struct Imported<'e> {
    pub(super) engine: &'e Engine,
    pub(super) lease: &'e Lease,
    /// How registries are spoken to.
    pub(super) registry: registry::Options,
    pub(super) origins: Vec<Origin>,
    pub(super) layers: Vec<Remote>,
    pub(super) records: Vec<Entry>,
    /// Cache mounts, and whose they are.
    pub(super) mounts: Vec<(Mount, usize)>,
    by_key: HashMap<(KeyKind, CacheKey), Vec<usize>>,
    by_step: HashMap<CacheKey, Vec<usize>>,
    pub(super) state: Mutex<State>,
    /// Held while layers are brought here: two stages need the same ones.
    pub(super) bringing: Mutex<()>,
}

/// A layer that a cache knows.
pub(super) struct Remote {
    pub(super) described: Described,
    /// Whose it is.
    pub(super) origin: usize,
}

pub(super) struct Entry {
    pub(super) kind: KeyKind,
    pub(super) record: Record,
    /// Among all layers.
    pub(super) layer: Option<usize>,
}

#[derive(Default)]
pub(super) struct State {
    /// Of layers that a hit named.
    pub(super) slots: HashMap<usize, LayerSlot>,
    pub(super) numbers: HashMap<LayerNumber, usize>,
    /// Whose rows are written.
    filled: Vec<usize>,
    /// What becomes true once the layers are here.
    pub(super) deferred: Vec<Deferred>,
    /// Layers of base images that were not here, as their registries have them, and the images' names.
    pub(super) distant: HashMap<usize, (Descriptor, Reference)>,
    /// How these images come here, by their topmost chain.
    pub(super) bases: HashMap<ChainId, Arc<Bring>>,
    /// Layers that cannot be had.
    pub(super) lost: Vec<usize>,
    /// Why, if it was found out since somebody asked.
    pub(super) why_lost: Option<String>,
}

/// A record of a cache that holds.
#[derive(Clone, Debug)]
pub struct RemoteHit {
    pub created: String,
    /// When the step ran.
    pub made_at: Time,
    pub layer: Option<Layer>,
    /// JSON: what the step was seen to read.
    pub reads: Option<String>,
    pub(super) entry: usize,
}

impl<'e> Imported<'e> {
    /// Reads the indexes. One that is not there, or cannot be right, is a warning: the build goes on without it.
    pub fn load(
        engine: &'e Engine,
        from: &[From],
        options: &registry::Options,
        lease: &'e Lease,
        job: &Job,
    ) -> Result<Self> {
        let mut imported = Imported {
            engine,
            lease,
            registry: options.clone(),
            origins: Vec::new(),
            layers: Vec::new(),
            records: Vec::new(),
            mounts: Vec::new(),
            by_key: HashMap::new(),
            by_step: HashMap::new(),
            state: Mutex::default(),
            bringing: Mutex::default(),
        };
        for from in from {
            let read = origin::open(from, options).and_then(|origin| Ok((origin.document(job)?, origin)));
            match read {
                Ok((document, origin)) => imported.add(document, origin),
                Err(problem) if problem.kind() == Kind::Cancelled => return Err(problem),
                Err(problem) => {
                    job.warn(format!(
                        "building without the cache `{}`: {}",
                        from.describe(),
                        problem.one_line()
                    ));
                }
            }
        }
        imported.order();
        Ok(imported)
    }

    pub(super) fn add(&mut self, document: Document, origin: Origin) {
        let first = self.layers.len();
        let number = self.origins.len();
        self.layers.extend(document.layers.into_iter().map(|described| Remote { described, origin: number }));
        self.mounts.extend(document.mounts.into_iter().map(|mount| (mount, number)));
        for record in document.records {
            let Some(kind) = kind(&record.kind) else { continue };
            let layer = record.layer.map(|layer| first + layer);
            self.by_key.entry((kind, record.key)).or_default().push(self.records.len());
            self.by_step.entry(record.step).or_default().push(self.records.len());
            self.records.push(Entry { kind, record, layer });
        }
        self.origins.push(origin);
    }

    /// Of records under one key, those go first whose bytes can be had.
    pub(super) fn order(&mut self) {
        for entries in self.by_key.values_mut().chain(self.by_step.values_mut()) {
            entries.sort_by_key(|entry| {
                let layer = self.records[*entry].layer;
                layer.is_some_and(|layer| self.layers[layer].described.archive.is_none())
            });
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record under the key; of a step that ran before `oldest` none.
    pub fn look_up(&self, kind: KeyKind, key: &CacheKey, oldest: Option<Time>) -> Result<Option<RemoteHit>> {
        let entries = self.by_key.get(&(kind, *key)).into_iter().flatten();
        self.first(entries, oldest, |_| Ok(true))
    }

    /// A record of the step, wherever it stood, that `holds` for what it saw there.
    pub fn look_up_step(
        &self,
        step: &CacheKey,
        oldest: Option<Time>,
        holds: impl Fn(&str) -> Result<bool>,
    ) -> Result<Option<RemoteHit>> {
        let entries = self.by_step.get(step).into_iter().flatten();
        self.first(entries, oldest, |record| record.reads.as_deref().map_or(Ok(false), &holds))
    }

    fn first<'r>(
        &'r self,
        entries: impl Iterator<Item = &'r usize>,
        oldest: Option<Time>,
        counts: impl Fn(&Record) -> Result<bool>,
    ) -> Result<Option<RemoteHit>> {
        for entry in entries {
            let Entry { record, layer, .. } = &self.records[*entry];
            if oldest.is_some_and(|oldest| Time(record.made_at) < oldest) {
                continue;
            }
            if layer.is_some_and(|layer| self.state().lost.contains(&layer)) || !counts(record)? {
                continue;
            }
            let layer = layer.map(|layer| self.numbered(layer)).transpose()?;
            return Ok(Some(RemoteHit {
                created: record.created.clone(),
                made_at: Time(record.made_at),
                layer,
                reads: record.reads.clone(),
                entry: *entry,
            }));
        }
        Ok(None)
    }

    /// The layer, under a number of its own.
    pub(super) fn numbered(&self, index: usize) -> Result<Layer> {
        let described = &self.layers[index].described;
        let mut state = self.state();
        let number = match state.slots.get(&index) {
            Some(slot) => slot.number(),
            None => {
                let slot = self.engine.db.reserve_layer(self.lease)?;
                let number = slot.number();
                state.slots.insert(index, slot);
                state.numbers.insert(number, index);
                number
            }
        };
        Ok(Layer {
            number,
            diff_id: described.diff_id,
            content_id: described.content_id,
            size: described.size,
        })
    }

    pub(super) fn index_of(&self, layer: &Layer) -> Option<usize> {
        self.state().numbers.get(&layer.number).copied()
    }

    /// The layer is not here.
    pub fn is_away(&self, layer: &Layer) -> bool {
        self.index_of(layer).is_some()
    }

    /// Whether a layer of it is not here.
    pub fn is_remote(&self, stack: &Stack) -> bool {
        stack.layers().iter().any(|layer| self.is_away(layer))
    }

    /// Sees to it that the rows of all layers of the stack can be read; false: those of one cannot be had.
    pub fn rows(&self, stack: &Stack, job: &Job) -> Result<bool> {
        for layer in stack.layers() {
            let Some(index) = self.index_of(layer) else { continue };
            // One stage at a time: two may walk the same one.
            let _turn = self.bringing.lock().unwrap_or_else(PoisonError::into_inner);
            if self.state().filled.contains(&index) {
                continue;
            }
            let Remote { described, origin } = &self.layers[index];
            let Some(blob) = &described.rows else { return Ok(false) };
            let origin = &self.origins[*origin];
            let read = origin.small(blob, MAX_ROWS, job).and_then(|blob| self.fill(index, &blob));
            match read {
                Ok(()) => self.state().filled.push(index),
                Err(problem) if problem.kind() == Kind::Cancelled => return Err(problem),
                Err(problem) => {
                    job.warn(format!(
                        "the list of files of layer {} in the cache `{}` cannot be read: {}",
                        described.diff_id.short(),
                        origin.said,
                        problem.one_line()
                    ));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn fill(&self, index: usize, blob: &[u8]) -> Result<()> {
        let (number, mut writer) = {
            let state = self.state();
            let slot = state.slots.get(&index).expect("a hit named it");
            (slot.number(), slot.rows()?)
        };
        rows::decode(blob, &mut writer)?;
        writer.finish()?;
        let found = layer::content_id(self.engine.db.rows(number)).context(|| "comparing them")?;
        self.expect(index, found)
    }

    /// What the index says of a layer's content holds.
    pub(super) fn expect(&self, index: usize, found: ContentId) -> Result<()> {
        let described = &self.layers[index].described;
        if found == described.content_id {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "layer {} has the content {found}, and the cache says {}",
            described.diff_id.short(),
            described.content_id
        )))
    }

    /// Why layers turned out not to be had, since this was asked last: what stood on them is to be looked up again.
    pub fn take_lost(&self) -> Option<String> {
        let mut state = self.state();
        let why = state.why_lost.take()?;
        state.deferred.clear();
        state.bases.clear();
        Some(why)
    }

    /// What the cache of a record says of the layer that it came to.
    pub(super) fn record(&self, key: &CacheKey) -> Option<&Entry> {
        let state = self.state();
        let entries = self.by_key.get(&(KeyKind::Chain, *key))?;
        let usable =
            |entry: &&usize| self.records[**entry].layer.is_none_or(|layer| !state.lost.contains(&layer));
        entries.iter().find(usable).map(|entry| &self.records[*entry])
    }
}

fn kind(text: &str) -> Option<KeyKind> {
    [KeyKind::Chain, KeyKind::Content].into_iter().find(|kind| kind.as_str() == text)
}
