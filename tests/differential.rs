//! The proof of the cache: random Dockerfiles and contexts, edited at random; every incremental build is compared with
//! one in an empty store.

mod compare;
mod focus;
mod project;
pub(crate) mod random;
mod stores;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use compare::Case;
use focus::Focus;
use project::Project;
use random::Random;
use stores::Stores;

/// Cases of one project share its incremental store.
const EDITS: usize = 12;

/// Runs `count` cases on both cores, beginning with the project `seed`. The first that differs, told whole.
fn run(seed: u64, count: usize, search: Search) -> (usize, Option<String>) {
    let stores = Stores::new();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < count && found.lock().unwrap().is_none() {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if let Err(difference) = history(&stores, seed + number, search, &done) {
                        found.lock().unwrap().get_or_insert(difference);
                        return;
                    }
                }
            });
        }
    });
    (done.into_inner(), found.into_inner().unwrap())
}

/// A project and its edits.
fn history(stores: &Stores, seed: u64, search: Search, done: &AtomicUsize) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut end = search.focus.map(|focus| focus.end(&mut random));
    let mut project = match end {
        Some(end) => Project::ending(&mut random, end.instructions),
        None => Project::random(&mut random),
    };
    let mut case = Case::new(stores, seed, &mut random, search.hole);
    for edit in 0..EDITS {
        case.check(&project, end.map_or(|_| {}, |end| end.ask))
            .map_err(|difference| format!("project {seed}, edit {edit}: {difference}"))?;
        done.fetch_add(1, Ordering::Relaxed);
        end = search.focus.map(|focus| focus.end(&mut random));
        match end {
            Some(end) => project.end(end.instructions),
            // What one part of a key is for shows best when nothing else changes.
            None if search.hole.is_some() && !random.one_in(4) => project.vary(&mut random),
            None => project.edit(&mut random),
        }
    }
    Ok(())
}

/// Which projects are built, and how.
#[derive(Clone, Copy, Default)]
struct Search {
    /// A part of the key that is left out on purpose, in test builds.
    hole: Option<&'static str>,
    /// Projects that end in what has this part; else projects of every kind.
    focus: Option<&'static Focus>,
}

/// Cases of every day, enough to find out each part of the key that may be left out; `make soak` tries many more.
const DAILY: usize = 600;

/// `OUTCROP_CASES` and `OUTCROP_SEED` ask for other ones than those of every day: `make soak`.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[test]
fn an_incremental_build_gives_what_a_build_from_nothing_gives() {
    let cases = usize::try_from(number("OUTCROP_CASES", DAILY as u64)).unwrap();
    let (done, difference) = run(number("OUTCROP_SEED", 1), cases, Search::default());
    if let Some(difference) = difference {
        panic!("{difference}");
    }
    assert!(done >= cases, "{done} cases");
}

/// A part of the key that is left out on purpose must be found out.
#[cfg(debug_assertions)]
#[test]
fn an_input_that_is_left_out_of_the_key_is_found_out() {
    // "reads": what a COPY saw on its way, on a stack that it has not stood on.
    let anywhere = ["parent", "run.args", "copy.content", "reads"].map(|hole| (hole, None));
    for (hole, focus) in focus::ALL.iter().map(|focus| (focus.hole, Some(focus))).chain(anywhere) {
        let cases = if focus.is_some() { 20 * EDITS } else { DAILY };
        let (done, difference) = run(1, cases, Search { hole: Some(hole), focus });

        assert!(difference.is_some(), "without `{hole}` in the key {done} cases found nothing wrong");
    }
}

/// Where nothing is left out, the same projects find nothing wrong.
#[test]
fn what_finds_mistakes_finds_none_where_there_is_none() {
    for focus in focus::ALL {
        let (_, difference) = run(1, EDITS, Search { hole: None, focus: Some(focus) });

        assert!(difference.is_none(), "{}: {difference:?}", focus.hole);
    }
}
