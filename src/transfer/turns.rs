//! Many things done side by side, each in its turn, or later, where somebody else is at it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::job::{Job, LOOK};

/// Runs `bring` over all items in order, so many at once. Of several failures the first counts; that the others were
/// stopped for it is no failure of theirs.
pub(crate) fn side_by_side<T: Sync>(
    job: &Job,
    items: &[T],
    stop: &AtomicBool,
    bring: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    in_turns(job, items, stop, |item| bring(item).map(|()| true))
}

/// The same where `bring` may say that somebody else is at an item (`false`): it is put aside, and asked for again when all
/// others have had their turn. So who waits is in nobody's way, and not in his own.
pub(super) fn in_turns<T: Sync>(
    job: &Job,
    items: &[T],
    stop: &AtomicBool,
    bring: impl Fn(&T) -> Result<bool> + Sync,
) -> Result<()> {
    let queue = Queue { items, next: AtomicUsize::new(0), aside: Mutex::default() };
    let failure = Mutex::new(None);
    let one = || -> Result<bool> {
        job.check()?;
        let Some(item) = queue.next(job)? else { return Ok(false) };
        if !bring(item)? {
            queue.put_aside(item);
        }
        Ok(true)
    };
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            match one() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..job.budget.transfers.clamp(1, items.len().max(1)) {
            scope.spawn(work);
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(_) if job.cancel().is_set() => Err(Error::cancelled()),
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Queue<'q, T> {
    items: &'q [T],
    next: AtomicUsize,
    /// What somebody else is at, and when it was looked at.
    aside: Mutex<VecDeque<(&'q T, Instant)>>,
}

impl<'q, T> Queue<'q, T> {
    /// The first that had no turn, else the one that was put aside first, after a moment. `None`: whoever has one goes on
    /// with it.
    fn next(&self, job: &Job) -> Result<Option<&'q T>> {
        if let Some(item) = self.items.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            return Ok(Some(item));
        }
        let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((item, looked)) = aside else { return Ok(None) };
        job.pause(LOOK.saturating_sub(looked.elapsed()))?;
        Ok(Some(item))
    }

    fn put_aside(&self, item: &'q T) {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        aside.push_back((item, Instant::now()));
    }
}
