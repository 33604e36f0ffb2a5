//! A container's process, from its beginning to its end, in the foreground.

use std::os::fd::AsFd as _;

use super::attach::{self, Console, Pipes};
use super::{Config, directory, process, recover, spec, turn, volume};
use crate::db::{ContainerRow, Lease};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::job::Job;
use crate::network::Host;
use crate::runtime::{Exit, File, Running, Tree};

/// What surrounds it.
pub struct Foreground<'f> {
    pub console: Console<'f>,
    /// What the host knows of names.
    pub host: &'f Host,
    pub more: More,
}

/// What this run sees beside what its configuration says.
#[derive(Clone, Debug, Default)]
pub struct More {
    pub trees: Vec<Tree>,
    pub files: Vec<File>,
    /// `NAME=value`.
    pub env: Vec<String>,
}

/// Until it has ended. A command that is not there is no error, but an `Exit` that says so.
///
/// Killed meanwhile, outcrop leaves an outer half that ends the container, and a lease that comes free with it.
pub fn start(engine: &Engine, row: &ContainerRow, foreground: Foreground<'_>, job: &Job) -> Result<Exit> {
    let config = Config::of(row)?;
    let mut lease = engine.db.lease()?;
    make_directory(engine, row)?;
    let turn = turn(engine, &row.id)?;
    begin(engine, row, &lease)?;
    let recovered = recover(engine, row);
    drop(turn);
    let ended = recovered.and_then(|()| run(engine, row, &config, &mut lease, foreground, job));
    let volumes = if row.auto_remove { volume::names_of(engine, row)? } else { Vec::new() };
    process::forget(engine, &row.id);
    engine.db.write(|index| {
        // Somebody removed it by force.
        if index.container(&row.id)?.is_none_or(|now| now.lease.as_deref() != Some(lease.name())) {
            return Ok(());
        }
        match &ended {
            Ok(Exit { code, problem: None, .. }) => index.container_exited(&row.id, *code)?,
            Ok(Exit { code, problem: Some(_), .. }) => index.container_refused(&row.id, *code)?,
            // What killed the runtime killed the container.
            Err(_) => index.container_exited(&row.id, 137)?,
        }
        if row.auto_remove { index.remove_container(&row.id) } else { Ok(()) }
    })?;
    give_back(engine, lease)?;
    volume::remove_anonymous(engine, &volumes)?;
    ended
}

fn run(
    engine: &Engine,
    row: &ContainerRow,
    config: &Config,
    lease: &mut Lease,
    foreground: Foreground<'_>,
    job: &Job,
) -> Result<Exit> {
    let doing = || format!("starting container {}", row.id.short());
    let terminal = config.tty.then(|| foreground.console.size());
    let mut spec = spec::spec(engine, row, config, foreground.host, terminal).context(doing)?;
    let More { trees, files, env } = foreground.more;
    spec.trees.extend(trees);
    spec.files.extend(files);
    spec.env.extend(env);
    let mut pipes = Pipes::make(config, &foreground.console).context(doing)?;
    let held = lease.lend().try_clone_to_owned().context(doing)?;
    let runtime = engine.runtime()?;
    let mut running: Running = runtime.start(&spec, pipes.stdio(vec![held])).context(doing)?;
    for warning in running.warnings() {
        job.warn(warning);
    }
    if running.pid() != 0 {
        process::note(engine, &row.id, lease, running.pid())?;
    }
    attach::attach(&mut running, config, pipes, &foreground.console)
}

/// One that goes when it ends and was created long before is on disk as created: it must not be there again after a power
/// cut with a part of what it wrote. Who creates and starts one in one go holds its lease from the beginning.
fn begin(engine: &Engine, row: &ContainerRow, lease: &Lease) -> Result<()> {
    match row.auto_remove && row.lease.is_none() {
        true => engine.db.durable(|index| index.container_started(&row.id, lease)),
        false => engine.db.write(|index| index.container_started(&row.id, lease)),
    }
}

fn make_directory(engine: &Engine, row: &ContainerRow) -> Result<()> {
    let dir = directory(engine, &row.id);
    std::fs::create_dir_all(&dir).context(|| format!("making {}", dir.display()))
}

/// The outer half is gone: ours is the last descriptor, and the lock file goes with it.
fn give_back(engine: &Engine, mut lease: Lease) -> Result<()> {
    let name = lease.name().to_owned();
    let last = lease.lend().as_fd().try_clone_to_owned().context(|| "giving back a lease")?;
    drop(lease);
    drop(Lease::adopt(&engine.root, &name, last)?);
    Ok(())
}
