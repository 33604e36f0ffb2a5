//! Works that stand on one another, side by side where they do not.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, Kind, Result};
use crate::job::Job;
use crate::layer;

/// Does `work` of each number, once all that it needs (smaller numbers) is done, several at once. The first failure stops all.
pub(super) fn run(
    needs: &[&[usize]],
    threads: usize,
    job: &Job,
    work: &(dyn Fn(usize, &Job) -> Result<()> + Sync),
) -> Result<()> {
    let board = Board { state: Mutex::new(vec![State::Waits; needs.len()]), changed: Condvar::new() };
    let job = &job.child();
    let run = || -> Result<()> {
        while let Some(number) = board.take(needs, job)? {
            // Whoever waits for it waits no more, also where it panics.
            let done = Done { board: &board, number };
            work(number, job).inspect_err(|_| job.cancel().set())?;
            drop(done);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let count = threads.clamp(1, needs.len().max(1));
        let threads: Vec<_> = (0..count).map(|_| layer::spawn(scope, run)).collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the migration panicked")))
        });
        // The error that stopped the others, and not that they were stopped.
        let errors: Vec<Error> = ended.filter_map(Result::err).collect();
        let first = errors.into_iter().min_by_key(|error| error.kind() == Kind::Cancelled);
        first.map_or(Ok(()), Err)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    IsAtWork,
    Ended,
}

struct Board {
    state: Mutex<Vec<State>>,
    changed: Condvar,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, Vec<State>> {
        self.state.lock().expect("no holder panics")
    }

    /// The first that can be begun; waits for one. `None`: all have been begun.
    fn take(&self, needs: &[&[usize]], job: &Job) -> Result<Option<usize>> {
        let mut state = self.state();
        loop {
            job.check()?;
            if !state.contains(&State::Waits) {
                return Ok(None);
            }
            let ready = |number: &usize| {
                state[*number] == State::Waits
                    && needs[*number].iter().all(|needed| state[*needed] == State::Ended)
            };
            if let Some(number) = (0..state.len()).find(ready) {
                state[number] = State::IsAtWork;
                return Ok(Some(number));
            }
            // Somebody is at work, who looks whether to stop and ends.
            state = self.changed.wait(state).expect("no holder panics");
        }
    }
}

struct Done<'b> {
    board: &'b Board,
    number: usize,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.board.state()[self.number] = State::Ended;
        self.board.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// Each waits for the other.
    #[test]
    fn what_needs_nothing_is_done_at_the_same_time() {
        let (to_first, of_second) = channel();
        let (to_second, of_first) = channel();
        let ends = Mutex::new(vec![Some((to_second, of_second)), Some((to_first, of_first))]);
        let meet = |number: usize, _: &Job| {
            let (to, from) = ends.lock().unwrap()[number].take().unwrap();
            to.send(()).unwrap();
            from.recv_timeout(Duration::from_secs(60)).map_err(|alone| Error::internal(alone.to_string()))
        };
        run(&[&[], &[]], 2, &Job::silent(), &meet).unwrap();
    }

    #[test]
    fn what_is_needed_is_done_before() {
        let needs: [&[usize]; 7] = [&[], &[0], &[], &[1, 2], &[3], &[0], &[4, 5]];
        let done = Mutex::new(Vec::new());
        let work = |number: usize, _: &Job| {
            assert!(needs[number].iter().all(|needed| done.lock().unwrap().contains(needed)));
            std::thread::yield_now();
            done.lock().unwrap().push(number);
            Ok(())
        };
        for threads in [1, 3, 20] {
            run(&needs, threads, &Job::silent(), &work).unwrap();
            let mut all = std::mem::take(&mut *done.lock().unwrap());
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
        }
        run(&[], 3, &Job::silent(), &work).unwrap();
    }

    #[test]
    fn a_failure_stops_those_that_have_not_begun_and_is_told() {
        let begun = Mutex::new(Vec::new());
        let work = |number: usize, job: &Job| {
            begun.lock().unwrap().push(number);
            match number {
                1 => Err(Error::internal("the second failed")),
                2 => loop {
                    job.pause(Duration::from_millis(1))?;
                },
                _ => Ok(()),
            }
        };
        let job = Job::silent();
        let needs: [&[usize]; 6] = [&[], &[0], &[0], &[1], &[2], &[4]];
        let error = run(&needs, 2, &job, &work).unwrap_err();
        assert_eq!(error.message(), "the second failed");
        let begun = begun.into_inner().unwrap();
        assert!(begun.iter().all(|number| *number < 3), "{begun:?}");
        assert!(!job.cancel().is_set(), "the whole job goes on");
    }
}
