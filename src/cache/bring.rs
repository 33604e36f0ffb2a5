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
use crate::sys::part::Part;
use crate::transfer;

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
        let mut spent: Vec<Digest> = fetched.values().map(|(archive, _)| archive.digest).collect();
        let mut placed = Stack::default();
        for layer in stack.layers() {
            job.check()?;
            let next = match self.index_of(layer) {
                None => self.local(&placed, layer, job)?,
                Some(index) => match self.known(&placed, layer, job)? {
                    Some(known) => known,
                    None => {
                        let (archive, prepared) = match fetched.remove(&index) {
                            Some(fetched) => fetched,
                            None => self.fetch_one(index, job)?,
                        };
                        spent.push(archive.digest);
                        let placing = rootfs::place(
                            self.engine,
                            &archive,
                            prepared,
                            Some(&layer.diff_id),
                            &placed,
                            &Made { instruction: self.instruction_of(index), ..Made::default() },
                            self.lease,
                            job,
                        );
                        placing
                            .and_then(|placed| self.expect(index, placed.content_id).map(|()| placed))
                            .map_err(|problem| self.lose(index, problem))?
                    }
                },
            };
            placed = placed.with(next);
        }
        for digest in &spent {
            self.engine.blobs.spent(digest)?;
        }
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
    fn known(&self, below: &Stack, layer: &Layer, job: &Job) -> Result<Option<Layer>> {
        let known = match below.find(self.engine, &layer.diff_id)? {
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
    fn fetch<'s>(
        &'s self,
        stack: &Stack,
        job: &Job,
    ) -> Result<HashMap<usize, (Spooled, Option<Prepared<'s>>)>> {
        let mut wanted: Vec<usize> = Vec::new();
        let mut chain: Option<ChainId> = None;
        for layer in stack.layers() {
            let below = chain.replace(ChainId::on(chain.as_ref(), &layer.diff_id));
            let Some(index) = self.index_of(layer) else { continue };
            let known = self.engine.db.read(|reader| reader.find_layer(&layer.diff_id, below.as_ref()))?;
            if known.is_none() && !wanted.contains(&index) {
                wanted.push(index);
            }
        }
        let mut fetched = HashMap::new();
        for origin in 0..self.origins.len() {
            let of_origin: Vec<usize> =
                wanted.iter().copied().filter(|index| self.layers[*index].origin == origin).collect();
            fetched.extend(self.fetch_from(origin, &of_origin, job)?);
        }
        Ok(fetched)
    }

    fn fetch_one<'s>(&'s self, index: usize, job: &Job) -> Result<(Spooled, Option<Prepared<'s>>)> {
        let mut fetched = self.fetch_from(self.layers[index].origin, &[index], job)?;
        fetched.remove(&index).ok_or_else(|| Error::internal("a layer was fetched and is not there"))
    }

    fn fetch_from<'s>(
        &'s self,
        origin: usize,
        wanted: &[usize],
        job: &Job,
    ) -> Result<HashMap<usize, (Spooled, Option<Prepared<'s>>)>> {
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
            let file = self.engine.blobs.spool(blob, stream, job)?;
            let spooled = Spooled { file, digest: blob.digest, size: blob.size };
            let prepared = rootfs::prepare(self.engine, &spooled, self.lease, job)?;
            let index = by_digest[&blob.digest];
            fetched.lock().unwrap_or_else(PoisonError::into_inner).insert(index, (spooled, prepared));
            Ok(())
        })
        .map_err(|problem| self.lose(*first, problem))?;
        Ok(fetched.into_inner().unwrap_or_else(PoisonError::into_inner))
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

    fn instruction_of(&self, index: usize) -> Option<&str> {
        let entry = self.records.iter().find(|entry| entry.layer == Some(index));
        entry.map(|entry| entry.record.instruction.as_str())
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
