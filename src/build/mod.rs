//! Steps become layers: key, look-up, and on a miss the work itself. Independent stages run side by side.
//!
//! The flow is [`build`] -> [`stage::Stage::run`] -> for each step: key, look-up, hit or [`execute`]. Nothing here
//! names an image or moves a tag; the caller does, once all of it is durable.

mod copy;
pub mod difference;
mod directory;
mod elsewhere;
mod execute;
mod failed;
mod guard;
mod image;
mod imported;
pub mod key;
mod miss;
pub mod mounts;
mod reads;
mod record;
mod run;
mod squash;
mod stage;

pub use failed::{Failed, Resume, Slot};
pub use miss::{Previous, trim_lists};
pub use record::{Notes, publish_image};
pub use squash::squash;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mounts::{Agents, SecretBytes};

use crate::cache::Imported;
use crate::context::{Listing, Remote, StatCache, ignore::Ignore};
use crate::db::{BuildId, Lease};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::image::{ChainId, ImageConfig, ImageId, Platform};
use crate::job::Job;
use crate::layer;
use crate::plan::{Plan, StageId};
use crate::rootfs::Stack;

/// What a build reads besides the plan.
#[derive(Clone)]
pub struct Inputs<'b> {
    /// `None` when the Dockerfile came without a context.
    pub context: Option<Context<'b>>,
    /// Files and repositories that ADD reads from other machines.
    pub remote: &'b Remote<'b>,
    /// Base images and images that COPY reads; the caller looks them up or pulls them.
    pub images: &'b (dyn Images + Sync),
    pub reuse: Reuse,
    /// What other stores came to; asked where this one knows nothing.
    pub imported: Option<&'b Imported<'b>>,
    /// Where a RUN that fails leaves its tree; `None`: it goes.
    pub failed: Option<&'b Slot>,
    pub resume: Option<&'b Resume>,
    /// SOURCE_DATE_EPOCH: seconds. Times in configs are this, times in layers no later.
    pub epoch: Option<i64>,
    /// What the image is said to be for, whatever it stands on.
    pub platform: Option<Platform>,
    /// Which part of the whole this plan is.
    pub part: Part,
    /// The record of this build, which layers and steps name, and the lease that holds it.
    pub record: BuildId,
    pub lease: &'b Lease,
    /// For the caller to write when the build has ended, however it did.
    pub notes: &'b Notes,
    /// What a miss is compared with.
    pub previous: &'b Previous,
    /// A part that is left out of every key.
    #[cfg(debug_assertions)]
    pub hole: Option<&'static str>,
    /// Name servers and the like come from the host's files, read by the caller.
    pub host: &'b crate::network::Host,
    pub run: &'b Given,
}

/// Which records of earlier builds count. Whatever runs again may still come to an old layer.
#[derive(Clone, Debug, Default)]
pub struct Reuse {
    /// Every step runs.
    pub no_cache: bool,
    /// The steps of these run.
    pub no_cache_stages: Vec<StageId>,
    /// Those of steps that ran no longer ago.
    pub newest: Option<Duration>,
}

/// What a caller hands to RUN and nothing remembers.
#[derive(Default)]
pub struct Given {
    pub secrets: BTreeMap<String, SecretBytes>,
    pub agents: Agents,
    /// A secret in a layer is a warning.
    pub allow_secret_leak: bool,
}

/// A directory whose files COPY takes.
#[derive(Clone, Copy)]
pub struct Context<'b> {
    pub dir: &'b std::path::Path,
    pub ignore: &'b Ignore,
    pub stats: &'b StatCache,
}

/// A plan's place among several that are one build.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Steps of the plans before it.
    pub before: usize,
    /// Steps of all.
    pub total: usize,
    /// Put before each stage's name, for progress.
    pub label: Option<String>,
}

pub trait Images {
    /// Where all of its layers' contents are known to `imported`, none of them need be here.
    fn image(
        &self,
        reference: &str,
        platform: &Platform,
        imported: Option<&Imported<'_>>,
        job: &Job,
    ) -> Result<Base>;

    /// Files that stand in for the image of this name.
    fn directory(&self, reference: &str) -> Result<Option<Context<'_>>>;
}

/// An image to stand on.
#[derive(Clone)]
pub struct Base {
    pub image: Option<ImageId>,
    pub config: ImageConfig,
    pub stack: Stack,
}

/// What the plan's target came to.
pub struct Outcome {
    pub image: ImageId,
    pub config: ImageConfig,
    pub stack: Stack,
    /// Steps that ran; 0 when everything was there already.
    pub ran: usize,
}

