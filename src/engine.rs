//! The state directory, opened: a struct of stores. What is done with them are functions elsewhere.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::db::{Db, Time};
use crate::error::{Context as _, Result};
use crate::runtime::{self, Runtime};
use crate::snapshot::Snapshots;
use crate::store::Blobs;

/// Where a store lies and what it is to work with. Every path is absolute.
#[derive(Clone, Debug)]
pub struct Options {
    pub root: PathBuf,
    pub run: PathBuf,
    /// For a new store; one that is there has its driver.
    pub driver: Option<String>,
    /// For the driver: a new store keeps them.
    pub storage: crate::snapshot::driver::Options,
    pub runtime: Option<String>,
    /// The outcrop binary, run anew as `outcrop __init`.
    pub exe: PathBuf,
    /// The search path for other runtimes.
    pub path: OsString,
}

pub struct Engine {
    pub root: PathBuf,
    pub run: PathBuf,
    pub db: Db,
    pub blobs: Blobs,
    pub snapshots: Snapshots,
    place: runtime::Place,
    runtime_name: Option<String>,
    runtime: OnceLock<Box<dyn Runtime>>,
}

impl Engine {
    /// Opens the store, or makes one. Errors: no permission, a store of a newer version, a driver that is not the
    /// store's.
    pub fn open(options: &Options) -> Result<Engine> {
        let db = Db::open(&options.root)?;
        let snapshots = Snapshots::open(&db, options.driver.as_deref(), &options.storage)?;
        let blobs = Blobs::open(&db);
        let place =
            runtime::Place { exe: options.exe.clone(), run: options.run.clone(), path: options.path.clone() };
        Ok(Engine {
            root: options.root.clone(),
            run: options.run.clone(),
            db,
            blobs,
            snapshots,
            place,
            runtime_name: options.runtime.clone(),
            runtime: OnceLock::new(),
        })
    }

    /// What runs commands; looked for when first needed.
    pub fn runtime(&self) -> Result<&dyn Runtime> {
        if self.runtime.get().is_none() {
            let opened = runtime::open(self.runtime_name.as_deref(), &self.place)?;
            // Of two threads that open one, either will do.
            let _other_was_first = self.runtime.set(opened);
        }
        Ok(self.runtime.get().expect("set above").as_ref())
    }

    /// The outcrop binary.
    pub fn exe(&self) -> &std::path::Path {
        &self.place.exe
    }

    /// A program of the host's, on the search path.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let candidates = std::env::split_paths(&self.place.path).map(|dir| dir.join(name));
        candidates.into_iter().find(|candidate| candidate.is_absolute() && candidate.is_file())
    }

    pub fn search_path(&self) -> &std::ffi::OsStr {
        &self.place.path
    }

    /// Of the runtime that was asked for, or the default.
    pub fn runtime_name(&self) -> &str {
        self.runtime_name.as_deref().unwrap_or(runtime::TABLE[0].name)
    }

    /// The runtimes that can be used here, the default first.
    pub fn runtimes(&self) -> Vec<&'static str> {
        let usable = runtime::TABLE.iter().filter(|entry| (entry.open)(&self.place).is_ok());
        usable.map(|entry| entry.name).collect()
    }

    /// The recipe of a layer's archive.
    pub fn recipe_path(&self, diff_id: &crate::image::DiffId) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// A file of the store that nobody else sees, and that is gone when it is closed: for an archive that comes as a stream.
    pub fn unnamed_file(&self) -> Result<std::fs::File> {
        use rustix::fs::{Mode, OFlags};
        let dir = self.root.join("ingest");
        let making = || format!("making a file in {}", dir.display());
        std::fs::create_dir_all(&dir).context(making)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(&dir, flags, Mode::from_raw_mode(0o600)).map(std::fs::File::from).context(making)
    }

    /// Clears up after the dead and removes what is condemned, and once after each start of the machine what a power cut left;
    /// for the end of every verb that writes. What cannot be removed now is left to the next one.
    pub fn sweep(&self) -> Result<()> {
        // What has nothing to do with the verb must not fail it.
        if self.db.names_may_be_lost()?
            && let Err(problem) = self.db.remove_strays().and_then(|_| self.db.names_checked())
        {
            tracing::warn!("left for later: {problem}");
        }
        let swept = self.snapshots.sweep()?;
        for problem in &swept.failed {
            tracing::warn!("left for later: {problem}");
        }
        Ok(())
    }

    /// The end of a verb that writes, however it ended: a failure does not leave what it made to somebody else.
    pub fn sweep_after<T>(&self, outcome: Result<T>) -> Result<T> {
        match (outcome, self.sweep()) {
            (Ok(value), swept) => swept.map(|()| value),
            (Err(error), swept) => {
                if let Err(problem) = swept {
                    tracing::warn!("left for later: {problem}");
                }
                Err(error)
            }
        }
    }

    /// All that was published becomes durable, and then the names may point at it.
    pub fn barrier<T>(&self, then: impl FnOnce(&crate::db::Durable<'_>) -> Result<T>) -> Result<T> {
        self.db.barrier(|pending| self.snapshots.elsewhere(pending), then)
    }
}

/// Now, or the given second since 1970, as image configs say it.
pub fn rfc3339(epoch: Option<i64>) -> String {
    match epoch {
        Some(seconds) => Time(seconds.saturating_mul(1_000_000_000)).to_string(),
        None => Time::now().to_string(),
    }
}
