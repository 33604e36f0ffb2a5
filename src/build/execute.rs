//! A step that has to be done: a draft on the parent, the work in it, a layer of what changed.

use std::cell::RefCell;
use std::os::fd::AsFd as _;

use rustix::fs::OFlags;

use super::guard::Guard;
use super::mounts::Mounts;
use super::stage::Stage;
use super::{Base, copy, record, run};
use crate::context::Input;
use crate::context::copy::{Copied, make_dirs};
use crate::error::{Context as _, Result};
use crate::image::{CacheKey, ContentId};
use crate::job::StepAt;
use crate::layer::Watch;
use crate::plan::{Action, Step};
use crate::rootfs::{self, Known, Layer};
use crate::snapshot::{Draft, Purpose};
use crate::sys::dir;

pub(super) enum Done {
    /// `None` for steps that leave no layer.
    Layer(Option<Layer>),
    /// A layer that no record may name.
    Unrecorded(Layer),
    /// The step made the same content as once before: that layer stays.
    Again(record::Hit),
    /// A file was not what the key says when it was copied.
    InputChanged(String),
}

pub(super) fn execute(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    at: &StepAt,
    owner: Option<(u32, u32)>,
    input: &[Input<'_>],
    mounts: &Mounts<'_>,
) -> Result<Done> {
    match &work.step.action {
        Action::Config => Ok(Done::Layer(None)),
        Action::Run(run) => run::run(stage, base, work, run, at, mounts),
        Action::Copy(what) => copy::copy(stage, base, work, at, what, owner, input),
        Action::Workdir { path, user } => workdir(stage, base, work, path, user),
    }
}

/// A step, and the key it has wherever it stands.
#[derive(Clone, Copy)]
pub(super) struct Work<'w> {
    pub(super) step: &'w Step,
    pub(super) key: CacheKey,
    /// The key with what it stands on.
    pub(super) chain: CacheKey,
}

/// What the index says of this step's layer.
fn made<'m>(stage: &Stage<'m>, step: &'m Step) -> rootfs::Made<'m> {
    rootfs::Made {
        instruction: Some(&step.created_by),
        build: Some(stage.inputs.record),
        epoch: stage.inputs.epoch,
    }
}

pub(super) fn draft<'s>(stage: &Stage<'s>, base: &Base) -> Result<Draft<'s>> {
    stage.engine.snapshots.draft(base.stack.chain(), Purpose::Layer)
}

pub(super) fn pack(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    draft: Draft<'_>,
    copied: &[Copied],
    guard: Option<&mut Guard>,
) -> Result<Done> {
    let again = RefCell::new(None);
    let twin = |content: &ContentId| {
        let known = record::made_before(stage.engine, &work.key, content)?;
        let Some(known) = known else { return Ok(None) };
        let stands = stage.stands(&base.stack, known.layer.as_ref())?;
        Ok(again.borrow_mut().insert(known).layer.clone().filter(|_| stands))
    };
    let mut found = Vec::new();
    let mut watch = guard.map(|guard| guard.watch(&mut found));
    let known = Known {
        files: copied.iter().map(|file| (&file.path[..], file.digest)).collect(),
        twin: Some(&twin),
        watch: watch.as_mut().map(|watch| watch as &mut Watch<'_>),
    };
    let made = made(stage, work.step);
    let outcome =
        rootfs::pack(stage.engine, draft, &base.stack, &made, known, stage.inputs.lease, stage.job)?;
    drop(watch);
    if let (rootfs::Outcome::Layer(layer), false) = (&outcome, found.is_empty()) {
        for leak in found {
            stage.job.warn(format!("{leak}, and the image will hold it"));
        }
        return Ok(Done::Unrecorded(layer.clone()));
    }
    Ok(match (outcome, again.into_inner()) {
        (rootfs::Outcome::Differs(path), _) => Done::InputChanged(path),
        (rootfs::Outcome::Layer(layer), Some(before)) if before.layer.as_ref() == Some(&layer) => {
            Done::Again(before)
        }
        (rootfs::Outcome::Layer(layer), _) => Done::Layer(Some(layer)),
    })
}

fn workdir(stage: &Stage<'_>, base: &Base, work: Work<'_>, path: &str, user: &str) -> Result<Done> {
    let below = path.trim_matches('/').as_bytes();
    if !base.stack.layers().is_empty() {
        let view = base.stack.view(stage.engine)?;
        if dir::open_in_root(view.as_fd(), below, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            return Ok(Done::Layer(None));
        }
    }
    let draft = draft(stage, base)?;
    {
        let root = draft.mounted()?;
        let owner = if user.is_empty() { (0, 0) } else { copy::owner_of(root.as_fd(), user)? };
        make_dirs(root.as_fd(), below, owner).context(|| format!("making the directory `{path}`"))?;
    }
    pack(stage, base, work, draft, &[], None)
}
