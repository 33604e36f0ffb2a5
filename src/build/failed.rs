//! A RUN that failed: its tree and its surroundings, kept for whoever looks for the reason, and taken again.

use std::sync::{Mutex, PoisonError};

use super::Base;
use super::guard::Guard;
use super::mounts;
use super::stage::Stage;
use crate::container::{Config, FailedStep, StepMount, Tmpfs};
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{CacheKey, ImageId};
use crate::job::StepAt;
use crate::layer::{self, PackOptions, Watch};
use crate::plan::{self, CopyFrom, Mount, Sharing};
use crate::snapshot::{Draft, Parked};

/// What a failed build leaves, for its caller to keep: the first failure.
#[derive(Default)]
pub struct Slot(Mutex<Option<Failed>>);

pub struct Failed {
    pub tree: Parked,
    /// What it stands on.
    pub image: ImageId,
    pub config: Config,
    pub code: i32,
}

impl Slot {
    pub fn take(&self) -> Option<Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Steps that failed before, whose trees may be taken for their results.
#[derive(Default)]
pub struct Resume {
    /// Of the last build.
    pub number: usize,
    /// The latest first.
    pub kept: Vec<(FailedStep, ContainerRow)>,
}

impl Resume {
    /// The tree that stands for the step: of the same key, on the very same layers. `Conflict` where the step failed in
    /// the last build and is another one now.
    pub(super) fn find(
        &self,
        engine: &Engine,
        key: &CacheKey,
        base: &Base,
        at: &StepAt,
    ) -> Result<Option<&ContainerRow>> {
        for (_, row) in self.kept.iter().filter(|(step, _)| step.key == *key) {
            let image = engine.db.read(|index| index.image(&row.image))?;
            if image.is_some_and(|image| image.chain.as_ref() == base.stack.chain()) {
                return Ok(Some(row));
            }
        }
        if at.number == self.number {
            return Err(Error::conflict(
                "the step that failed is another one now, so its files cannot be taken",
            )
            .hint("build without --resume: it runs again"));
        }
        Ok(None)
    }
}

/// Puts the draft of a RUN that ended with `code` aside. The draft holds no secret, or it goes.
pub(super) fn put_aside(
    stage: &Stage<'_>,
    base: &Base,
    run: &plan::Run,
    key: CacheKey,
    at: &StepAt,
    draft: Draft<'_>,
    code: i32,
) -> Result<()> {
    let (Some(slot), Some(image)) = (stage.inputs.failed, base.image) else { return Ok(()) };
    if holds_secret(stage, run, &draft)? {
        stage.job.warn("the files of the failed step are not kept: they hold a secret");
        return Ok(());
    }
    let config = config(stage, image, run, key, at)?;
    let mut slot = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.is_none() {
        *slot = Some(Failed { tree: draft.park()?, image, config, code });
    }
    Ok(())
}

fn holds_secret(stage: &Stage<'_>, run: &plan::Run, draft: &Draft<'_>) -> Result<bool> {
    let Some(mut guard) = Guard::of(run, stage.inputs.run) else { return Ok(false) };
    guard.allow();
    let mut found = Vec::new();
    let mut watch = guard.watch(&mut found);
    let compared = draft.compare()?;
    let options = PackOptions { watch: Some(&mut watch as &mut Watch<'_>), ..PackOptions::default() };
    layer::pack(stage.job, compared.changes(false), options, &mut (), &mut std::io::sink())
        .context(|| "looking for secrets in what a failed step left")?;
    drop(watch);
    Ok(!found.is_empty())
}

/// What the command was given, but for what nothing is to remember.
fn config(stage: &Stage<'_>, image: ImageId, run: &plan::Run, key: CacheKey, at: &StepAt) -> Result<Config> {
    let insecure = run.security == plan::Security::Insecure;
    let build = stage.inputs.record;
    let tmpfs = run.mounts.iter().filter_map(|mount| match mount {
        Mount::Tmpfs(one) => Some(Tmpfs { target: one.target.clone(), size: one.size, mode: 0o1777 }),
        Mount::Bind(one) if one.from.is_none() => {
            Some(Tmpfs { target: one.target.clone(), size: None, mode: 0o755 })
        }
        _ => None,
    });
    let mounts = run.mounts.iter().filter_map(|mount| of_mount(stage, mount).transpose());
    let step = FailedStep {
        build,
        number: at.number,
        key,
        instruction: at.text.clone(),
        mounts: mounts.collect::<Result<_>>()?,
    };
    Ok(Config {
        image: image.to_string(),
        cmd: Some(run.args.clone()),
        env: run.env.clone(),
        user: run.user.clone(),
        working_dir: run.working_dir.clone(),
        labels: [(FailedStep::LABEL.to_owned(), format!("{}/{}", build.0, at.number))].into(),
        tmpfs: tmpfs.collect(),
        network: if run.network == plan::Network::None { "none" } else { "host" }.into(),
        hosts: run.resources.hosts.clone(),
        cap_add: if insecure { vec!["ALL".into()] } else { Vec::new() },
        seccomp_unconfined: insecure,
        system_paths_unconfined: insecure,
        rlimits: run.resources.ulimits.clone(),
        shm_size: run.resources.shm_size,
        step: Some(step),
        ..Config::default()
    })
}

fn of_mount(stage: &Stage<'_>, mount: &Mount) -> Result<Option<StepMount>> {
    Ok(match mount {
        Mount::Bind(plan::Bind { from: Some(from), source, target, .. }) => {
            let (source, target) = (source.clone(), target.clone());
            Some(match (stage.base_of(from)?, from) {
                (Some((base, _)), _) => {
                    StepMount::Tree { chain: base.stack.chain().copied(), source, target }
                }
                (None, CopyFrom::Context) => StepMount::Files {
                    dir: stage
                        .inputs
                        .context
                        .as_ref()
                        .map(|context| context.dir.to_string_lossy().into_owned()),
                    source,
                    target,
                },
                (None, _) => StepMount::Files { dir: None, source, target },
            })
        }
        Mount::Cache(cache) => {
            let content = match &cache.from {
                Some(from) => Some(mounts::content(stage, from, &cache.source)?),
                None => None,
            };
            Some(StepMount::Cache {
                id: cache.id.clone(),
                content,
                mode: cache.mode,
                owner: cache.owner,
                sharing: match cache.sharing {
                    Sharing::Shared => "shared",
                    Sharing::Private => "private",
                    Sharing::Locked => "locked",
                }
                .into(),
                source: if content.is_none() { cache.source.clone() } else { String::new() },
                target: cache.target.clone(),
                read_only: cache.read_only,
            })
        }
        Mount::Secret(secret) => Some(StepMount::Secret {
            id: secret.id.clone(),
            target: secret.target.clone(),
            env: secret.env.clone(),
            mode: secret.mode,
            owner: secret.owner,
        }),
        Mount::Ssh(ssh) => Some(StepMount::Ssh { id: ssh.id.clone(), target: ssh.target.clone() }),
        Mount::Bind(_) | Mount::Tmpfs(_) => None,
    })
}
