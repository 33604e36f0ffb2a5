//! `system migrate`: all that the store keeps, with another storage driver.
//!
//! Trees of the other driver are made beside those of the store's, while others work; then, with nobody else in the
//! house, what came meanwhile; then a barrier, and the one moment in which the store has the other driver. Only after it
//! the old trees go. Killed before, it goes on with what is missing; killed after, the next sweep goes on.

mod plan;
mod side_by_side;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::plan::{Plan, Tree, limit_of};
use crate::container;
use crate::db::{ContainerRow, ContainerState, Moved};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::job::{Event, Job, LayerOutcome, Phase};
use crate::rootfs;
use crate::snapshot::Snapshots;
use crate::snapshot::driver::{Options, Shape};

/// What was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    pub from: String,
    pub to: String,
    /// Trees that were made now.
    pub trees: usize,
    pub containers: usize,
    /// Layers that only the build cache kept, and that the other driver has no place for.
    pub left: usize,
    /// What it takes, about, in bytes.
    pub bytes: u64,
    /// Bytes that are free for it.
    pub free: u64,
}

/// How long others may take to end, once all that can be made beside them is made.
const PATIENCE: Duration = Duration::from_secs(30);

/// What [`migrate`] would do. Makes nothing but the driver's empty directories.
pub fn look(engine: &Engine, to: &str, options: &Options, job: &Job) -> Result<Migrated> {
    engine.sweep()?;
    let target = other(engine, to, options)?;
    let plan = Plan::make(engine, &target, job)?;
    Ok(outcome(engine, &target, &plan, room(engine, &target)?))
}

/// `options` are for the other driver. Errors: `Conflict` where a container runs, where another migration is under way,
/// where others do not end; `Unavailable` where there is no room, before anything is changed.
pub fn migrate(engine: &Engine, to: &str, options: &Options, job: &Job) -> Result<Migrated> {
    let Some(_lease) = engine.db.try_lease("migration")? else {
        return Err(Error::conflict("another migration of this store is under way")
            .hint("wait for its end; what it has made by then is there"));
    };
    engine.snapshots.let_go();
    engine.sweep()?;
    let from = engine.snapshots.driver().name().to_owned();
    if engine.db.read(|index| index.driver())?.as_deref() != Some(&*from) {
        return Err(Error::conflict("the store got another storage driver just now").hint("try again"));
    }
    if from == to {
        return give_up(engine, to);
    }
    running(engine)?;
    let target = other(engine, to, options)?;
    let begun = engine.db.read(|index| index.migrating_to())?;
    if begun.as_deref().is_some_and(|begun| begun != to) {
        engine.db.durable(|index| index.end_migration())?;
        engine.sweep()?;
    }
    let plan = Plan::make(engine, &target, job)?;
    let free = room(engine, &target)?;
    if plan.bytes > free {
        return Err(no_room(engine, &target, &plan, free));
    }
    target.remove_strays()?;
    engine.db.durable(|index| index.start_migration(to, &options.pairs()))?;
    job.report(Event::Copying { from: format!("the trees of {from}"), to: to.to_owned() });
    let mut done = outcome(engine, &target, &plan, free);
    let made = make(engine, &target, &plan, Beside::Others, job).and_then(|()| engine.barrier(|_| Ok(())));
    engine.sweep_after(made)?;
    let alone = wait(engine, job)?;
    let last = finish(engine, &target, job);
    drop(alone);
    let (trees, containers, left) = engine.sweep_after(last)?;
    done.trees += trees;
    done.containers += containers;
    done.left = left;
    Ok(done)
}

/// The other driver on the same store; tried, and opened.
fn other(engine: &Engine, to: &str, options: &Options) -> Result<Snapshots> {
    let noted = engine.db.read(|index| index.options_of(to))?;
    engine.snapshots.other(to, &options.over(&Options::parse(&noted)?))
}

