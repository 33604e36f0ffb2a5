//! Containers: a writable layer that keeps what was said when it was created, and now and then has a process in it.
//!
//! ```text
//! create ──> created ──start──> running ──its process ends──> exited ──start──> ...
//!               └──────────────────── remove ───────────────────┘
//! ```
//!
//! Its row holds the image, the writable layer and the [`Config`]. While it runs, its row names a lease that the
//! runtime's outer half holds; so a container whose outcrop was killed is known to be dead by whoever looks next,
//! and the sweep writes it down.

mod attach;
mod config;
mod create;
mod failed;
mod find;
mod freeze;
mod names;
mod process;
mod record;
mod remove;
mod size;
mod spec;
mod start;
mod still;
mod volume;

pub use attach::Console;
pub use config::{Attach, Config, Mount, MountKind, Tmpfs};
pub use create::{New, create, record_all};
pub use failed::{FailedStep, StepMount, adopt, kept};
pub use find::{find, resolve};
pub use freeze::{Frozen, freeze, wake};
pub use names::check_name;
pub use process::{kill, process_id};
pub use record::Record;
pub use remove::{RemoveOptions, remove};
pub use size::changed_bytes;
pub use start::{Foreground, More, start};
pub use still::Still;
pub use volume::{Making as MakingVolume, check_volume_name};

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::db::{ContainerId, ContainerRow, ContainerState};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::runtime::mountpoints::{self, Made};
use crate::sys;

/// The container's own directory: what is known of it while it runs.
fn directory(engine: &Engine, id: &ContainerId) -> PathBuf {
    engine.root.join("containers").join(id.as_str())
}

/// Where the runtime notes the mount points it made, while they stand.
fn journal(engine: &Engine, id: &ContainerId) -> PathBuf {
    directory(engine, id).join("mountpoints")
}

/// The mount points that stand in the writable layer now, by outcrop's doing.
pub fn mount_points(engine: &Engine, id: &ContainerId) -> Result<Made> {
    let path = journal(engine, id);
    let doing = || format!("reading {}", path.display());
    match std::fs::read(&path) {
        // One that was cut short was written before anything was mounted.
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Made::default()),
        Err(error) => Err(error).context(doing),
    }
}

/// It does not run, and nobody is about to start it.
pub fn is_idle(engine: &Engine, row: &ContainerRow) -> Result<bool> {
    Ok(match (row.state, &row.lease) {
        (ContainerState::Created, Some(starter)) => engine.db.lease_is_free(starter)?,
        (ContainerState::Created | ContainerState::Exited, _) => true,
        _ => false,
    })
}

/// Takes away the mount points of a runtime that was killed before it could, unless the container runs.
pub fn recover_dead(engine: &Engine, row: &ContainerRow) -> Result<()> {
    if !has_mount_points(engine, &row.id) {
        return Ok(());
    }
    let _turn = turn(engine, &row.id)?;
    // It may have been started since its row was read.
    match engine.db.read(|index| index.container(&row.id))? {
        Some(now) if now.state != ContainerState::Running => recover(engine, &now),
        _ => Ok(()),
    }
}

/// Mount points of outcrop's making stand in its writable layer: it runs, or its runtime was killed.
pub fn has_mount_points(engine: &Engine, id: &ContainerId) -> bool {
    journal(engine, id).exists()
}

/// Whoever takes mount points away, and whoever is about to make some: one after the other. Its directory is there.
fn turn(engine: &Engine, id: &ContainerId) -> Result<OwnedFd> {
    let path = directory(engine, id);
    let doing = || format!("locking {}", path.display());
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty()).context(doing)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&dir, FlockOperation::LockExclusive)).context(doing)?;
    Ok(dir)
}

fn recover(engine: &Engine, row: &ContainerRow) -> Result<()> {
    let journal = journal(engine, &row.id);
    if !journal.exists() {
        return Ok(());
    }
    mountpoints::recover(&mount(engine, row)?, &journal)
}

/// Its stack, with its own layer on top. Of one that goes when it ends nothing is to outlive a power cut: it waits for no disk when it is
/// unmounted (the kernel writes the whole filesystem below to disk then), nor when its processes ask for that.
fn mount(engine: &Engine, row: &ContainerRow) -> Result<sys::mount::Mount> {
    let mut mount = engine.snapshots.mount(row.snapshot)?;
    if let sys::mount::Mount::Overlay { volatile, .. } = &mut mount {
        *volatile = row.auto_remove;
    }
    Ok(mount)
}