/// Carries out the stages that the target needs.
pub fn build(engine: &Engine, plan: &Plan, inputs: &Inputs<'_>, job: &Job) -> Result<Outcome> {
    let board = Board::new(plan.stages.len());
    let needed = plan.needed();
    let job = &job.child();
    let mut first = 1 + inputs.part.before;
    let mut stages = Vec::new();
    for id in &needed {
        let stage = stage::Stage::new(engine, plan, *id, inputs, &board, job, first, needed.len() > 1)?;
        first += 1 + plan.stages[id.0].steps.len();
        stages.push(stage);
    }
    std::thread::scope(|scope| {
        for stage in stages {
            layer::spawn(scope, move || stage.run());
        }
    });
    let ran = board.ran();
    board.take(plan.target).and_then(|base| {
        let base = match base.image {
            Some(_) => base,
            None => nothing(engine, plan, base, inputs)?,
        };
        let image = base.image.expect("published by its last step, its base or just now");
        let (config, image) = match &inputs.platform {
            None => (base.config, image),
            Some(platform) if image::made_for(base.config.clone(), platform) == base.config => {
                (base.config, image)
            }
            Some(platform) => {
                let config = image::made_for(base.config, platform);
                let image = imported::publish_image(engine, inputs, &config, base.image, &base.stack)?;
                (config, image)
            }
        };
        Ok(Outcome { image, config, stack: base.stack, ran })
    })
}

/// A stage `FROM scratch` without instructions: an image without files, for nobody made it at no time of its own (BuildKit).
fn nothing(engine: &Engine, plan: &Plan, base: Base, inputs: &Inputs<'_>) -> Result<Base> {
    let mut config = base.config;
    config.config = (*plan.stages[plan.target.0].config).clone();
    config.created = inputs.epoch.map(|epoch| crate::engine::rfc3339(Some(epoch)));
    let image = record::publish_image(engine, &config, None, &base.stack, inputs.record)?;
    Ok(Base { image: Some(image), config, stack: base.stack })
}

/// Where stages leave their results and wait for each other's.
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    done: Vec<Option<Base>>,
    /// The first failure; the others stop because of it.
    failed: Option<Error>,
    stopped: bool,
    ran: usize,
    /// What stacks show that are not here; `None`: it is not known well enough.
    listings: HashMap<ChainId, Option<Arc<Listing>>>,
}

impl Board {
    fn new(stages: usize) -> Self {
        let state = State {
            done: vec![None; stages],
            failed: None,
            stopped: false,
            ran: 0,
            listings: HashMap::new(),
        };
        Board { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn post(&self, stage: StageId, base: Base) {
        self.state.lock().expect("no holder panics").done[stage.0] = Some(base);
        self.changed.notify_all();
    }

    pub(crate) fn fail(&self, error: Error) {
        let mut state = self.state.lock().expect("no holder panics");
        // What was stopped because of a failure is not the failure.
        if state.failed.as_ref().is_none_or(|first| first.kind() == Kind::Cancelled) {
            state.failed = Some(error);
        }
        state.stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn count_run(&self) {
        self.state.lock().expect("no holder panics").ran += 1;
    }

    pub(crate) fn listing(&self, chain: &ChainId) -> Option<Option<Arc<Listing>>> {
        self.state.lock().expect("no holder panics").listings.get(chain).cloned()
    }

    pub(crate) fn keep_listing(&self, chain: ChainId, listing: Option<Arc<Listing>>) {
        self.state.lock().expect("no holder panics").listings.insert(chain, listing);
    }

    fn ran(&self) -> usize {
        self.state.lock().expect("no holder panics").ran
    }

    /// Waits for a stage that another thread works on.
    pub(crate) fn wait(&self, stage: StageId) -> Result<Base> {
        let mut state = self.state.lock().expect("no holder panics");
        loop {
            if let Some(base) = &state.done[stage.0] {
                return Ok(base.clone());
            }
            if state.stopped {
                return Err(Error::cancelled());
            }
            state = self.changed.wait(state).expect("no holder panics");
        }
    }

    fn take(self, target: StageId) -> Result<Base> {
        let mut state = self.state.into_inner().expect("no holder panics");
        match (state.failed, state.done[target.0].take()) {
            (Some(error), _) => Err(error),
            (None, Some(base)) => Ok(base),
            (None, None) => Err(Error::internal("a stage ended without a result")),
        }
    }
}