fn outcome(engine: &Engine, target: &Snapshots, plan: &Plan, free: u64) -> Migrated {
    Migrated {
        from: engine.snapshots.driver().name().to_owned(),
        to: target.driver().name().to_owned(),
        trees: plan.trees.len(),
        containers: plan.containers.len(),
        left: plan.left,
        bytes: plan.bytes,
        free,
    }
}

/// To the driver that the store has: what an unfinished migration has made goes.
fn give_up(engine: &Engine, to: &str) -> Result<Migrated> {
    let migrated = Migrated { from: to.to_owned(), to: to.to_owned(), ..Migrated::default() };
    engine.db.durable(|index| index.end_migration())?;
    container::record_all(engine)?;
    engine.sweep()?;
    Ok(migrated)
}

/// A container that runs writes to its layer.
fn running(engine: &Engine) -> Result<()> {
    let rows = engine.db.read(|index| index.containers())?;
    let running: Vec<String> =
        rows.into_iter().filter(|row| row.state == ContainerState::Running).map(|row| row.name).collect();
    match running.is_empty() {
        true => Ok(()),
        false => Err(Error::conflict(format!("these containers are running: {}", running.join(", ")))
            .hint("end them first (`outcrop rm -f` kills and removes one); stopped containers are moved with the store")),
    }
}

