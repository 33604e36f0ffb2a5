//! What a verb is given besides its flags.

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::sync::Arc;

use outcrop::db::Db;
use outcrop::engine::{self, Engine};
use outcrop::error::{Context as _, Kind, Result};
use outcrop::job::{Cancel, Job, Report};
use outcrop::snapshot::driver::Options;

use super::Out;
use super::signals::Signals;

/// Flags that stand before or after any verb.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Where everything is kept
    #[arg(long, global = true, value_name = "DIR", env = "OUTCROP_ROOT", hide_env_values = true)]
    root: Option<PathBuf>,
    /// Sockets, process ids and mount points; may be lost at a restart of the host
    #[arg(long, global = true, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// What keeps and stacks layers; chosen by what the host has unless given
    #[arg(long, global = true, value_name = "NAME", env = "OUTCROP_STORAGE_DRIVER", hide_env_values = true)]
    pub(crate) storage_driver: Option<String>,
    /// What the storage driver is to do (dm.basesize=20G); with `run` and `create` also the container's size (size=10G)
    #[arg(long = "storage-opt", global = true, value_name = "NAME=VALUE")]
    storage_opts: Vec<String>,
    /// What runs containers: the embedded runtime, or an OCI runtime on PATH
    #[arg(long, global = true, value_name = "NAME", env = "OUTCROP_RUNTIME", hide_env_values = true)]
    pub(crate) runtime: Option<String>,
    /// Diagnostics on standard error: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn", hide_default_value = true)]
    log_level: tracing::level_filters::LevelFilter,
}

impl Globals {
    /// `/var/lib/outcrop`; without root `$XDG_DATA_HOME/outcrop`. Absolute.
    pub(crate) fn root(&self) -> PathBuf {
        let given = self.root.clone().unwrap_or_else(|| {
            if is_root() {
                return "/var/lib/outcrop".into();
            }
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
            let data = directory("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share"));
            data.join("outcrop")
        });
        absolute(given)
    }

    /// `/run/outcrop`; without root `$XDG_RUNTIME_DIR/outcrop`. Absolute.
    pub(crate) fn run_root(&self) -> PathBuf {
        let given = self.run_root.clone().unwrap_or_else(|| {
            if is_root() {
                return "/run/outcrop".into();
            }
            let own = || std::env::temp_dir().join(format!("outcrop-{}", rustix::process::getuid().as_raw()));
            directory("XDG_RUNTIME_DIR").map_or_else(own, |dir| dir.join("outcrop"))
        });
        absolute(given)
    }

    /// `OUTCROP_STORAGE_OPTS`, separated by spaces, and over it what stands on the command line.
    fn storage_options(&self) -> Result<Options> {
        let surroundings = std::env::var("OUTCROP_STORAGE_OPTS").unwrap_or_default();
        let words: Vec<&str> = surroundings.split_whitespace().collect();
        let before = Options::parse(&words).context(|| "reading OUTCROP_STORAGE_OPTS")?;
        Ok(Options::parse(&self.storage_opts)?.over(&before))
    }

    pub(super) fn start_log(&self) {
        let started = tracing_subscriber::fmt()
            .with_max_level(self.log_level)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .try_init();
        started.expect("nothing before this sets a subscriber");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The basedir specification: a relative path in these variables counts as none.
fn directory(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// As given where even the working directory is gone; opening it says so then.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

pub(crate) struct Context {
    pub(crate) globals: Globals,
    cancel: Cancel,
    signals: Signals,
    engine: OnceCell<Engine>,
    /// `--storage-opt size=` is a container's that is to be made.
    sizes_container: Cell<bool>,
}

impl Context {
    pub(super) fn new(globals: Globals) -> Self {
        Context {
            globals,
            cancel: Cancel::default(),
            signals: Signals::default(),
            engine: OnceCell::new(),
            sizes_container: Cell::new(false),
        }
    }

    /// `--storage-opt size=`, for a verb that makes a container; asked for before the store is opened.
    pub(crate) fn container_size(&self) -> Result<Option<u64>> {
        self.sizes_container.set(true);
        let options = self.globals.storage_options()?;
        options.get("size").map(|_| options.bytes("size", 0)).transpose()
    }

    /// What the storage driver is told.
    pub(crate) fn storage_options(&self) -> Result<Options> {
        let options = self.globals.storage_options()?;
        Ok(if self.sizes_container.get() { options.without("size") } else { options })
    }

    /// The store, opened when first asked for.
    pub(crate) fn engine(&self) -> Result<&Engine> {
        self.open(self.globals.storage_driver.clone(), self.storage_options()?)
    }

    fn open(&self, driver: Option<String>, storage: Options) -> Result<&Engine> {
        if self.engine.get().is_none() {
            let exe = std::fs::read_link("/proc/self/exe").context(|| "finding outcrop's own binary")?;
            let opened = Engine::open(&engine::Options {
                root: self.globals.root(),
                run: self.globals.run_root(),
                driver,
                storage,
                runtime: self.globals.runtime.clone(),
                exe,
                path: std::env::var_os("PATH").unwrap_or_default(),
            })?;
            let _none_was_there = self.engine.set(opened);
        }
        Ok(self.engine.get().expect("set above"))
    }

    /// The same, to move it to another driver: what is said of drivers is for that one.
    pub(crate) fn engine_to_migrate(&self) -> Result<&Engine> {
        self.open(None, Options::default())
    }

    /// The same, to make room in it: opening it needs some, which its reserve gives where there is none.
    pub(crate) fn engine_to_prune(&self) -> Result<&Engine> {
        match self.engine() {
            Err(error) if error.kind() == Kind::Unavailable => {
                Db::give_up_reserve_of(&self.globals.root())?;
                self.engine()
            }
            opened => opened,
        }
    }

    /// Standard output; the way for a verb to say its result.
    pub(crate) fn out(&self) -> Out {
        Out::new()
    }

    /// A job that SIGINT and SIGTERM stop; a second one exits at once.
    pub(crate) fn job(&self, report: Arc<dyn Report>) -> Job {
        self.signals.catch(&self.cancel);
        Job::with_cancel(report, self.cancel.clone())
    }

    /// From now on signals are for somebody else, as for the process in a foreground container.
    pub(crate) fn hand_over_signals(&self) {
        self.signals.release();
    }
}
