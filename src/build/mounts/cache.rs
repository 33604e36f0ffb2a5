//! `type=cache`: a directory of the store that outlives the build.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::super::stage::Stage;
use super::bind::{root_attributes, subtree};
use super::caches::{self, Identity, Slot};
use crate::build::key;
use crate::context::{Input, copy};
use crate::error::{Context as _, Error, Kind, Result};
use crate::plan;
use crate::runtime::{Spec, Tree};
use crate::sys::{dir, mount};

pub(super) struct Cache<'m> {
    plan: &'m plan::Cache,
    /// What a new one begins with.
    input: Option<Input<'m>>,
}

impl<'m> Cache<'m> {
    pub(super) fn of<'b: 'm>(stage: &Stage<'b>, plan: &'m plan::Cache) -> Result<Self> {
        let input = match &plan.from {
            None => None,
            Some(from) => Some(subtree(stage, from, &plan.source)?),
        };
        if input.as_ref().is_some_and(|input| root_attributes(input).is_none()) {
            return Err(Error::unsupported(format!("a cache that begins as the file `{}`", plan.source))
                .hint("name a directory"));
        }
        let cache = Cache { plan, input };
        stage.inputs.notes.cache(cache.identity());
        Ok(cache)
    }

    pub(super) fn input(&self) -> Option<&Input<'m>> {
        self.input.as_ref()
    }

    pub(super) fn key(&self) -> key::Mount<'m> {
        key::Mount::Cache {
            target: &self.plan.target,
            read_only: self.plan.read_only,
            content: self.input.as_ref().map(Input::digest),
            mode: self.plan.mode,
            owner: self.plan.owner,
        }
    }

    fn identity(&self) -> Identity {
        let content = self.input.as_ref().map(Input::digest);
        Identity { id: self.plan.id.clone(), content, mode: self.plan.mode, owner: self.plan.owner }
    }

    /// A new one's beginning, in an empty directory.
    fn fill(&self, stage: &Stage<'_>, path: &Path) -> Result<()> {
        let doing = || format!("making {}", path.display());
        if self.restore(stage, path)? {
            return Ok(());
        }
        let to = dir::open_path(path).context(doing)?;
        let (mut mode, mut owner, mut times) = (self.plan.mode, self.plan.owner, None);
        if let Some(input) = &self.input {
            let inputs = std::slice::from_ref(input);
            let parts: Vec<_> = inputs.iter().map(Input::reference).collect();
            copy::into(to.as_fd(), "/", &parts, &[], copy::Options::default(), stage.job)?;
            if let Some(of_source) = root_attributes(input) {
                (mode, owner, times) = (of_source.0, of_source.1, Some(of_source.2));
            }
        }
        rustix::fs::fchown(&to, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).context(doing)?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(mode)).context(doing)?;
        if let Some(times) = times {
            rustix::fs::futimens(&to, &times).context(doing)?;
        }
        Ok(())
    }

    /// As a cache of another store has it; false: none does, and the directory is empty.
    fn restore(&self, stage: &Stage<'_>, path: &Path) -> Result<bool> {
        let Some(imported) = stage.inputs.imported else { return Ok(false) };
        let problem = match imported.restore(&self.identity().text(), path, stage.job) {
            Ok(restored) => return Ok(restored),
            Err(problem) if problem.kind() == Kind::Cancelled => return Err(problem),
            Err(problem) => problem,
        };
        let shown = self.identity();
        stage.job.warn(format!("the cache `{}` begins empty: {}", shown.shown(), problem.one_line()));
        let doing = || format!("emptying {}", path.display());
        std::fs::remove_dir_all(path).and_then(|()| std::fs::create_dir(path)).context(doing)?;
        Ok(false)
    }

    fn mount(&self, slot: &Slot, spec: &mut Spec) -> Result<()> {
        let source = slot.data();
        // Where `from` is nothing, a source is a directory that earlier commands made in the cache.
        let below = if self.input.is_none() { self.plan.source.clone() } else { String::new() };
        if !below.is_empty() {
            let root = dir::open_path(&source).context(|| format!("opening {}", source.display()))?;
            dir::open_in_root(root.as_fd(), below.as_bytes(), OFlags::PATH).map_err(|cause| {
                Error::not_found(format!("`{below}` is not in the cache `{}`", self.identity().shown()))
                    .because(Error::invalid(cause.to_string()))
            })?;
        }
        spec.trees.push(Tree {
            tree: mount::Mount::Bind { source, read_only: false },
            source: below,
            target: self.plan.target.clone(),
            read_only: self.plan.read_only,
        });
        Ok(())
    }
}

/// All caches of one command. The same one mounted twice is taken once, and they are taken in one order everywhere, so that
/// no two commands wait for each other.
pub(super) fn prepare(stage: &Stage<'_>, caches: Vec<&Cache<'_>>, spec: &mut Spec) -> Result<Vec<Slot>> {
    let mut wanted: Vec<(Identity, &Cache<'_>)> =
        caches.into_iter().map(|cache| (cache.identity(), cache)).collect();
    wanted.sort_by_key(|(identity, _)| identity.name());
    let mut slots: Vec<(String, Slot)> = Vec::new();
    for (identity, cache) in wanted {
        let name = identity.name();
        let slot = match slots.iter().find(|(known, _)| *known == name) {
            Some((_, slot)) => slot,
            None => {
                let sharing = cache.plan.sharing;
                let fill = |path: &Path| cache.fill(stage, path);
                let slot = caches::take(stage.engine, &identity, sharing, stage.job, &fill)
                    .context(|| format!("taking the cache `{}`", identity.shown()))?;
                slots.push((name, slot));
                &slots.last().expect("pushed above").1
            }
        };
        cache.mount(slot, spec)?;
    }
    Ok(slots.into_iter().map(|(_, slot)| slot).collect())
}
