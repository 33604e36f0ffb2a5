//! From a container's configuration to what the runtime is told.

use std::path::{Path, PathBuf};

use super::{Config, MountKind, journal, mount, volume};
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::network::{self, Host, Names};
use crate::runtime::{Bind, Seccomp, Size, Spec, Tmpfs};

pub(super) fn spec(
    engine: &Engine,
    row: &ContainerRow,
    config: &Config,
    host: &Host,
    terminal: Option<Size>,
) -> Result<Spec> {
    let mut spec = Spec::new(row.id.as_str(), mount(engine, row)?, config.args());
    let names = Names { hostname: config.hostname.as_deref(), hosts: &config.hosts };
    network::configure(network::find(&config.network)?, host, &names, &mut spec);
    spec.read_only_root = config.read_only_root;
    spec.env = config.environment(&spec.hostname);
    if !config.working_dir.is_empty() {
        spec.cwd.clone_from(&config.working_dir);
    }
    spec.user.clone_from(&config.user);
    spec.groups.clone_from(&config.groups);
    spec.capabilities = config.capabilities()?;
    if config.seccomp_unconfined {
        spec.seccomp = Seccomp::Unconfined;
    }
    if config.system_paths_unconfined {
        spec.masked_paths.clear();
        spec.read_only_paths.clear();
    }
    // What the user mounts over such a file is what the container sees.
    spec.files.retain(|file| config.mounts.iter().all(|mount| mount.target != file.target));
    spec.binds = binds(engine, config)?;
    let tmpfs = |one: &super::Tmpfs| Tmpfs {
        target: one.target.clone(),
        size: one.size,
        mode: Some(one.mode),
        read_only: false,
        exec: false,
    };
    spec.tmpfs = config.tmpfs.iter().map(tmpfs).collect();
    spec.terminal = terminal;
    spec.rlimits.clone_from(&config.rlimits);
    spec.limits.clone_from(&config.limits);
    spec.no_new_privileges = config.no_new_privileges;
    spec.shm_size = config.shm_size.unwrap_or(spec.shm_size);
    spec.journal = Some(journal(engine, &row.id));
    Ok(spec)
}

fn binds(engine: &Engine, config: &Config) -> Result<Vec<Bind>> {
    let mut binds = Vec::new();
    for mount in &config.mounts {
        let source = match &mount.kind {
            MountKind::Bind { source, create } => {
                let source = PathBuf::from(source);
                present(&source, *create)?;
                source
            }
            MountKind::Volume { name, .. } => {
                let name = name.as_deref().unwrap_or_default();
                let dir = volume::data(engine, name);
                if !dir.is_dir() {
                    return Err(Error::not_found(format!("volume {name} is gone"))
                        .hint("its directory was removed; make the container again"));
                }
                dir
            }
        };
        binds.push(Bind { source, target: mount.target.clone(), read_only: mount.read_only });
    }
    Ok(binds)
}

/// What `-v` names and is not there becomes a directory; what `--mount` names must be there.
fn present(source: &Path, create: bool) -> Result<()> {
    let there = source.try_exists().context(|| format!("looking for {}", source.display()))?;
    if there {
        return Ok(());
    }
    if !create {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            source.display()
        )));
    }
    std::fs::create_dir_all(source).context(|| format!("making {} to mount it", source.display()))
}
