//! What every verb is handed: where events go, whether to stop, how much it may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::image::{ImageId, LayerId};

/// Between two looks at what somebody else does.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// Cheap to clone; clones share the cancel flag and the receiver of events.
#[derive(Clone)]
pub struct Job {
    report: Arc<dyn Report>,
    cancel: Cancel,
    pub budget: Budget,
}

/// Where events go. Called from many threads; must not block for long and cannot fail.
pub trait Report: Send + Sync {
    fn event(&self, event: &Event);
}

/// Set once, by a signal or a caller; polled by everything that takes long.
#[derive(Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    /// Set with its parent, but not the other way round.
    parent: Option<Arc<Cancel>>,
}

/// Upper bounds for one verb.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Threads that compute or copy at once.
    pub threads: usize,
    /// Transfers at once.
    pub transfers: usize,
}

impl Default for Budget {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Budget { threads, transfers: 4 }
    }
}

impl Job {
    pub fn new(report: Arc<dyn Report>) -> Self {
        Self::with_cancel(report, Cancel::default())
    }
    /// A job that somebody else may stop.
    pub fn with_cancel(report: Arc<dyn Report>, cancel: Cancel) -> Self {
        Job { report, cancel, budget: Budget::default() }
    }
    /// A job nobody watches.
    pub fn silent() -> Self {
        struct Silent;
        impl Report for Silent {
            fn event(&self, _: &Event) {}
        }
        Self::new(Arc::new(Silent))
    }
    /// A part of this job that can be stopped by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        let cancel = Cancel { own: Arc::default(), parent: Some(Arc::new(self.cancel.clone())) };
        Job { report: self.report.clone(), cancel, budget: self.budget }
    }
    pub fn report(&self, event: Event) {
        self.report.event(&event);
    }
    pub fn warn(&self, message: impl Into<String>) {
        self.report(Event::Warning(message.into()));
    }
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
    /// An error of kind `Cancelled` once the user asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_set() { Err(Error::cancelled()) } else { Ok(()) }
    }
    /// Sleeps; wakes with an error of kind `Cancelled` within 50 ms of the user asking to stop.
    pub fn pause(&self, how_long: Duration) -> Result<()> {
        let end = Instant::now() + how_long;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

impl Cancel {
    pub fn set(&self) {
        self.own.store(true, Ordering::SeqCst);
    }
    pub fn is_set(&self) -> bool {
        self.own.load(Ordering::SeqCst) || self.parent.as_ref().is_some_and(|parent| parent.is_set())
    }
    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.own.clone()
    }
}

/// A step's place in a build, as people count: from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAt {
    pub number: usize,
    pub total: usize,
    /// The stage's name, or its number as text; `None` when the Dockerfile has one stage.
    pub stage: Option<String>,
    /// The instruction as the user wrote it, on one line.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Everything users are told while a verb works. Closed: a renderer matches all of it.
#[derive(Clone, Debug)]
pub enum Event {
    // a build; of each step Started first, then Cached or Running or neither, then Done or Failed (Done is left
    // out where there is no image yet, as behind `FROM scratch`)
    StepStarted {
        step: StepAt,
    },
    StepCached {
        step: StepAt,
    },
    /// It has to run, though the last build of this Dockerfile had it: what is different, in a sentence.
    StepMissed {
        step: StepAt,
        why: String,
    },
    /// The step executes; `id` is the working container's, 12 hex digits.
    StepRunning {
        step: StepAt,
        id: String,
    },
    StepOutput {
        step: StepAt,
        stream: Stream,
        bytes: Vec<u8>,
    },
    StepDone {
        step: StepAt,
        image: ImageId,
        took: Duration,
    },
    StepFailed {
        step: StepAt,
        took: Duration,
    },
    Built {
        image: ImageId,
        took: Duration,
    },
    Tagged {
        name: String,
        image: ImageId,
    },
    // a transfer, per layer
    Pulling {
        name: String,
        tag: String,
    },
    LayerStarted {
        layer: LayerId,
        total: Option<u64>,
    },
    LayerProgress {
        layer: LayerId,
        phase: Phase,
        done: u64,
        total: Option<u64>,
    },
    LayerDone {
        layer: LayerId,
        how: LayerOutcome,
    },
    Pulled {
        name: String,
        digest: String,
        fresh: bool,
    },
    /// The layers of one or more images are on their way; of each LayerStarted and LayerDone.
    Pushing {
        repository: String,
    },
    Pushed {
        tag: String,
        digest: String,
        /// Of the manifest, in bytes.
        size: u64,
    },
    /// From one place to another, as people write them; of each layer LayerStarted and LayerDone, then Pushed.
    Copying {
        from: String,
        to: String,
    },
    // any long work that has no layers
    WorkStarted {
        id: u64,
        what: String,
        total: Option<u64>,
    },
    WorkProgress {
        id: u64,
        done: u64,
    },
    WorkDone {
        id: u64,
    },
    // plain sentences
    Note(String),
    Warning(String),
    /// What the checks of a Dockerfile found, a sentence each.
    Findings(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Downloading,
    Verifying,
    Extracting,
    Compressing,
    Uploading,
    Copying,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerOutcome {
    AlreadyExists,
    PullComplete,
    Pushed,
    /// At the registry.
    AlreadyThere,
    /// From this repository of the registry.
    Mounted(String),
    /// Into a directory or an archive.
    Copied,
    /// Compressed otherwise, on its way.
    Converted,
    Failed,
}
