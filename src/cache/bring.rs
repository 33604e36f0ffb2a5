//! Layers of caches brought here: fetched side by side, unpacked, proved, and published like any other.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::import::{Imported, Remote};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{ChainId, Descriptor, Digest};
use crate::job::Job;
use crate::layer::compress;
use crate::rootfs::{self, Archive, Layer, Made, Prepared, Stack};
use crate::store::Coming;
use crate::sys::part::Part;
use crate::transfer::{self, Stream};

impl Imported<'_> {
    /// The stack with all of its layers here, and what waited for it done. Costs nothing where they are.
    pub fn here(&self, stack: &Stack, job: &Job) -> Result<Stack> {
        if !self.is_remote(stack) {
            return Ok(stack.clone());
        }
        let _turn = self.bringing.lock().unwrap_or_else(PoisonError::into_inner);
        self.bring_base(stack, job)?;
        let here = self.bring(stack, job)?;
        self.settle(&here)?;
        Ok(here)
    }

    fn bring(&self, stack: &Stack, job: &Job) -> Result<Stack> {
        let mut fetched = self.fetch(stack, job)?;
        let spooled: Vec<Digest> = fetched.values().filter_map(Came::digest).collect();
        let mut placed = Stack::default();
        for layer in stack.layers() {
            job.check()?;
            let next = match self.index_of(layer) {
                None => self.local(&placed, layer, job)?,
                Some(index) => self.place(index, layer, &placed, &mut fetched, job)?,
            };
            placed = placed.with(next);
        }
        for digest in &spooled {
            self.engine.blobs.spent(digest)?;
        }
        Ok(placed)
    }

    /// A layer of a cache, on this stack.
    fn place<'s>(
        &'s self,
        index: usize,
        layer: &Layer,
        below: &Stack,
        fetched: &mut HashMap<usize, Came<'s>>,
        job: &Job,
    ) -> Result<Layer> {
        if let Some(known) = self.known(below, layer, fetched.get(&index), job)? {
            return Ok(known);
        }
        let id = layer.diff_id.short();
        let _turn = rootfs::wait_for_place(self.engine, below, &layer.diff_id, &id, job)?;
        if let Some(known) = self.known(below, layer, None, job)? {
            return Ok(known);
        }
        let came = match fetched.remove(&index) {
            Some(came @ Came::Spooled(..)) => came,
            // It was here, and is in no tree any more.
            Some(Came::Published(_)) | None => self.fetch_one(index, job)?,
        };
        let spooled = came.digest();
        let placed = match came {
            Came::Spooled(archive, prepared) => {
                let (diff_id, made) = (Some(&layer.diff_id), self.made(index));
                rootfs::place(self.engine, &archive, prepared, diff_id, below, &made, self.lease, job)
            }
            Came::Published(published) => match below.stands(self.engine, &published)? {
                true => Ok(published),
                false => Err(Error::internal(format!("layer {id} stands on nothing"))),
            },
        };
        let placed = placed
            .and_then(|placed| self.expect(index, placed.content_id).map(|()| placed))
            .map_err(|problem| self.lose(index, problem))?;
        spooled.map_or(Ok(()), |digest| self.engine.blobs.spent(&digest))?;
        Ok(placed)
    }

    /// A layer of the store, on this stack.
    fn local(&self, below: &Stack, layer: &Layer, job: &Job) -> Result<Layer> {
        if let Some(found) = below.find(self.engine, &layer.diff_id)? {
            return Ok(found);
        }
        match rootfs::ensure(self.engine, below, layer, self.lease, job)? {
            true => Ok(layer.clone()),
            false => Err(Error::unavailable(format!(
                "the files of layer {} are in no tree any more",
                layer.diff_id.short()
            ))
            .hint("build again with --no-cache")),
        }
    }

    /// The layer, where it came here by another way.
    fn known(
        &self,
        below: &Stack,
        layer: &Layer,
        came: Option<&Came<'_>>,
        job: &Job,
    ) -> Result<Option<Layer>> {
        let found = match came {
            Some(Came::Published(seen)) if below.stands(self.engine, seen)? => Some(seen.clone()),
            _ => below.find(self.engine, &layer.diff_id)?,
        };
        let known = match found {
            Some(found) => Some(found),
            None => match self.engine.db.read(|index| index.find_layer(&layer.diff_id, below.chain()))? {
                Some(row) => {
                    let known = Layer::from(&row);
                    rootfs::ensure(self.engine, below, &known, self.lease, job)?.then_some(known)
                }
                None => None,
            },
        };
        // Equal bytes have equal contents; if the cache says otherwise, it is the cache that is wrong.
        if let (Some(known), Some(index)) = (&known, self.index_of(layer)) {
            self.expect(index, known.content_id).map_err(|problem| self.lose(index, problem))?;
        }
        Ok(known)
    }

    /// What of the stack is not here, from wherever it lies, unpacked where that can be done already.
    fn fetch<'s>(&'s self, stack: &Stack, job: &Job) -> Result<HashMap<usize, Came<'s>>> {
        let mut wanted: HashMap<usize, Option<ChainId>> = HashMap::new();
        let mut chain: Option<ChainId> = None;
        for layer in stack.layers() {
            let below = chain.replace(ChainId::on(chain.as_ref(), &layer.diff_id));
            let Some(index) = self.index_of(layer) else { continue };
            if !self.is_here(index, below.as_ref())? {
                wanted.entry(index).or_insert(below);
            }
        }
        let mut fetched = HashMap::new();
        for origin in 0..self.origins.len() {
            let of_origin = wanted.keys().copied().filter(|index| self.layers[*index].origin == origin);
            let mut of_origin: Vec<usize> = of_origin.collect();
            of_origin.sort_unstable();
            let is_here = |index| self.is_here(index, wanted[&index].as_ref());
            fetched.extend(self.fetch_from(origin, &of_origin, &is_here, job)?);
        }
        Ok(fetched)
    }

    fn is_here(&self, index: usize, below: Option<&ChainId>) -> Result<bool> {
        let diff_id = &self.layers[index].described.diff_id;
        Ok(self.engine.db.read(|reader| reader.find_layer(diff_id, below))?.is_some())
    }

    fn fetch_one<'s>(&'s self, index: usize, job: &Job) -> Result<Came<'s>> {
        let mut fetched = self.fetch_from(self.layers[index].origin, &[index], &|_| Ok(false), job)?;
        fetched.remove(&index).ok_or_else(|| Error::internal("a layer was fetched and is not there"))
    }

    /// `is_here`: asked again when nobody else is at the layer.
    fn fetch_from<'s>(
        &'s self,
        origin: usize,
        wanted: &[usize],
        is_here: &(dyn Fn(usize) -> Result<bool> + Sync),
        job: &Job,
    ) -> Result<HashMap<usize, Came<'s>>> {
        let mut blobs: Vec<Descriptor> = Vec::new();
        let mut by_digest: HashMap<Digest, usize> = HashMap::new();
        for index in wanted {
            let described = &self.layers[*index].described;
            let Some(archive) = &described.archive else {
                let problem = Error::not_found(format!(
                    "the cache `{}` knows of layer {} and does not have it",
                    self.origins[origin].said,
                    described.diff_id.short()
                ));
                return Err(self.lose_absent(problem));
            };
            by_digest.insert(archive.digest, *index);
            blobs.push(archive.clone());
        }
        let fetched = Mutex::new(HashMap::new());
        let Some(first) = wanted.first() else { return Ok(HashMap::new()) };
        let from = &self.origins[origin];
        transfer::bring(job, &*from.source, &from.name, &blobs, |blob, stream| {
            let index = by_digest[&blob.digest];
            let coming = self.receive(index, blob, stream, &|| is_here(index), job)?;
            if let Some(came) = coming.by(stream, &self.engine.blobs) {
                fetched.lock().unwrap_or_else(PoisonError::into_inner).insert(index, came);
            }
            Ok(())
        })
        .map_err(|problem| self.lose(*first, problem))?;
        Ok(fetched.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// One that may stand on anything is a layer for others when this returns.
    fn receive<'s>(
        &'s self,
        index: usize,
        blob: &Descriptor,
        stream: &mut Stream<'_>,
        is_here: &dyn Fn() -> Result<bool>,
        job: &Job,
    ) -> Result<Coming<Came<'s>>> {
        let (engine, diff_id) = (self.engine, &self.layers[index].described.diff_id);
        let Some(_turn) = rootfs::turn(engine, diff_id)? else { return Ok(Coming::ByAnother) };
        if is_here()? {
            return Ok(Coming::IsHere);
        }
        let file = match engine.blobs.spool(blob, stream, &|| is_here().map(|here| !here), job)? {
            Coming::Now(file) => file,
            Coming::IsHere => return Ok(Coming::IsHere),
            Coming::ByAnother => return Ok(Coming::ByAnother),
        };
        let archive = Spooled { file, digest: blob.digest, size: blob.size };
        let Some(prepared) = rootfs::prepare(engine, &archive, self.lease, job)? else {
            return Ok(Coming::Now(Came::Spooled(archive, None)));
        };
        Ok(Coming::Now(match rootfs::publish_alone(prepared, diff_id, &self.made(index))? {
            Ok(published) => {
                engine.blobs.spent(&blob.digest)?;
                Came::Published(published)
            }
            Err(leaning) => Came::Spooled(archive, Some(leaning)),
        }))
    }

    /// A cache that gives something else than it promised is not asked again.
    pub(super) fn lose(&self, index: usize, problem: Error) -> Error {
        let origin = self.layers[index].origin;
        self.lose_all(problem, |_, layer| layer.origin == origin)
    }

    /// Layers of steps of which caches have no bytes count no longer. Those of base images have theirs elsewhere.
    fn lose_absent(&self, problem: Error) -> Error {
        let of_steps: HashSet<usize> = self.records.iter().filter_map(|entry| entry.layer).collect();
        self.lose_all(problem, |index, layer| layer.described.archive.is_none() && of_steps.contains(&index))
    }

    fn lose_all(&self, problem: Error, goes: impl Fn(usize, &Remote) -> bool) -> Error {
        if problem.kind() == Kind::Cancelled {
            return problem;
        }
        let mut state = self.state();
        let before = state.lost.len();
        for (index, layer) in self.layers.iter().enumerate() {
            if goes(index, layer) && !state.lost.contains(&index) {
                state.lost.push(index);
            }
        }
        if state.lost.len() > before {
            state.why_lost = Some(problem.one_line());
        }
        problem
    }

    fn made(&self, index: usize) -> Made<'_> {
        let entry = self.records.iter().find(|entry| entry.layer == Some(index));
        let instruction = entry.map(|entry| entry.record.instruction.as_str());
        Made { instruction, ..Made::default() }
    }
}

/// A layer of a cache that is here now.
#[expect(clippy::large_enum_variant, reason = "there are few of them, for a short time")]
enum Came<'e> {
    /// To stand wherever it is wanted.
    Published(Layer),
    /// To wait for its turn.
    Spooled(Spooled, Option<Prepared<'e>>),
}

impl Came<'_> {
    /// Of bytes that are to be `spent`.
    fn digest(&self) -> Option<Digest> {
        match self {
            Came::Published(_) => None,
            Came::Spooled(archive, _) => Some(archive.digest),
        }
    }
}

/// A compressed archive in a file; it goes once its layer has its place.
struct Spooled {
    file: File,
    digest: Digest,
    size: u64,
}

impl Archive for Spooled {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        let whole = Part::of(&self.file, 0, self.size).context(|| "opening an archive")?;
        Ok(compress::decoder(Box::new(whole))?.1)
    }
}
