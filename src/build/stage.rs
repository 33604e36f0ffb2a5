//! One stage: its base, then its steps in order.

use std::os::fd::AsFd as _;
use std::time::Instant;

use super::difference::Difference;
use super::key::{self, Key};
use super::mounts::Mounts;
use super::{Base, Board, Inputs, copy, execute, image, imported, miss, record, run};
use crate::context::{Choice, Digests, Input, Opened, Tree};
use crate::db::{KeyKind, LayerNumber, Lease};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::CacheKey;
use crate::job::{Event, Job, LOOK, StepAt};
use crate::plan::{self, Action, CopyFrom, Plan, StageId, Step};
use crate::rootfs::{self, Layer, Stack};
use crate::runtime::binfmt::{self, Interpreter, Runs};
use crate::runtime::user;

pub(super) struct Stage<'b> {
    pub(super) engine: &'b Engine,
    pub(super) inputs: &'b Inputs<'b>,
    pub(super) job: &'b Job,
    pub(super) board: &'b Board,
    plan: &'b Plan,
    id: StageId,
    stage: &'b plan::Stage,
    /// Of its commands, where the processor is none for them.
    pub(super) interpreter: Option<Interpreter>,
    /// The number of the stage's FROM among all steps, from 1.
    first: usize,
    /// For progress; `None` when there is only one.
    label: Option<String>,
}

impl<'b> Stage<'b> {
    #[expect(clippy::too_many_arguments, reason = "the one place where a stage's surroundings come together")]
    pub(super) fn new(
        engine: &'b Engine,
        plan: &'b Plan,
        id: StageId,
        inputs: &'b Inputs<'b>,
        board: &'b Board,
        job: &'b Job,
        first: usize,
        several: bool,
    ) -> Result<Self> {
        let stage = &plan.stages[id.0];
        let interpreter = interpreter(stage)?;
        let name = several.then(|| stage.name.clone().unwrap_or_else(|| id.0.to_string()));
        let label = match (&inputs.part.label, name) {
            (Some(part), Some(name)) => Some(format!("{part} {name}")),
            (Some(part), None) => Some(part.clone()),
            (None, name) => name,
        };
        Ok(Stage { engine, inputs, job, board, plan, id, stage, interpreter, first, label })
    }

    /// Posts the result, or the failure, which stops the other stages.
    pub(super) fn run(self) {
        match self.steps() {
            Ok(base) => self.board.post(self.id, base),
            Err(error) => {
                self.board.fail(error);
                self.job.cancel().set();
            }
        }
    }

    fn at(&self, number: usize, at: &plan::At) -> StepAt {
        StepAt {
            number: self.first + number,
            total: self.inputs.part.total,
            stage: self.label.clone(),
            text: at.text.clone(),
        }
    }

    fn steps(&self) -> Result<Base> {
        let start = Instant::now();
        let from = self.at(0, &self.stage.at);
        let mut base = match &self.stage.base {
            plan::Base::Stage(stage) => self.board.wait(*stage)?,
            _ => Base { image: None, config: image::scratch(&self.stage.platform), stack: Stack::default() },
        };
        self.job.report(Event::StepStarted { step: from.clone() });
        if let plan::Base::Image(name) = &self.stage.base {
            base = match self.inputs.images.directory(name)? {
                Some(context) => super::directory::base(self, &context, name, &self.stage.platform)?,
                None => self.image(name)?,
            };
        }
        if let Some(image) = base.image {
            self.job.report(Event::StepDone { step: from, image, took: start.elapsed() });
        }
        for (n, step) in self.stage.steps.iter().enumerate() {
            self.job.check()?;
            let at = self.at(n + 1, &step.at);
            base = self.step(base, step, &at)?;
        }
        Ok(base)
    }

    fn step(&self, mut base: Base, step: &Step, at: &StepAt) -> Result<Base> {
        let start = Instant::now();
        self.job.report(Event::StepStarted { step: at.clone() });
        let done = self.step_result(&mut base, step, at).inspect_err(|problem| {
            record::note_failure(self.inputs.notes, at, step, problem, start.elapsed());
            self.job.report(Event::StepFailed { step: at.clone(), took: start.elapsed() });
        });
        let result = done.context(|| place(&step.at))?;
        let stack = match &result.layer {
            Some(layer) => base.stack.with(layer.clone()),
            None => base.stack,
        };
        let diff = result.layer.as_ref().map(|layer| layer.diff_id);
        let config = image::after(&base.config, step, diff, &result.created);
        let image = imported::publish_image(self.engine, self.inputs, &config, base.image, &stack)?;
        record::note_step(self.inputs.notes, at, step, &result, image, start.elapsed());
        self.job.report(Event::StepDone { step: at.clone(), image, took: start.elapsed() });
        Ok(Base { image: Some(image), config, stack })
    }

