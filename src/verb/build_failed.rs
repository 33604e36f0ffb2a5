//! What a failed build leaves: its step as a container, and the way on from there.

use crate::build::{Previous, Resume, Slot};
use crate::container;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::job::Job;

/// What is done with the tree of a RUN that fails.
#[derive(Clone, Copy, Debug)]
pub struct FailedOptions {
    pub keep: bool,
    /// What the last build's failed step left is that step's result.
    pub resume: bool,
}

impl Default for FailedOptions {
    fn default() -> Self {
        FailedOptions { keep: true, resume: false }
    }
}

impl FailedOptions {
    /// `NotFound` where there is nothing to go on from.
    pub(super) fn resume(&self, engine: &Engine, previous: &Previous) -> Result<Option<Resume>> {
        if !self.resume {
            return Ok(None);
        }
        let kept = container::kept(engine)?;
        let last = previous.build(engine)?;
        let own = last.and_then(|last| kept.iter().find(|(step, _)| step.build == last));
        let number = own.map(|(step, _)| step.number).ok_or_else(|| {
            Error::not_found(
                "the last build of this Dockerfile and context left no failed step to go on from",
            )
            .hint("`outcrop ps -a` lists those that are kept; build without --resume")
        })?;
        Ok(Some(Resume { number, kept }))
    }
}

/// The failed step becomes a container, and the failure says so.
pub(super) fn keep(engine: &Engine, slot: &Slot, problem: Error, job: &Job) -> Error {
    let Some(failed) = slot.take().filter(|_| problem.kind() != Kind::Cancelled) else { return problem };
    let draft = engine.snapshots.take_up(failed.tree);
    let kept = container::adopt(engine, draft, failed.image, &failed.config, failed.code)
        .and_then(|row| engine.sweep().map(|()| row));
    match kept {
        Ok(row) => {
            let more = problem.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
            let way = format!(
                "{more}`outcrop debug` opens a shell in what the step left ({}), `outcrop build --resume` goes on from there",
                row.name
            );
            problem.hint(way)
        }
        Err(cause) => {
            job.warn(format!("the files of the failed step are not kept: {}", cause.one_line()));
            problem
        }
    }
}
