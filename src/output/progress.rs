//! What users see of an export: how many bytes have passed.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Product;
use crate::error::Result;
use crate::job::{Event, Job};

/// Between two progress events.
const BEAT: Duration = Duration::from_millis(100);

/// Reported while it lives.
pub(super) struct Work<'j> {
    job: &'j Job,
    id: u64,
    done: AtomicU64,
    told: Mutex<Instant>,
}

impl<'j> Work<'j> {
    /// `total` in bytes.
    pub(super) fn start(job: &'j Job, what: String, total: Option<u64>) -> Self {
        // Numbers of other works are elsewhere.
        static NEXT: AtomicU64 = AtomicU64::new(2 << 32);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        job.report(Event::WorkStarted { id, what, total });
        Work { job, id, done: AtomicU64::new(0), told: Mutex::new(Instant::now()) }
    }

    /// Counts what is written.
    pub(super) fn watch<'w>(&'w self, out: &'w mut (dyn Write + 'w)) -> Watched<'w> {
        Watched { out, work: self }
    }

    pub(super) fn passed(&self, bytes: u64) -> Result<()> {
        self.job.check()?;
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut told = self.told.lock().expect("no holder panics");
        if told.elapsed() >= BEAT {
            *told = Instant::now();
            self.job.report(Event::WorkProgress { id: self.id, done });
        }
        Ok(())
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.job.report(Event::WorkDone { id: self.id });
    }
}

pub(super) struct Watched<'w> {
    out: &'w mut (dyn Write + 'w),
    work: &'w Work<'w>,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.work.passed(written as u64)?;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Bytes of all layers' archives, those of the files in them.
pub(super) fn layers_size(product: &Product<'_>) -> u64 {
    product.images.iter().flat_map(|image| image.stack.layers()).map(|layer| layer.size).sum()
}
