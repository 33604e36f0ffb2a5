//! `type=bind`: files of the context, a stage or an image.
//!
//! Those of the context are copied, so that the command sees what was hashed, without what `.dockerignore` excludes and
//! owned by root, whoever changes or owns the files meanwhile.

use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::super::stage::Stage;
use crate::build::key;
use crate::context::{Input, copy};
use crate::error::{Context as _, Result};
use crate::image::Digest;
use crate::plan::{self, CopyFrom};
use crate::runtime::{Spec, Tmpfs, Tree};
use crate::snapshot::{Draft, Purpose};
use crate::sys::dir;

pub(super) struct Bind<'m> {
    plan: &'m plan::Bind,
    /// `None`: nothing is mounted but an empty directory.
    input: Option<Input<'m>>,
}

/// Where a copy stands in its draft.
const PLACE: &str = "it";

impl<'m> Bind<'m> {
    pub(super) fn of<'b: 'm>(stage: &Stage<'b>, plan: &'m plan::Bind) -> Result<Self> {
        let input = match &plan.from {
            None => None,
            Some(from) => Some(subtree(stage, from, &plan.source)?),
        };
        Ok(Bind { plan, input })
    }

    pub(super) fn input(&self) -> Option<&Input<'m>> {
        self.input.as_ref()
    }

    pub(super) fn key(&self) -> key::Mount<'m> {
        key::Mount::Bind {
            target: &self.plan.target,
            read_only: self.plan.read_only,
            content: self.input.as_ref().map(Input::digest),
        }
    }

    /// The path that was not what the key says, if one was not.
    pub(super) fn prepare<'b>(
        &self,
        stage: &Stage<'b>,
        spec: &mut Spec,
        drafts: &mut Vec<Draft<'b>>,
    ) -> Result<Option<String>> {
        let plan::Bind { source, target, read_only, .. } = self.plan;
        let (Some(from), Some(input)) = (&self.plan.from, &self.input) else {
            let read_only = *read_only;
            spec.tmpfs.push(Tmpfs {
                target: target.clone(),
                size: None,
                mode: Some(0o755),
                read_only,
                exec: true,
            });
            return Ok(None);
        };
        let snapshots = &stage.engine.snapshots;
        let (tree, source) = match (stage.base_of(from)?, read_only) {
            (Some((base, _)), true) => (snapshots.view(stage.here(&base.stack)?.chain())?, source.clone()),
            (Some((base, _)), false) => {
                let draft = snapshots.draft(stage.here(&base.stack)?.chain(), Purpose::Layer)?;
                let mount = draft.mount()?;
                drafts.push(draft);
                (mount, source.clone())
            }
            (None, _) => {
                let draft = snapshots.draft(None, Purpose::Layer)?;
                copy_into(stage, &draft, input)?;
                if let Some(changed) = changed(stage, input, source)? {
                    return Ok(Some(changed));
                }
                let mount = draft.mount()?;
                drafts.push(draft);
                (mount, PLACE.to_owned())
            }
        };
        spec.trees.push(Tree { tree, source, target: target.clone(), read_only: *read_only });
        Ok(None)
    }
}

/// What `source` names in a tree, hashed.
pub(super) fn subtree<'b>(stage: &Stage<'b>, from: &CopyFrom, source: &str) -> Result<Input<'b>> {
    let tree = stage.tree(from)?;
    let selection = tree.subtree(source, stage.job)?;
    Ok(Input { tree, selection, identity: None })
}

/// Of a directory that is mounted, or of what a cache begins with; `None`: of a file.
pub(super) fn root_attributes(input: &Input<'_>) -> Option<(u32, (u32, u32), Timestamps)> {
    let source = input.selection.sources.first().filter(|source| source.is_dir)?;
    let top = source.items.first()?;
    // What a context's own directory is like on this host is nobody's business.
    let own = !input.tree.keeps_owners() && source.path.is_empty();
    let (mode, owner) = match input.tree.keeps_owners() {
        true => (top.mode, (top.uid, top.gid)),
        false if own => (0o755, (0, 0)),
        false => (top.mode, (0, 0)),
    };
    let time = Timespec { tv_sec: top.mtime.0, tv_nsec: top.mtime.1 };
    Some((mode, owner, Timestamps { last_access: time, last_modification: time }))
}

fn copy_into(stage: &Stage<'_>, draft: &Draft<'_>, input: &Input<'_>) -> Result<()> {
    let doing = || "copying files of the build context for a mount";
    let root = draft.mounted()?;
    let inputs = std::slice::from_ref(input);
    let attributes = root_attributes(input);
    let place = if attributes.is_some() { format!("/{PLACE}/") } else { format!("/{PLACE}") };
    let parts: Vec<_> = inputs.iter().map(Input::reference).collect();
    copy::into(root.as_fd(), &place, &parts, &[], copy::Options::default(), stage.job)?;
    if let Some((mode, _, times)) = attributes {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = dir::open_in_root(root.as_fd(), PLACE.as_bytes(), flags).context(doing)?;
        rustix::fs::fchmod(&top, Mode::from_raw_mode(mode)).context(doing)?;
        rustix::fs::futimens(&top, &times).context(doing)?;
    }
    Ok(())
}

/// Looks again: what was neither changed before nor after the copying is what was hashed.
fn changed(stage: &Stage<'_>, input: &Input<'_>, source: &str) -> Result<Option<String>> {
    let again = input.tree.subtree(source, stage.job)?;
    let (before, after) = (input.selection.files(), again.files());
    let digest = |item: &crate::context::Item| -> Option<Digest> { item.digest };
    let same = |(_, a): &(_, &crate::context::Item), (_, b): &(_, &crate::context::Item)| {
        a == b && digest(a) == digest(b)
    };
    let mut pairs = before.zip(after);
    let differs = pairs.find(|(before, after)| !same(before, after)).map(|((_, item), _)| item.path.clone());
    let other_count = input.selection.files().count() != again.files().count();
    Ok(match differs {
        Some(path) => Some(format!("{source}/{}", String::from_utf8_lossy(&path))),
        None if other_count => Some(source.to_owned()),
        None => None,
    })
}
