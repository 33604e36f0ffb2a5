//! A large blob over several connections: its reader fetches what is next, helpers what comes after that, into memory,
//! and it is read in order. So nobody has to know what has arrived but how much: what is written of it has no holes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use super::{Given, Source};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Descriptor, Reference};
use crate::job::Job;

/// Bytes that are still to come from which on several connections are worth their while.
const LARGE: u64 = 64 << 20;

/// Bytes of one part: a request for each, and so much memory.
const PIECE: u64 = 8 << 20;

/// Parts ahead of the reader, on their way or in memory.
const AHEAD: u64 = 4;

/// Connections for one blob besides the reader's.
const HELPERS: usize = 3;

/// Connections of one transfer.
pub(super) struct Slots {
    count: Mutex<Count>,
    freed: Condvar,
}

struct Count {
    free: usize,
    /// Blobs that wait for one.
    waiting: usize,
}

pub(super) struct Slot<'s>(&'s Slots);

impl Slots {
    pub(super) fn new(free: usize) -> Self {
        Slots { count: Mutex::new(Count { free: free.max(1), waiting: 0 }), freed: Condvar::new() }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a blob. Helpers of others end for it.
    pub(super) fn take(&self) -> Slot<'_> {
        let mut count = self.count();
        count.waiting += 1;
        while count.free == 0 {
            count = self.freed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
        count.waiting -= 1;
        count.free -= 1;
        Slot(self)
    }

    /// For a helper, if nobody else needs it.
    fn spare(&self) -> Option<Slot<'_>> {
        let mut count = self.count();
        if count.free == 0 || count.waiting > 0 {
            return None;
        }
        count.free -= 1;
        Some(Slot(self))
    }

    fn are_wanted(&self) -> bool {
        self.count().waiting > 0
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.count().free += 1;
        self.0.freed.notify_all();
    }
}

/// The bytes of the blob from `offset` on.
pub(super) fn open<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    job: &'env Job,
    source: &'env dyn Source,
    name: &'env Reference,
    blob: &'env Descriptor,
    offset: u64,
    slots: &'env Slots,
) -> Result<Box<dyn Read + Send + 'scope>> {
    if blob.size.saturating_sub(offset) < LARGE {
        return source.blob(job, name, blob, offset);
    }
    let (state, changed) = (Mutex::default(), Condvar::new());
    let from = Arc::new(From { job, help: job.child(), source, name, blob, state, changed });
    from.state().next = offset;
    let mut pieces = Pieces { scope, slots, from, at: offset, current: None };
    // Here, so that a source that has not got it says so here.
    pieces.go_on()?;
    Ok(Box::new(pieces))
}

/// What reader and helpers share.
struct From<'env> {
    job: &'env Job,
    /// That of the helpers, which end before it where the reader does.
    help: Job,
    source: &'env dyn Source,
    name: &'env Reference,
    blob: &'env Descriptor,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the first part begins that nobody is at.
    next: u64,
    /// Where the reader is.
    at: u64,
    /// Parts of helpers, by where they begin.
    under_way: BTreeSet<u64>,
    ready: BTreeMap<u64, Vec<u8>>,
    helpers: usize,
    /// No more parts for helpers: the source gives none, or the reader is gone.
    closed: bool,
}

impl From<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn piece(&self, start: u64) -> Range<u64> {
        start..start.saturating_add(PIECE).min(self.blob.size)
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Until there is nothing left to help with.
    fn help(&self, slots: &Slots) {
        while let Some(piece) = self.claim(slots) {
            let got = self.fetch(&piece);
            let mut state = self.state();
            state.under_way.remove(&piece.start);
            match got {
                Ok(bytes) => drop(state.ready.insert(piece.start, bytes)),
                // The reader will find out for itself.
                Err(problem) => {
                    tracing::debug!(blob = %self.blob.digest, %problem, "going on over one connection");
                    state.closed = true;
                }
            }
            self.changed.notify_all();
        }
        self.state().helpers -= 1;
    }

