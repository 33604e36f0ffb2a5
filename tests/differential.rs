//! The proof of the cache: random Dockerfiles and contexts, edited at random; every incremental build is compared with
//! one in an empty store.

mod compare;
mod project;
mod random;
mod stores;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use compare::Case;
use project::Project;
use random::Random;
use stores::Stores;

/// Cases of one project share its incremental store.
const EDITS: usize = 12;

/// Runs `count` cases on both cores, beginning with the project `seed`. The first that differs, told whole.
fn run(
    seed: u64,
    count: usize,
    limit: Option<Duration>,
    hole: Option<&'static str>,
) -> (usize, Option<String>) {
    let start = Instant::now();
    let stores = Stores::new();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < count
                    && limit.is_none_or(|limit| start.elapsed() < limit)
                    && found.lock().unwrap().is_none()
                {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    let mut random = Random::new(seed + number);
                    let mut project = Project::random(&mut random);
                    let mut case = Case::new(&stores, number, &mut random, hole);
                    for edit in 0..EDITS {
                        if let Err(difference) = case.check(&project) {
                            let told = format!("project {}, edit {edit}: {difference}", seed + number);
                            found.lock().unwrap().get_or_insert(told);
                            return;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                        match hole {
                            // What one part of a key is for shows best when nothing else changes.
                            Some(_) if !random.one_in(4) => project.vary(&mut random),
                            _ => project.edit(&mut random),
                        }
                    }
                }
            });
        }
    });
    (done.into_inner(), found.into_inner().unwrap())
}

/// `OUTCROP_CASES` and `OUTCROP_SEED` ask for other ones than those of every day: `make soak`.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[test]
fn an_incremental_build_gives_what_a_build_from_nothing_gives() {
    let cases = usize::try_from(number("OUTCROP_CASES", 2000)).unwrap();
    let (done, difference) = run(number("OUTCROP_SEED", 1), cases, None, None);
    if let Some(difference) = difference {
        panic!("{difference}");
    }
    assert!(done >= cases, "{done} cases");
}

/// A part of the key that is left out on purpose must be found out.
#[cfg(debug_assertions)]
#[test]
fn an_input_that_is_left_out_of_the_key_is_found_out() {
    // Found out within some hundred cases each; that the others count as well is said by `build::key`'s own tests.
    let holes = [
        "parent",
        "epoch",
        "run.args",
        "run.env",
        "copy.content",
        "copy.files",
        "copy.destination",
        // What a COPY saw on its way, on a stack that it has not stood on.
        "reads",
    ];
    for hole in holes {
        let (done, difference) = run(1, 4000, None, Some(hole));

        assert!(difference.is_some(), "without `{hole}` in the key {done} cases found nothing wrong");
    }
}
