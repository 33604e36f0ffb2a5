//! Several layers become one that says the same.

use std::os::fd::{AsFd as _, BorrowedFd};

use super::pack::{Known, Made, Outcome, pack};
use super::{Layer, Stack, replay};
use crate::db::Lease;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::job::Job;
use crate::layer::{self, Form};
use crate::snapshot::Purpose;

/// What the layers of `stack` above its first `kept` change, as one layer on these: what came and went between them is in
/// it neither as a file nor as a whiteout. Published, not durable yet.
pub fn merge(
    engine: &Engine,
    stack: &Stack,
    kept: usize,
    made: &Made<'_>,
    lease: &Lease,
    job: &Job,
) -> Result<Layer> {
    let below =
        stack.layers()[..kept].iter().fold(Stack::default(), |below, layer| below.with(layer.clone()));
    let draft = engine.snapshots.draft(below.chain(), Purpose::Layer)?;
    {
        let root = draft.mounted()?;
        for n in kept..stack.layers().len() {
            apply(engine, stack, n, root.as_fd(), job)
                .context(|| format!("merging layer {}", stack.layers()[n].diff_id.short()))?;
        }
    }
    match pack(engine, draft, &below, made, Known::default(), lease, job)? {
        Outcome::Layer(layer) => Ok(layer),
        Outcome::Differs(path) => Err(Error::internal(format!("nothing was expected of {path}"))),
    }
}

/// The archive of one layer onto a mounted tree: the union filesystem knows what a whiteout in it comes to.
fn apply(engine: &Engine, stack: &Stack, n: usize, root: BorrowedFd<'_>, job: &Job) -> Result<()> {
    let (mut reader, mut writer) = std::io::pipe().context(|| "making a pipe")?;
    std::thread::scope(|scope| {
        let replaying = scope.spawn(move || replay(engine, stack, n, &mut writer, job));
        let applied = layer::apply(job, &mut reader, root, Form::Whole, &mut (), &mut std::io::sink());
        // Nobody reads on: whoever writes must not wait for it.
        drop(reader);
        let replayed = replaying.join();
        let replayed = replayed.unwrap_or_else(|_| Err(Error::internal("replaying a recipe panicked")));
        // An archive that nobody reads to its end is no fault of its writer.
        applied.and(replayed)
    })
}
