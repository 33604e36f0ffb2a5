//! `system check --rebuild-index`: the databases made again from what lies beside them: recipes and trees, blobs, tags.log, the
//! directories of containers and volumes. The old ones are kept.

mod blobs;
mod containers;
mod images;
mod links;
mod stacks;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::blobs::read_blobs;
use self::containers::{add_containers, add_volumes};
use self::images::add_images;
use self::stacks::Stacks;
use crate::db::{Db, Rebuild, TagMove};
use crate::error::{Context as _, Error, Result};
use crate::job::{Event, Job};
use crate::snapshot::Snapshots;
use crate::snapshot::driver;
use crate::store::Blobs;
use crate::sys;
use crate::verb::check;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    pub images: usize,
    pub layers: usize,
    pub blobs: usize,
    pub containers: usize,
    pub volumes: usize,
    pub tags: usize,
    /// What did not, as sentences; cache records and the history of builds never do.
    pub lost: Vec<String>,
}

/// `Conflict` where others use the store. Stopped, it has changed nothing.
pub fn rebuild(root: &Path, options: &driver::Options, job: &Job) -> Result<Rebuilt> {
    if !root.join("blobs").is_dir() {
        return Err(Error::not_found(format!("there is no store in {}", root.display())));
    }
    let rebuild = Rebuild::start(root).context(|| format!("making the index of {} again", root.display()))?;
    believe_the_disk(root).context(|| format!("reading {} anew", root.display()))?;
    let rebuilt = fill(rebuild.db(), rebuild.old_driver().as_deref(), options, job)?;
    rebuild.finish()?;
    Ok(rebuilt)
}

/// What it refused to keep is no part of the store. Databases are left alone: to close a file is to drop SQLite's locks on it.
fn believe_the_disk(root: &Path) -> io::Result<()> {
    // Memory forgets what has been written out, and what could not be.
    if let Err(refused) = rustix::fs::syncfs(fs::File::open(root)?) {
        tracing::warn!("the disk did not keep all that was written: {refused}");
    }
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sys::durable::forget(&entry.path())?;
        }
    }
    Ok(())
}

fn fill(db: &Db, named: Option<&str>, options: &driver::Options, job: &Job) -> Result<Rebuilt> {
    let mut rebuilt = Rebuilt::default();
    let lease = db.lease()?;
    let blobs = Blobs::open(db);
    let found = read_blobs(db, &blobs, &mut rebuilt, job)?;
    let snapshots = match driver_of(db.root(), named, options)? {
        Some(name) => {
            db.write(|writer| writer.set_driver(name, &options.pairs()))?;
            Some(Snapshots::open(db, None, options)?)
        }
        None => None,
    };
    let mut stacks = match &snapshots {
        Some(snapshots) => Some(Stacks::new(db, snapshots, &lease, job)?),
        None => None,
    };
    let moves = moves(db.root())?;
    let images = add_images(db, &found, &moves, stacks.as_mut(), &mut rebuilt, job)?;
    links::manifests(db, &found, &moves, &images)?;
    links::origins(db)?;
    add_volumes(db, &mut rebuilt)?;
    if let (Some(snapshots), Some(stacks)) = (&snapshots, &mut stacks) {
        add_containers(db, snapshots, stacks, &images, &mut rebuilt)?;
        stacks.finish(&mut rebuilt)?;
    }
    db.barrier(
        |pending| match &snapshots {
            Some(snapshots) => snapshots.elsewhere(pending),
            None => Ok(None),
        },
        |durable| {
            for name in durable.adopt_tags()? {
                rebuilt.lost.push(format!("the tag {}: its image is not there", check::familiar(&name)));
            }
            rebuilt.tags = durable.tags()?.len();
            Ok(())
        },
    )?;
    Ok(rebuilt)
}

/// The driver that the old index named, if it has trees here; else the one that has most.
fn driver_of(root: &Path, named: Option<&str>, options: &driver::Options) -> Result<Option<&'static str>> {
    let mut best: Option<((bool, usize), &'static str)> = None;
    for entry in driver::TABLE.iter().filter(|entry| root.join(entry.name).is_dir()) {
        let trees = driver::open(&driver::Setting { root, options }, entry.name)?.list()?.len();
        let rank = (trees > 0 && named == Some(entry.name), trees);
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, entry.name));
        }
    }
    Ok(best.map(|(_, name)| name))
}

/// The lines of tags.log that can be read, those that were taken back later too.
fn moves(root: &Path) -> Result<Vec<TagMove>> {
    let text = match fs::read(root.join("tags.log")) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.context(|| "reading tags.log")?,
    };
    Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Long work, counted.
struct Work<'j> {
    job: &'j Job,
    done: AtomicUsize,
}

impl<'j> Work<'j> {
    const ID: u64 = 0;

    fn start(job: &'j Job, what: &str, total: usize) -> Self {
        job.report(Event::WorkStarted { id: Self::ID, what: what.into(), total: Some(total as u64) });
        Work { job, done: AtomicUsize::new(0) }
    }
    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        self.job.report(Event::WorkProgress { id: Self::ID, done });
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.job.report(Event::WorkDone { id: Self::ID });
    }
}
