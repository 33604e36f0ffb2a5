//! `debug`: a shell in what the last failed step of a build left, with what the step saw.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};

use crate::build::mounts::SecretBytes;
use crate::build::mounts::caches::{self, Identity, Slot};
use crate::container::{self, Attach, Config, More, StepMount};
use crate::db::{ContainerRow, Time};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::job::{Event, Job};
use crate::plan::Sharing;
use crate::runtime::{File, Tree};
use crate::sys::mount::Mount;

#[derive(Default)]
pub struct Options {
    /// `None`: the last.
    pub container: Option<String>,
    /// Given again: nothing remembers them.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// Empty: a shell.
    pub args: Vec<String>,
    pub tty: bool,
}

/// A container to start, and what it holds meanwhile.
pub struct Debug {
    /// With the command to run in place of the step's.
    pub row: ContainerRow,
    pub attach: Attach,
    pub more: More,
    /// Caches, in use until this is dropped.
    pub caches: Vec<Slot>,
}

/// `NotFound` where no failed step is kept.
pub fn debug(engine: &Engine, options: &Options, job: &Job) -> Result<Debug> {
    engine.sweep()?;
    let mut row = find(engine, options.container.as_deref())?;
    let mut config = Config::of(&row)?;
    let step = config.step.take().ok_or_else(|| {
        Error::invalid(format!("{} is no failed step of a build", row.name))
            .hint("`outcrop run` and `outcrop start` run other containers")
    })?;
    if !container::is_idle(engine, &row)? {
        return Err(Error::conflict(format!("{} is running already", row.name)));
    }
    job.report(Event::Note(format!("{}: {}", row.name, step.instruction)));
    let (mut more, mut held) = (More::default(), Vec::new());
    for mount in &step.mounts {
        add(engine, mount, options, &mut more, &mut held, job)?;
    }
    config.cmd = Some(match (&options.args[..], config.args().as_slice()) {
        ([], [shell, flag, ..]) if shell.starts_with('/') && flag == "-c" => vec![shell.clone()],
        ([], _) => vec!["/bin/sh".into()],
        (args, _) => args.to_vec(),
    });
    config.tty = options.tty;
    config.open_stdin = true;
    let attach = Attach { stdin: true, stdout: true, stderr: true };
    config.attach = attach;
    row.config = serde_json::to_string(&config).context(|| "writing a container's configuration")?;
    Ok(Debug { row, attach, more, caches: held })
}

/// One failed since.
pub fn failed_since(engine: &Engine, time: Time) -> Result<Option<ContainerRow>> {
    let last = container::kept(engine)?.into_iter().next();
    Ok(last.map(|(_, row)| row).filter(|row| row.created_at >= time))
}

fn find(engine: &Engine, name: Option<&str>) -> Result<ContainerRow> {
    match name {
        Some(name) => container::resolve(engine, name),
        None => container::kept(engine)?.into_iter().next().map(|(_, row)| row).ok_or_else(|| {
            Error::not_found("no failed step of a build is kept").hint("the next RUN that fails will be")
        }),
    }
}

fn add(
    engine: &Engine,
    mount: &StepMount,
    options: &Options,
    more: &mut More,
    held: &mut Vec<Slot>,
    job: &Job,
) -> Result<()> {
    let absent = |what: String| job.report(Event::Note(what));
    match mount {
        StepMount::Files { dir, source, target } => match dir {
            Some(dir) if Path::new(dir).is_dir() => more.trees.push(Tree {
                tree: Mount::Bind { source: dir.into(), read_only: true },
                source: source.clone(),
                target: target.clone(),
                read_only: true,
            }),
            _ => absent(format!("the files of the build context at {target} are not there any more")),
        },
        StepMount::Tree { chain, source, target } => {
            let tree = engine.snapshots.view(chain.as_ref())?;
            let (source, target) = (source.clone(), target.clone());
            more.trees.push(Tree { tree, source, target, read_only: true });
        }
        StepMount::Cache { id, content, mode, owner, sharing, source, target, read_only } => {
            let identity = Identity { id: id.clone(), content: *content, mode: *mode, owner: *owner };
            let slot = cache(engine, &identity, sharing, job)?;
            more.trees.push(Tree {
                tree: Mount::Bind { source: slot.data(), read_only: false },
                source: source.clone(),
                target: target.clone(),
                read_only: *read_only,
            });
            held.push(slot);
        }
        StepMount::Secret { id, target, env, mode, owner } => {
            let Some(secret) = options.secrets.get(id) else {
                absent(format!("the secret `{id}` is not there: give it again with --secret"));
                return Ok(());
            };
            if let Some(target) = target {
                more.files.push(File {
                    target: target.clone(),
                    content: secret.0.clone(),
                    mode: *mode,
                    owner: *owner,
                    read_only: true,
                });
            }
            if let Some(name) = env {
                // Without the cause: it would say what the bytes are.
                let value = std::str::from_utf8(&secret.0)
                    .map_err(|_not_text| Error::invalid(format!("the secret `{id}` is not UTF-8")))?;
                more.env.push(format!("{name}={value}"));
            }
        }
        StepMount::Ssh { id, .. } => absent(format!("the ssh agent `{id}` is not there")),
    }
    Ok(())
}

fn cache(engine: &Engine, identity: &Identity, sharing: &str, job: &Job) -> Result<Slot> {
    let sharing = match sharing {
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => Sharing::Shared,
    };
    let fill = |path: &Path| {
        let doing = || format!("making {}", path.display());
        if identity.content.is_some() {
            return Err(Error::not_found("it is gone, and a build alone knows what a new one begins with"));
        }
        let to = crate::sys::dir::open_path(path).context(doing)?;
        let (uid, gid) = identity.owner;
        rustix::fs::fchown(&to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(doing)?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(identity.mode)).context(doing)
    };
    caches::take(engine, identity, sharing, job, &fill)
        .context(|| format!("taking the cache `{}`", identity.shown()))
}
