//! A blob on its way: verified while it streams.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::pieces::{Slot, Slots};
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Hasher, LayerId};
use crate::job::{Event, Job, LayerOutcome, Phase};

/// Between two progress events of one layer.
const BEAT: Duration = Duration::from_millis(100);

/// A layer's bytes as stored, compressed or not. Nobody is asked for them before they are read, or `start`ed.
///
/// The end of the stream is reached only when size and digest are right; else reading gives an error of kind `Corrupt`.
/// Decompressors and tar readers may stop before the end: call [`Stream::finish`] before anything becomes visible.
pub struct Stream<'a> {
    job: &'a Job,
    /// Set when another layer failed.
    stop: &'a AtomicBool,
    wanted: &'a Descriptor,
    layer: LayerId,
    open: Box<Open<'a>>,
    bytes: Option<Box<dyn Read + Send + 'a>>,
    hash: Option<Hasher>,
    done: u64,
    told: Instant,
    /// How it ends.
    outcome: Option<LayerOutcome>,
    slots: &'a Slots,
    /// Once anybody is asked for it, behind its bytes: a helper's connection ends first.
    slot: Option<Slot<'a>>,
}

/// Asks for the bytes from the given one on.
pub(super) type Open<'a> = dyn Fn(u64) -> Result<Box<dyn Read + Send + 'a>> + Send + 'a;

impl<'a> Stream<'a> {
    pub(super) fn new(
        job: &'a Job,
        stop: &'a AtomicBool,
        slots: &'a Slots,
        wanted: &'a Descriptor,
        layer: LayerId,
        open: Box<Open<'a>>,
    ) -> Self {
        let (hash, told) = (Some(Hasher::new()), Instant::now());
        let outcome = Some(LayerOutcome::PullComplete);
        Stream {
            job,
            stop,
            wanted,
            layer,
            open,
            bytes: None,
            hash,
            done: 0,
            told,
            outcome,
            slots,
            slot: None,
        }
    }

    /// Of the blob.
    pub fn digest(&self) -> &Digest {
        &self.wanted.digest
    }

    /// Asks for the blob: an error is what the source says.
    pub fn start(&mut self) -> Result<()> {
        self.start_behind(0, Hasher::new())
    }

    /// The same where the first `offset` bytes are here already and `hash` has seen them: only the rest is asked for.
    /// Called again, it begins again.
    pub fn start_behind(&mut self, offset: u64, hash: Hasher) -> Result<()> {
        // The old ones end before new ones are asked for.
        self.bytes = None;
        (self.done, self.hash) = (offset, Some(hash));
        self.ask().map(drop)
    }

    /// Waits for its turn among those of the job.
    fn ask(&mut self) -> Result<&mut Box<dyn Read + Send + 'a>> {
        let slots = self.slots;
        self.slot.get_or_insert_with(|| slots.take());
        Ok(self.bytes.insert((self.open)(self.done)?))
    }

    /// Somebody else is bringing it; so many bytes have come by him. It is to be delivered again later.
    pub fn comes_by_another(&mut self, come: u64) {
        self.tell(Phase::Waiting, come);
        self.outcome = None;
    }

    /// Somebody else has brought it: nobody is asked for it any more.
    pub fn is_here(&mut self) {
        self.outcome = Some(LayerOutcome::AlreadyExists);
    }

    /// `None`: it is to be delivered again.
    pub(super) fn outcome(&self) -> Option<LayerOutcome> {
        self.outcome.clone()
    }

    /// An error once it is to stop: by the user, or since another layer failed.
    fn check(&self) -> Result<()> {
        self.job.check()?;
        if self.stop.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Whether anybody was asked for it: what is here already is not.
    pub(super) fn is_begun(&self) -> bool {
        self.bytes.is_some()
    }

    /// Reads what is left, and proves all of it.
    pub fn finish(&mut self) -> Result<()> {
        let mut rest = [0; 16 * 1024];
        loop {
            match self.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(|| format!("reading layer {}", self.layer)),
            }
        }
    }

    fn tell(&self, phase: Phase, done: u64) {
        let (layer, total) = (self.layer.clone(), Some(self.wanted.size));
        self.job.report(Event::LayerProgress { layer, phase, done, total });
    }

    fn tell_how_far(&mut self) {
        self.told = Instant::now();
        self.tell(Phase::Downloading, self.done);
    }

    fn prove(&mut self) -> Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let wanted = self.wanted;
        if self.done != wanted.size {
            return Err(Error::corrupt(format!(
                "{} ended after {} of {} bytes",
                wanted.digest, self.done, wanted.size
            )));
        }
        let got = hash.finish();
        if got != wanted.digest {
            return Err(Error::corrupt(format!("{} came with the digest {got}", wanted.digest))
                .hint("try again; if it stays so, the copy at the source is damaged"));
        }
        self.tell_how_far();
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        if buf.is_empty() || self.hash.is_none() {
            return Ok(0);
        }
        let bytes = match &mut self.bytes {
            Some(bytes) => bytes,
            None => self.ask()?,
        };
        let count = bytes.read(buf)?;
        let Some(hash) = &mut self.hash else { return Ok(0) };
        hash.update(&buf[..count]);
        self.done = self.done.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if self.done > self.wanted.size {
            return Err(Error::corrupt(format!(
                "{} is longer than the {} bytes its descriptor says",
                self.wanted.digest, self.wanted.size
            ))
            .into());
        }
        if count == 0 {
            self.prove()?;
        } else if self.told.elapsed() >= BEAT {
            self.tell_how_far();
        }
        Ok(count)
    }
}