    /// From the cache, or from doing it: then all of `base` is here.
    fn step_result(&self, base: &mut Base, step: &Step, at: &StepAt) -> Result<StepResult> {
        // A context that changes while it is copied is looked at again; three times is no accident.
        for _ in 0..3 {
            let inputs = self.inputs(step)?;
            let mounts = self.mounts(step)?;
            let content: Vec<_> = base.stack.content_ids();
            let owner = self.owner(base, step)?;
            let alone = matches!(&step.action, Action::Copy(copy) if copy.link);
            let key = Key::new(
                &self.stage.platform,
                (!alone).then_some(&content[..]),
                self.key_step(step, &inputs, owner, &mounts),
                self.inputs.epoch,
            );
            #[cfg(debug_assertions)]
            let key = key.without(self.inputs.hole);
            let step_key = key.step();
            let (key, key_text) = key.digest();
            let new = record::New { key, step: step_key, key_text, instruction: &step.created_by };
            if let Some(hit) = self.hit(base, step, &key)? {
                return Ok(self.cached(hit, key, KeyKind::Chain, at));
            }
            // Another build may be at the very same step: what it comes to is taken.
            let turn = self.turn(step, &key)?;
            if let Some(hit) = turn.as_ref().map_or(Ok(None), |_| self.hit(base, step, &key))? {
                return Ok(self.cached(hit, key, KeyKind::Chain, at));
            }
            if let Some(hit) = self.elsewhere(base, step, &new)? {
                return Ok(self.cached(hit, key, KeyKind::Content, at));
            }
            let reason = self.missed(step, at, inputs.iter().chain(mounts.inputs()), key, &new.key_text)?;
            if !matches!(step.action, Action::Config) {
                base.stack = self.here(&base.stack)?;
            }
            let work = execute::Work { step, key: step_key, chain: key };
            let created = || crate::engine::rfc3339(self.inputs.epoch);
            let mut recorded = true;
            let (layer, created) = match self.done(base, work, at, owner, &inputs, &mounts)? {
                execute::Done::Layer(layer) => (layer, created()),
                execute::Done::Unrecorded(layer) => {
                    recorded = false;
                    (Some(layer), created())
                }
                execute::Done::Again(before) => {
                    (before.layer, image::not_before(&base.config, before.created, self.inputs.epoch))
                }
                execute::Done::InputChanged(path) => {
                    self.job.warn(format!("`{path}` changed while it was copied; looking again"));
                    continue;
                }
            };
            self.board.count_run();
            if recorded {
                let reads = self.reads(base, step, &inputs, layer.as_ref())?;
                let came = record::Came { layer: layer.as_ref(), created: &created, reads, made_at: None };
                record::remember(self.engine, &new, came, self.inputs.record)?;
            }
            drop(turn);
            let kind = KeyKind::Chain;
            return Ok(StepResult { layer, created, key, kind, hit: false, reason: Some(reason) });
        }
        Err(Error::unavailable("the files to copy keep changing while they are copied")
            .hint("build again when nothing writes to the build context"))
    }