    fn claim(&self, slots: &Slots) -> Option<Range<u64>> {
        let mut state = self.state();
        while !state.closed && state.next < self.blob.size && !slots.are_wanted() {
            if state.next < state.at + AHEAD * PIECE {
                let piece = self.piece(state.next);
                state.next = piece.end;
                state.under_way.insert(piece.start);
                return Some(piece);
            }
            // Now and then it is looked whether somebody else needs the slot.
            state = self
                .changed
                .wait_timeout(state, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        None
    }

    fn fetch(&self, piece: &Range<u64>) -> Result<Vec<u8>> {
        let refused = || Error::unsupported("the source gives no parts");
        let Given::Part(bytes) = self.source.part(&self.help, self.name, self.blob, piece.clone())? else {
            return Err(refused());
        };
        let size = piece.end - piece.start;
        let mut whole = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        // To its very end: a connection is used again only then.
        bytes.take(size + 1).read_to_end(&mut whole).context(|| "fetching a part")?;
        if whole.len() as u64 == size { Ok(whole) } else { Err(refused()) }
    }
}

/// The reader.
struct Pieces<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    slots: &'env Slots,
    from: Arc<From<'env>>,
    at: u64,
    current: Option<Current<'scope>>,
}

enum Current<'a> {
    Memory(Cursor<Vec<u8>>),
    /// Up to there.
    Stream(Box<dyn Read + Send + 'a>, u64),
    /// To the end of the blob and beyond, if it goes on there.
    Rest(Box<dyn Read + Send + 'a>),
}

impl<'scope, 'env> Pieces<'scope, 'env> {
    /// The part that begins where we are: from a helper, or now.
    fn go_on(&mut self) -> Result<()> {
        let mut state = self.from.state();
        state.at = self.at;
        self.from.changed.notify_all();
        while state.under_way.contains(&self.at) {
            state = self.from.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(bytes) = state.ready.remove(&self.at) {
            drop(state);
            self.current = Some(Current::Memory(Cursor::new(bytes)));
            self.get_help();
            return Ok(());
        }
        let piece = self.from.piece(self.at);
        state.next = state.next.max(piece.end);
        drop(state);
        self.current = Some(self.ask(piece)?);
        Ok(())
    }

    fn ask(&self, piece: Range<u64>) -> Result<Current<'scope>> {
        let From { job, source, name, blob, .. } = *self.from;
        let end = piece.end;
        match source.part(job, name, blob, piece) {
            Ok(Given::Part(bytes)) => {
                self.get_help();
                Ok(Current::Stream(bytes, end))
            }
            Ok(Given::Rest(bytes)) => {
                self.from.close();
                Ok(Current::Rest(bytes))
            }
            Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Unavailable | Kind::NotFound) => {
                Err(error)
            }
            Err(refused) => {
                tracing::debug!(blob = %blob.digest, %refused, "asking for all of it");
                self.from.close();
                source.blob(job, name, blob, self.at).map(Current::Rest)
            }
        }
    }

    /// As many helpers as there is work and room for.
    fn get_help(&self) {
        let (scope, slots, from) = (self.scope, self.slots, &self.from);
        let mut state = from.state();
        while !state.closed && state.helpers < HELPERS && state.next < from.blob.size {
            let Some(slot) = slots.spare() else { return };
            state.helpers += 1;
            let from = Arc::clone(from);
            scope.spawn(move || {
                let _slot = slot;
                from.help(slots);
            });
        }
    }
}

impl Read for Pieces<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = match &mut self.current {
                Some(Current::Rest(bytes)) => return bytes.read(buffer),
                Some(Current::Memory(bytes)) => bytes.read(buffer)?,
                Some(Current::Stream(bytes, _)) => bytes.read(buffer)?,
                None => 0,
            };
            self.at += count as u64;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if matches!(&self.current, Some(Current::Stream(_, end)) if self.at < *end) {
                // Too little came; who counts will say so.
                return Ok(0);
            }
            self.current = None;
            if self.at >= self.from.blob.size {
                return Ok(0);
            }
            self.go_on()?;
        }
    }
}

impl Drop for Pieces<'_, '_> {
    fn drop(&mut self) {
        self.from.help.cancel().set();
        self.from.close();
    }
}
