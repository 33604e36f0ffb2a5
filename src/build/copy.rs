//! COPY and ADD carried out: files are copied, archives unpacked.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::execute::{self, Done, Work};
use super::stage::Stage;
use super::{Base, Previous};
use crate::context::ignore::Ignore;
use crate::context::{Input, Pins, copy, unpack};
use crate::db::Time;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::job::StepAt;
use crate::plan::{self, Source, Unpack};
use crate::rootfs::{self, Stack};
use crate::runtime;
use crate::snapshot::{Purpose, driver::Shape};

pub(super) fn copy(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    at: &StepAt,
    what: &plan::Copy,
    owner: Option<(u32, u32)>,
    inputs: &[Input<'_>],
) -> Result<Done> {
    let copying = Copying { stage, base, work, at, what, owner, inputs };
    if !what.link {
        return copying.done();
    }
    // A driver that keeps whole stacks cannot keep a tree of the layer alone under the stack's name: it stands on nothing
    // first, and is put on the stack like any known layer.
    let layered = stage.engine.snapshots.driver().shape() == Shape::Layered;
    let nothing = Base { stack: Stack::default(), ..base.clone() };
    let done = Copying { base: &nothing, ..copying }.done()?;
    let layer = match &done {
        Done::Layer(layer) => layer.as_ref(),
        Done::Again(before) => before.layer.as_ref(),
        Done::Unrecorded(layer) => Some(layer),
        Done::InputChanged(_) => None,
    };
    if let (Some(layer), false) = (layer, layered) {
        rootfs::ensure(stage.engine, &base.stack, layer, stage.inputs.lease, stage.job)?;
    }
    Ok(done)
}

/// A step on what it stands on, and all that goes into it.
struct Copying<'c> {
    stage: &'c Stage<'c>,
    base: &'c Base,
    work: Work<'c>,
    at: &'c StepAt,
    what: &'c plan::Copy,
    owner: Option<(u32, u32)>,
    inputs: &'c [Input<'c>],
}

impl Copying<'_> {
    /// First with what earlier layers have, and where that cannot be (a filesystem's limits, a damaged layer) all of it anew.
    fn done(&self) -> Result<Done> {
        let Copying { stage, work, .. } = self;
        // Under SOURCE_DATE_EPOCH what was built before must not show.
        let pins = match stage.inputs.epoch {
            None => pins(stage.engine, stage.inputs.previous, &work.step.created_by, self.at)?,
            Some(_) => None,
        };
        for link in [true, false] {
            if let Some(done) = self.attempt(pins.as_ref(), link)? {
                return Ok(done);
            }
        }
        Err(Error::internal("a COPY that links nothing was to be done again"))
    }

    /// `None`: it is to be done again without links.
    fn attempt(&self, pins: Option<&Pins>, link: bool) -> Result<Option<Done>> {
        let Copying { stage, base, work, what, owner, inputs, .. } = *self;
        let draft = stage.engine.snapshots.draft(base.stack.chain(), Purpose::Layer)?;
        let copies = {
            let root = draft.mounted()?;
            let (mut files, mut unpacked) = (Vec::new(), false);
            for (source, input) in what.sources.iter().zip(inputs) {
                if !unpacks(what.unpack, source) {
                    files.push(input.reference());
                    continue;
                }
                let archives = unpack::archives(input)?;
                unpacked |= !archives.is_empty();
                for archive in &archives {
                    if let Some(path) =
                        unpack::into(root.as_fd(), &what.destination, input, *archive, owner, stage.job)?
                    {
                        return Ok(Some(Done::InputChanged(path)));
                    }
                }
                files.push(input.without(&archives));
            }
            let (mode, link) = (what.chmod.as_ref(), link && !unpacked);
            let options = copy::Options { owner, mode, pins, link };
            copy::into(root.as_fd(), &what.destination, &files, &what.inline, options, stage.job)?
        };
        let links = pins.filter(|_| !copies.links.is_empty());
        if let Some(pins) = links
            && !copies.links.give(pins, draft.tree()?.dir.as_fd())?
        {
            return Ok(None);
        }
        let done = execute::pack(stage, base, work, draft, &copies.files, None)?;
        // It may be the layer's file that is not what it was, and not the context's.
        Ok(Some(done).filter(|done| links.is_none() || !matches!(done, Done::InputChanged(_))))
    }
}

/// As many builds elsewhere must agree on a file for its time to be kept.
const MOST_ELSEWHERE: u32 = 4;

/// What the last build of this Dockerfile copied with this instruction; where there was none, what the last builds
/// elsewhere did: a fresh clone is another context. `None`: nothing is known.
fn pins(engine: &Engine, previous: &Previous, instruction: &str, at: &StepAt) -> Result<Option<Pins>> {
    let own = previous
        .steps(engine)?
        .iter()
        .find(|step| step.instruction == instruction && step.stage.as_deref() == at.stage.as_deref());
    let now = Time::now();
    let build = match own {
        Some(_) => previous.build(engine)?,
        None => None,
    };
    let (layers, last) = engine.db.read(|index| {
        if let (Some(step), Some(build)) = (own, build) {
            // One that was killed may have gone on until now.
            let end = index.build(build)?.map_or(Time(0), |build| build.finished_at.unwrap_or(now));
            return Ok((step.layer.into_iter().collect(), end));
        }
        // Another context may be another project, which says nothing of how old this one's files should be.
        let records = index.cache_records_of(instruction, MOST_ELSEWHERE)?;
        Ok((records.iter().filter_map(|record| record.layer).collect::<Vec<_>>(), Time(0)))
    })?;
    if layers.is_empty() {
        return Ok(None);
    }
    let mut pins = Pins::new(last.seconds(), now.seconds());
    let mut seen = HashSet::new();
    let layers = layers.into_iter().filter(|layer| seen.insert(*layer));
    for (n, layer) in layers.enumerate() {
        let held = match n {
            // One that is gone holds nothing.
            0 => engine.snapshots.tree_of(layer).ok().flatten().map(|tree| tree.dir),
            _ => None,
        };
        let add = if held.is_some() { Pins::add_held } else { Pins::add };
        for row in engine.db.rows(layer) {
            add(&mut pins, row?);
        }
        if let Some(tree) = held {
            pins.hold(tree);
        }
    }
    Ok(Some(pins))
}

/// Whether an archive is among what is unpacked.
pub(super) fn unpacks_any(what: &plan::Copy, inputs: &[Input<'_>]) -> Result<bool> {
    for (source, input) in what.sources.iter().zip(inputs) {
        if unpacks(what.unpack, source) && !unpack::archives(input)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unpacks(which: Unpack, source: &Source) -> bool {
    match (which, source) {
        (Unpack::None, _) | (_, Source::Git(_)) => false,
        (Unpack::All, _) => true,
        (Unpack::Local, Source::Path(_)) => true,
        (Unpack::Local, Source::Http(_)) => false,
    }
}

/// The patterns of `--exclude`, if there are any.
pub(super) fn exclude(patterns: &[String]) -> Result<Option<Ignore>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    Ignore::parse(patterns.join("\n").as_bytes()).map(Some).context(|| "reading --exclude")
}

/// Names are looked up in the image's own files; a number without a group is the group's too (Docker).
pub(super) fn owner_of(root: BorrowedFd<'_>, owner: &str) -> Result<(u32, u32)> {
    if let Some(numbers) = runtime::user::numbers(owner) {
        return Ok(numbers);
    }
    let user = runtime::user::resolve(root, owner, &[])?;
    Ok((user.uid, user.gid))
}