    /// The work, unless a tree that was kept of it stands for it.
    fn done(
        &self,
        base: &Base,
        work: execute::Work<'_>,
        at: &StepAt,
        owner: Option<(u32, u32)>,
        inputs: &[Input<'_>],
        mounts: &Mounts<'_>,
    ) -> Result<execute::Done> {
        if let (Some(resume), Action::Run(run)) = (self.inputs.resume, &work.step.action)
            && let Some(kept) = resume.find(self.engine, &work.chain, base, at)?
        {
            self.job.report(Event::Note(format!("taking the files of {} for this step", kept.name)));
            return run::resume(self, base, work, run, kept);
        }
        execute::execute(self, base, work, at, owner, inputs, mounts)
    }

    fn cached(&self, hit: record::Hit, key: CacheKey, kind: KeyKind, at: &StepAt) -> StepResult {
        if !self.forced() {
            self.job.report(Event::StepCached { step: at.clone() });
        }
        StepResult { layer: hit.layer, created: hit.created, key, kind, hit: true, reason: None }
    }

    fn hit(&self, base: &Base, step: &Step, key: &CacheKey) -> Result<Option<record::Hit>> {
        // What changes the configuration alone has nothing to run; it keeps its time as long as all below it is equal.
        let forced = self.forced() && !matches!(step.action, Action::Config);
        if forced && !self.has_siblings() {
            return Ok(None);
        }
        // Nor has it an age.
        let newest = self.inputs.reuse.newest.filter(|_| !matches!(step.action, Action::Config));
        match record::look_up(self.engine, key, newest, self.inputs.notes)? {
            // What this build did for another platform is done.
            Some(hit) if forced && hit.build != Some(self.inputs.record) => Ok(None),
            Some(hit) if self.stands_or_will(&base.stack, hit.layer.as_ref())? => Ok(Some(hit)),
            _ if forced => Ok(None),
            _ => self.imported_hit(base, key, newest),
        }
    }

    /// The same build has this stage for other platforms, too.
    fn has_siblings(&self) -> bool {
        self.inputs.part.label.is_some()
    }

    /// The stage's steps are to run.
    pub(super) fn forced(&self) -> bool {
        let reuse = &self.inputs.reuse;
        reuse.no_cache || reuse.no_cache_stages.contains(&self.id)
    }

    /// Says what made the step miss, and keeps what the next miss is explained with.
    fn missed<'i>(
        &self,
        step: &Step,
        at: &StepAt,
        inputs: impl Iterator<Item = &'i Input<'i>>,
        key: CacheKey,
        key_text: &str,
    ) -> Result<Vec<Difference>> {
        if matches!(step.action, Action::Config) {
            return Ok(Vec::new());
        }
        for input in inputs {
            if let Err(error) = miss::keep_list(self.engine, input) {
                tracing::warn!(%error, "the next miss will not be explained file by file");
            }
        }
        if self.forced() {
            return Ok(vec![Difference::Forced]);
        }
        if let Some(newest) = self.inputs.reuse.newest
            && let Some(expired) = record::expired(self.engine, &key, newest)?
        {
            self.job.report(Event::StepMissed { step: at.clone(), why: expired.sentence() });
            return Ok(vec![expired]);
        }
        let missed = miss::Missed {
            n: at.number as u64,
            stage: at.stage.as_deref(),
            instruction: &step.created_by,
            key,
            key_text,
        };
        let (found, before) = miss::why(self.engine, self.inputs.previous, &missed)?;
        if let (Some(first), true) = (found.first(), before) {
            let more = match found.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let why = format!("{}{more}", first.sentence());
            self.job.report(Event::StepMissed { step: at.clone(), why });
        }
        Ok(found)
    }

    /// The right to do the step, until it is dropped: waits while another build of this store is at it. A builder that
    /// dies gives it back. `None` where nobody would take what comes of it.
    fn turn(&self, step: &Step, key: &CacheKey) -> Result<Option<Lease>> {
        if (self.forced() || matches!(step.action, Action::Config)) && !self.has_siblings() {
            return Ok(None);
        }
        let name = format!("step-{}", key.0.hex());
        let mut told = self.has_siblings();
        loop {
            if let Some(lease) = self.engine.db.try_lease(&name)? {
                return Ok(Some(lease));
            }
            if !std::mem::replace(&mut told, true) {
                self.job.report(Event::Note("another build is at this very step; waiting for it".into()));
            }
            self.job.pause(LOOK)?;
        }
    }

    /// Whether what a step came to is there, on this stack.
    pub(super) fn stands(&self, below: &Stack, layer: Option<&Layer>) -> Result<bool> {
        match layer {
            Some(layer) => rootfs::ensure(self.engine, below, layer, self.inputs.lease, self.job),
            None => Ok(true),
        }
    }

