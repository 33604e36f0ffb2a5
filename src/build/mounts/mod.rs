//! `RUN --mount`: what a command is given beside its root. One type a file.
//!
//! The flow: [`Mounts::of`] looks at what the mounts name and hashes it; [`Mounts::key`] is what the step's key says
//! of them; [`Mounts::prepare`] makes them and tells the runtime, and what it returns is held until the step has ended.

mod bind;
mod cache;
pub mod caches;
mod secret;
mod ssh;
mod ssh_agent;
mod tmpfs;

use std::os::fd::OwnedFd;

pub use secret::SecretBytes;
pub use ssh_agent::{Agent, Agents};

use super::key;
use super::stage::Stage;
use crate::context::Input;
use crate::error::Result;
use crate::image::Digest;
use crate::plan::{self, Mount};
use crate::runtime::Spec;
use crate::snapshot::Draft;

/// Of one command, in the order written.
#[derive(Default)]
pub(super) struct Mounts<'m>(Vec<Looked<'m>>);

/// A mount, and what it brings, looked at.
enum Looked<'m> {
    Bind(bind::Bind<'m>),
    Cache(cache::Cache<'m>),
    Tmpfs(&'m plan::Tmpfs),
    Secret(secret::Secret<'m>),
    Ssh(ssh::Ssh<'m>),
}

/// What lives as long as the step runs.
#[derive(Default)]
pub(super) struct Held<'b> {
    drafts: Vec<Draft<'b>>,
    caches: Vec<caches::Slot>,
    sockets: Vec<ssh::Socket>,
}

pub(super) enum Prepared<'b> {
    Ready(Held<'b>),
    /// A file was not what the key says when it was copied.
    InputChanged(String),
}

impl<'m> Mounts<'m> {
    pub(super) fn of<'b: 'm>(stage: &Stage<'b>, run: &'m plan::Run) -> Result<Self> {
        let mut all = Vec::new();
        for mount in &run.mounts {
            all.extend(match mount {
                Mount::Bind(plan) => Some(Looked::Bind(bind::Bind::of(stage, plan)?)),
                Mount::Cache(plan) => Some(Looked::Cache(cache::Cache::of(stage, plan)?)),
                Mount::Tmpfs(plan) => Some(Looked::Tmpfs(plan)),
                Mount::Secret(plan) => secret::Secret::of(stage, plan).map(Looked::Secret),
                Mount::Ssh(plan) => ssh::Ssh::of(stage, plan).map(Looked::Ssh),
            });
        }
        Ok(Mounts(all))
    }

    pub(super) fn key(&self) -> Vec<key::Mount<'m>> {
        let key = |looked: &Looked<'m>| match looked {
            Looked::Bind(bind) => bind.key(),
            Looked::Cache(cache) => cache.key(),
            Looked::Tmpfs(plan) => tmpfs::key(plan),
            Looked::Secret(secret) => secret.key(),
            Looked::Ssh(ssh) => ssh.key(),
        };
        self.0.iter().map(key).collect()
    }

    /// The files that they bring.
    pub(super) fn inputs<'s>(&'s self) -> impl Iterator<Item = &'s Input<'m>> + 's {
        self.0.iter().filter_map(|looked| match looked {
            Looked::Bind(bind) => bind.input(),
            Looked::Cache(cache) => cache.input(),
            _ => None,
        })
    }

    pub(super) fn prepare<'b>(&self, stage: &Stage<'b>, spec: &mut Spec) -> Result<Prepared<'b>> {
        let mut held = Held::default();
        for looked in &self.0 {
            match looked {
                Looked::Bind(bind) => {
                    if let Some(changed) = bind.prepare(stage, spec, &mut held.drafts)? {
                        return Ok(Prepared::InputChanged(changed));
                    }
                }
                Looked::Tmpfs(plan) => tmpfs::prepare(plan, spec),
                Looked::Secret(secret) => secret.prepare(spec)?,
                Looked::Ssh(ssh) => held.sockets.push(ssh.prepare(stage, spec)?),
                Looked::Cache(_) => {}
            }
        }
        // Last, as one may have to be waited for.
        let caches = self.0.iter().filter_map(|looked| match looked {
            Looked::Cache(cache) => Some(cache),
            _ => None,
        });
        held.caches = cache::prepare(stage, caches.collect(), spec)?;
        Ok(Prepared::Ready(held))
    }
}

/// Of the files that `source` names, as a cache's identity has it.
pub(super) fn content(stage: &Stage<'_>, from: &plan::CopyFrom, source: &str) -> Result<Digest> {
    bind::subtree(stage, from, source).map(|input| input.digest())
}

impl Held<'_> {
    /// What the container's process holds on to, should this one be killed.
    pub(super) fn descriptors(&self) -> Result<Vec<OwnedFd>> {
        let drafts = self.drafts.iter().map(Draft::shadow);
        drafts.chain(self.caches.iter().map(caches::Slot::shadow)).collect()
    }
}
