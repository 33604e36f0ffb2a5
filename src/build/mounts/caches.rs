//! The directories of cache mounts, in `<root>/cache/mounts`: one for each identity, with a numbered place for each that
//! was needed at once.
//!
//! A place is locked (`flock`) by whoever uses it, so that it comes free when its user dies; which one to take is decided
//! under a lease of the identity. What a place holds is nobody's truth and survives everything but `system prune` and `cache prune`.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::context::kept::modified_at;
use crate::db::{Lease, Time, random_name};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::Digest;
use crate::job::{Event, Job, LOOK};
use crate::plan::Sharing;

/// What makes two mounts the same cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub id: String,
    /// What a new one begins with.
    pub content: Option<Digest>,
    pub mode: u32,
    pub owner: (u32, u32),
}

impl Identity {
    /// As its user knows it: the slash behind no namespace is ours.
    pub fn shown(&self) -> &str {
        self.id.strip_prefix('/').unwrap_or(&self.id)
    }

    /// All of it, as text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    pub(in crate::build) fn name(&self) -> String {
        Digest::of(self.text().as_bytes()).hex().to_string()
    }
}

/// A place that is in use. Dropped, it is free at once.
pub struct Slot {
    path: PathBuf,
    lock: File,
}

impl Slot {
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Who holds this keeps the place from being free.
    pub(super) fn shadow(&self) -> Result<OwnedFd> {
        self.lock.try_clone().map(OwnedFd::from).context(|| "copying the lock of a cache")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Unlocked by name: a child between fork and exec still has a copy of the descriptor.
        let _unlocked = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Waits where the cache is to be used by one at a time. `fill` makes a new one's beginning.
pub fn take(
    engine: &Engine,
    identity: &Identity,
    sharing: Sharing,
    job: &Job,
    fill: &dyn Fn(&Path) -> Result<()>,
) -> Result<Slot> {
    let dir = top(engine).join(identity.name());
    let how = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Private | Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
    };
    let mut told = false;
    loop {
        let turn = turn(engine, identity, job)?;
        let numbers = places(&dir)?;
        for number in &numbers {
            if let Some(slot) = lock(dir.join(number.to_string()), how)? {
                return Ok(slot);
            }
        }
        if numbers.is_empty() || sharing != Sharing::Locked {
            let number = numbers.last().map_or(0, |last| last + 1);
            make(&dir, number, identity, fill)?;
            if let Some(slot) = lock(dir.join(number.to_string()), how)? {
                return Ok(slot);
            }
        }
        drop(turn);
        if !std::mem::replace(&mut told, true) {
            job.report(Event::Note(format!("waiting for the cache `{}`, which is in use", identity.shown())));
        }
        job.pause(LOOK)?;
    }
}

/// The place that was used last and that nobody has for itself, kept from those who want to.
pub fn hold(engine: &Engine, identity: &Identity) -> Result<Option<Slot>> {
    let Some(_turn) = engine.db.try_lease(&format!("cache-{}", identity.name()))? else { return Ok(None) };
    let dir = top(engine).join(identity.name());
    let mut places: Vec<(Option<Time>, PathBuf)> = places(&dir)?
        .into_iter()
        .map(|number| dir.join(number.to_string()))
        .map(|path| (modified_at(&path), path))
        .collect();
    places.sort_by_key(|(used, _)| std::cmp::Reverse(used.map(|used| used.0)));
    for (_, path) in places {
        if let Some(slot) = lock(path, FlockOperation::NonBlockingLockShared)? {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

fn top(engine: &Engine) -> PathBuf {
    engine.root.join("cache/mounts")
}

/// Whoever has it decides what happens to the places of this cache.
fn turn(engine: &Engine, identity: &Identity, job: &Job) -> Result<Lease> {
    let name = format!("cache-{}", identity.name());
    loop {
        if let Some(turn) = engine.db.try_lease(&name)? {
            return Ok(turn);
        }
        job.pause(Duration::from_millis(10))?;
    }
}

/// Numbers, in order; what was left half made goes.
fn places(dir: &Path) -> Result<Vec<u64>> {
    let doing = || format!("listing {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(doing)?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.context(doing)?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".making") {
            remove(&dir.join(&*name)).context(doing)?;
        }
        numbers.extend(name.parse::<u64>().ok());
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `None`: it is in use.
fn lock(path: PathBuf, how: FlockOperation) -> Result<Option<Slot>> {
    let doing = || format!("locking {}", path.display());
    let lock = File::open(&path).context(doing)?;
    loop {
        match rustix::fs::flock(&lock, how) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(doing),
        }
    }
    lock.set_modified(SystemTime::now()).context(doing)?;
    Ok(Some(Slot { path, lock }))
}

fn make(dir: &Path, number: u64, identity: &Identity, fill: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
    let doing = || format!("making a cache in {}", dir.display());
    let making = dir.join(format!("{number}.making"));
    // Whoever may not read the store reads no cache.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(making.join("data")).context(doing)?;
    fill(&making.join("data"))?;
    let about = serde_json::to_vec(identity).context(doing)?;
    fs::write(making.join("about"), about).context(doing)?;
    fs::rename(&making, dir.join(number.to_string())).context(doing)
}

/// A place, for those who list or remove them.
#[derive(Clone, Debug)]
pub struct Place {
    pub identity: Identity,
    pub made_at: Time,
    pub used_at: Time,
    path: PathBuf,
}

impl Place {
    pub fn name(&self) -> String {
        let number = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{}-{number}", &self.identity.name()[..12])
    }
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
    pub fn in_use(&self, engine: &Engine) -> Result<bool> {
        let Some(_turn) = engine.db.try_lease(&format!("cache-{}", self.identity.name()))? else {
            return Ok(true);
        };
        self.is_locked()
    }
    fn is_locked(&self) -> Result<bool> {
        let doing = || format!("looking whether {} is in use", self.path.display());
        let lock = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            lock => lock.context(doing)?,
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error).context(doing),
        }
    }

    /// False: it is in use, or gone.
    pub fn remove(&self, engine: &Engine) -> Result<bool> {
        let doing = || format!("removing the cache {}", self.path.display());
        let Some(_turn) = engine.db.try_lease(&format!("cache-{}", self.identity.name()))? else {
            return Ok(false);
        };
        if self.is_locked()? {
            return Ok(false);
        }
        let trash = engine.root.join("trash").join(random_name());
        fs::rename(&self.path, trash).context(doing)?;
        if let Some(dir) = self.path.parent() {
            // Only an empty one goes.
            let _kept = fs::remove_dir(dir);
        }
        Ok(true)
    }
}

/// All of the store, the least used first. What cannot be read is left out.
pub fn list(engine: &Engine) -> Result<Vec<Place>> {
    let top = top(engine);
    let mut places = Vec::new();
    for dir in entries(&top)? {
        for path in entries(&dir)? {
            let is_place = path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok());
            let Ok(about) = fs::read(path.join("about")) else { continue };
            let (Ok(identity), true) = (serde_json::from_slice(&about), is_place) else { continue };
            let times = (modified_at(&path.join("about")), modified_at(&path));
            let (Some(made_at), Some(used_at)) = times else { continue };
            places.push(Place { identity, made_at, used_at, path });
        }
    }
    places.sort_by_key(|place| place.used_at.0);
    Ok(places)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("listing {}", dir.display());
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        entries => entries.context(doing)?.map(|entry| Ok(entry.context(doing)?.path())).collect(),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