/// Bytes that can be written.
fn room(engine: &Engine, target: &Snapshots) -> Result<u64> {
    if let Some(room) = target.driver().room()? {
        return Ok(room);
    }
    let stat = rustix::fs::statvfs(&engine.root)
        .context(|| format!("looking for room in {}", engine.root.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn no_room(engine: &Engine, target: &Snapshots, plan: &Plan, free: u64) -> Error {
    Error::unavailable(format!(
        "with `{}` all that {} keeps takes about {} MB more until the old trees are gone, and {} MB are free",
        target.driver().name(),
        engine.root.display(),
        plan.bytes.div_ceil(1_000_000),
        free / 1_000_000
    ))
    .hint("`outcrop system prune` removes what nothing uses; nothing was changed")
}

/// Who else has the store open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// What they change or remove while it is read is left to the end.
    Others,
    Nobody,
}

/// Trees and writable layers that are missing.
fn make(engine: &Engine, target: &Snapshots, plan: &Plan, beside: Beside, job: &Job) -> Result<()> {
    let needs: Vec<&[usize]> = plan.trees.iter().map(|tree| &tree.needs[..]).collect();
    side_by_side::run(&needs, job.budget.threads, job, &|number, job| {
        let tree = &plan.trees[number];
        let made = make_tree(engine, target, tree, job);
        if made.is_err() && beside == Beside::Others && is_gone(engine, tree)? {
            return Ok(());
        }
        made
    })?;
    for planned in &plan.containers {
        job.check()?;
        // It may have been started, or removed, since it was looked at.
        let Some(row) = still(engine, planned)? else { continue };
        // A runtime that was killed left something in it, or one begins just now.
        if container::has_mount_points(engine, &row.id) {
            if beside == Beside::Others {
                continue;
            }
            container::recover_dead(engine, &row)?;
        }
        let made = make_writable(engine, target, &row, job);
        let changed = |now: Option<ContainerRow>| now.is_none_or(|now| now.started_at != row.started_at);
        if made.is_err() && beside == Beside::Others && changed(still(engine, &row)?) {
            continue;
        }
        made.context(|| format!("moving what container {} ({}) has written", row.id.short(), row.name))?;
    }
    Ok(())
}

/// Nothing keeps the layer any more.
fn is_gone(engine: &Engine, tree: &Tree) -> Result<bool> {
    let new = &tree.new;
    engine.db.read(|index| {
        let stack = new.chain.map(|chain| index.find_chain(&chain)).transpose()?;
        Ok(stack.is_some_and(|stack| stack.is_none()) || index.layer(new.layer.number)?.is_none())
    })
}

/// The container's row as it is now, if nothing runs in it.
fn still(engine: &Engine, row: &ContainerRow) -> Result<Option<ContainerRow>> {
    let now = engine.db.read(|index| index.container(&row.id))?;
    match now {
        Some(now) if container::is_idle(engine, &now)? => Ok(Some(now)),
        _ => Ok(None),
    }
}

fn make_tree(engine: &Engine, target: &Snapshots, tree: &Tree, job: &Job) -> Result<()> {
    const STEP: u64 = 1 << 20;
    let layer = tree.new.layer.diff_id.short();
    job.report(Event::LayerStarted { layer: layer.clone(), total: Some(tree.archive) });
    let done = AtomicU64::new(0);
    let passed = |bytes: u64| {
        let before = done.fetch_add(bytes, Ordering::Relaxed);
        if before / STEP != (before + bytes) / STEP {
            let (layer, done, total) = (layer.clone(), before + bytes, Some(tree.archive));
            job.report(Event::LayerProgress { layer, phase: Phase::Copying, done, total });
        }
    };
    let moved = rootfs::move_layer(engine, target, &tree.new, &passed, job);
    let how = if moved.is_ok() { LayerOutcome::Copied } else { LayerOutcome::Failed };
    job.report(Event::LayerDone { layer: layer.clone(), how });
    moved.context(|| format!("making layer {layer} again with `{}`", target.driver().name()))
}

fn make_writable(engine: &Engine, target: &Snapshots, row: &ContainerRow, job: &Job) -> Result<()> {
    let Some(image) = engine.db.read(|index| index.image(&row.image))? else { return Ok(()) };
    let limit = limit_of(row)?;
    let draft = rootfs::move_writable(engine, target, row.snapshot, image.chain.as_ref(), limit, job)?;
    draft.keep(|index, snapshot| {
        let moved = Moved { container: row.id.clone(), snapshot, started_at: row.started_at };
        match index.container(&row.id)? {
            Some(now) if now.state != ContainerState::Removing => index.container_moved(&moved),
            // What nobody keeps goes with the next sweep.
            _ => index.remove_snapshot(snapshot),
        }
    })
}

/// Until nobody else has the store open.
fn wait(engine: &Engine, job: &Job) -> Result<crate::db::DriverAlone> {
    let since = Instant::now();
    let mut told = false;
    engine.db.driver_alone(&mut || {
        if since.elapsed() > PATIENCE {
            running(engine)?;
            return Err(Error::conflict("other outcrop processes are using the store")
                .hint("migrate again when they have ended: what was made is there, and only what is missing is made then"));
        }
        if !told && since.elapsed() > Duration::from_secs(1) {
            told = true;
            job.report(Event::Note("waiting for other outcrop processes to end".into()));
        }
        job.pause(Duration::from_millis(10))
    })
}

/// What came meanwhile, and the switch: nobody else is here. How much more was made.
fn finish(engine: &Engine, target: &Snapshots, job: &Job) -> Result<(usize, usize, usize)> {
    engine.db.enter_anew()?;
    engine.sweep()?;
    running(engine)?;
    let plan = Plan::make(engine, target, job)?;
    make(engine, target, &plan, Beside::Nobody, job)?;
    let rest = Plan::make(engine, target, job)?;
    if !rest.is_empty() {
        return Err(Error::internal("not all of the store could be moved"));
    }
    let moved = engine.db.read(|index| index.moved())?;
    let ids: Vec<_> = moved.iter().map(|moved| moved.snapshot).collect();
    if !ids.is_empty() {
        target.write_out(&ids)?;
    }
    container::record_all(engine)?;
    engine.barrier(|_| Ok(()))?;
    job.check()?;
    engine.db.durable(|index| {
        index.switch_driver()?;
        match target.driver().shape() {
            // There a layer without a tree is damage.
            Shape::Layered => index.forget_layers_without_tree(target.driver().name()).map(drop),
            Shape::Stacked => Ok(()),
        }
    })?;
    container::record_all(engine)?;
    Ok((plan.trees.len(), plan.containers.len(), rest.left))
}