    fn key_step<'k>(
        &self,
        step: &'k Step,
        inputs: &[Input<'_>],
        owner: Option<(u32, u32)>,
        mounts: &Mounts<'k>,
    ) -> key::Step<'k> {
        match &step.action {
            Action::Run(run) => {
                let interpreter = self.interpreter.as_ref().map(Interpreter::identity);
                key::Step::run(run, mounts.key(), interpreter)
            }
            Action::Copy(copy) => key::Step::copy(copy, inputs.iter().map(Input::digest).collect(), owner),
            Action::Workdir { path, user } => key::Step::Workdir { path, user },
            Action::Config => key::Step::Config {
                created_by: &step.created_by,
                author: step.author.as_deref(),
                config: &step.config,
            },
        }
    }

    /// What `--chown` comes to on this stack. Names are looked up in its files, which are not mounted for numbers alone.
    fn owner(&self, base: &Base, step: &Step) -> Result<Option<(u32, u32)>> {
        let Action::Copy(plan::Copy { chown: Some(chown), .. }) = &step.action else { return Ok(None) };
        if let Some(numbers) = user::numbers(chown) {
            return Ok(Some(numbers));
        }
        let view = self.here(&base.stack)?.view(self.engine)?;
        copy::owner_of(view.as_fd(), chown).map(Some).context(|| format!("--chown={chown}"))
    }

    /// What a RUN mounts, looked at.
    fn mounts<'m>(&self, step: &'m Step) -> Result<Mounts<'m>>
    where
        'b: 'm,
    {
        match &step.action {
            Action::Run(run) => Mounts::of(self, run),
            _ => Ok(Mounts::default()),
        }
    }

    /// What a COPY or ADD reads, source by source: walked and hashed.
    fn inputs(&self, step: &Step) -> Result<Vec<Input<'b>>> {
        let Action::Copy(copy) = &step.action else { return Ok(Vec::new()) };
        copy.sources.iter().map(|source| self.input(copy, source)).collect()
    }

    fn input(&self, copy: &plan::Copy, source: &plan::Source) -> Result<Input<'b>> {
        match source {
            plan::Source::Path(path) => {
                let tree = self.tree(&copy.from)?;
                let exclude = copy::exclude(&copy.exclude)?;
                let choice = Choice { exclude: exclude.as_ref(), parents: copy.parents };
                let selection = tree.select(path, choice, self.job)?;
                Ok(Input { tree, selection, identity: None })
            }
            plan::Source::Http(source) => self.inputs.remote.http(source, self.job),
            plan::Source::Git(source) => self.inputs.remote.git(source, self.job),
        }
    }

    /// A tree that files are taken from.
    pub(super) fn tree(&self, from: &CopyFrom) -> Result<Tree<'b>> {
        match from {
            CopyFrom::Context => {
                let context = self.inputs.context.as_ref().ok_or_else(|| {
                    Error::invalid("there is no build context to copy from")
                        .hint("name a directory instead of `-`")
                })?;
                let root = crate::context::open(context.dir)?;
                let digests = Digests::Stat(context.stats);
                Ok(Tree::new(root, "the build context", digests).excluding(context.ignore))
            }
            CopyFrom::Stage(_) | CopyFrom::Image(_) => match (self.base_of(from)?, from) {
                (Some((base, what)), _) => self.tree_of(&base, what),
                (None, CopyFrom::Image(name)) => {
                    let context = self.inputs.images.directory(name)?.expect("what has no base is files");
                    super::directory::tree(&context, name)
                }
                (None, _) => Err(Error::internal("a stage without a base")),
            },
        }
    }

    /// The stage or image that is meant, and what it is called; `None` where it is files.
    pub(super) fn base_of(&self, from: &CopyFrom) -> Result<Option<(Base, String)>> {
        Ok(match from {
            CopyFrom::Context => None,
            CopyFrom::Stage(stage) => {
                let base = self.board.wait(*stage)?;
                let name = self.plan.stages[stage.0].name.clone().unwrap_or_else(|| stage.0.to_string());
                Some((base, format!("the stage `{name}`")))
            }
            CopyFrom::Image(name) if self.inputs.images.directory(name)?.is_some() => None,
            CopyFrom::Image(name) => {
                let base = self.image(name)?;
                Some((base, format!("the image `{name}`")))
            }
        })
    }

    fn image(&self, name: &str) -> Result<Base> {
        self.inputs.images.image(name, &self.stage.platform, self.inputs.imported, self.job)
    }

    /// The files of a stage or an image, with digests from the index: nothing is read.
    fn tree_of(&self, base: &Base, what: String) -> Result<Tree<'b>> {
        let engine = self.engine;
        if let Some(listing) = self.listing(&base.stack)? {
            let (inputs, job, stack) = (self.inputs, self.job, base.stack.clone());
            let open = move || Ok(Box::new(imported::here(inputs, &stack, job)?.view(engine)?) as Opened);
            // The listing has them all.
            let digests = Digests::Index(Box::new(|_| Ok(None)));
            return Ok(Tree::listed(listing, Box::new(open), what, digests));
        }
        let stack = self.here(&base.stack)?;
        // Top first, as a look-up goes.
        let numbers: Vec<LayerNumber> = stack.layers().iter().rev().map(|layer| layer.number).collect();
        let digest =
            move |path: &[u8]| Ok(engine.db.row_in_stack(&numbers, path)?.and_then(|found| found.row.digest));
        Ok(Tree::new(stack.view(engine)?, what, Digests::Index(Box::new(digest))))
    }
}

/// Asked before anything runs: without one no step of the stage can be looked up, either.
fn interpreter(stage: &plan::Stage) -> Result<Option<Interpreter>> {
    let is_run = |step: &&Step| matches!(step.action, Action::Run(_));
    let Some(step) = stage.steps.iter().find(is_run) else { return Ok(None) };
    match binfmt::runs(&stage.platform).context(|| place(&step.at))? {
        Runs::Natively => Ok(None),
        Runs::Interpreted(interpreter) => Ok(Some(interpreter)),
    }
}

/// What a step left.
pub(super) struct StepResult {
    pub(super) layer: Option<Layer>,
    pub(super) created: String,
    pub(super) key: CacheKey,
    /// Which key hit.
    pub(super) kind: KeyKind,
    pub(super) hit: bool,
    /// Why it ran.
    pub(super) reason: Option<Vec<Difference>>,
}

fn place(at: &plan::At) -> String {
    let word = if at.lines.0 == at.lines.1 { "line" } else { "lines" };
    format!("{}, {word} {}: {}", at.file, record::lines(at), at.text)
}
