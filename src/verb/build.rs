//! `build`: a Dockerfile and its context become an image with names.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::build::mounts::{Agent, Agents, SecretBytes};
use crate::build::{self, Base, Given, Inputs, Notes};
use crate::context::StatCache;
use crate::context::ignore::Ignore;
use crate::db::{BuildId, BuildStatus, Lease, NewBuild};
use crate::dockerfile::{self, PlanOptions, Resolver, Scope};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{ImageConfig, ImageId, Platform, Reference};
use crate::job::{Event, Job};
use crate::plan::{Network, Resources};
use crate::rootfs::Stack;
use crate::verb::{images, pull};

pub struct Options {
    /// Absolute; `None`: there is no context (the Dockerfile came from standard input).
    pub context: Option<PathBuf>,
    /// What the user calls it, for messages.
    pub dockerfile_name: String,
    pub dockerfile: String,
    /// What `.dockerignore` is called, and says.
    pub ignore: Option<(String, Vec<u8>)>,
    pub names: Vec<Reference>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub platform: Platform,
    pub network: Network,
    pub no_cache: bool,
    /// Base images are asked for at their registry even when they are here.
    pub pull: bool,
    pub host: crate::network::Host,
    pub run: RunOptions,
    pub registry: crate::registry::Options,
    /// A part that is left out of every key, to see that tests find the false hits that come of it.
    #[cfg(debug_assertions)]
    pub hole: Option<&'static str>,
}

impl Options {
    /// A build of this text for this host, without a context and with nothing asked for.
    pub fn new(dockerfile_name: impl Into<String>, dockerfile: impl Into<String>) -> Self {
        Options {
            context: None,
            dockerfile_name: dockerfile_name.into(),
            dockerfile: dockerfile.into(),
            ignore: None,
            names: Vec::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            platform: Platform::host(),
            network: Network::default(),
            no_cache: false,
            pull: false,
            host: crate::network::Host::default(),
            registry: crate::registry::Options::default(),
            #[cfg(debug_assertions)]
            hole: None,
        }
    }
}

/// What RUN steps get and may do.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub secrets: BTreeMap<String, SecretBytes>,
    pub ssh: BTreeMap<String, Agent>,
    /// `--security=insecure` is allowed.
    pub insecure: bool,
    pub resources: Resources,
}

#[derive(Clone, Copy, Debug)]
pub struct Built {
    pub image: ImageId,
    /// Steps that had to be done.
    pub ran: usize,
    /// What it is remembered as.
    pub build: BuildId,
}

/// Errors of the Dockerfile come before anything runs. What was made before a failure is kept for the next build.
/// What checks found is told at the end, however it ends.
pub fn build(engine: &Engine, options: &Options, job: &Job) -> Result<Built> {
    let mut findings = Vec::new();
    let built = build_noting(engine, options, job, &mut findings);
    if !findings.is_empty() {
        job.report(Event::Findings(findings));
    }
    built
}

fn build_noting(engine: &Engine, options: &Options, job: &Job, findings: &mut Vec<String>) -> Result<Built> {
    let start = Instant::now();
    let ignore = ignore(options)?;
    let bases = Bases { engine, options, job, known: Mutex::default() };
    let scope = Scope { all_stages: false, ignore: Some(&ignore) };
    let (name, text) = (&options.dockerfile_name, &options.dockerfile);
    let checked = dockerfile::check(name, text, &plan_options(options), &bases, scope);
    findings.extend(checked.findings.iter().map(ToString::to_string));
    let plan = checked.plan?;
    for warning in &plan.warnings {
        job.warn(warning.clone());
    }

    let agents = Agents::start(engine, &options.run.ssh)?;
    let lease = engine.db.lease()?;
    let record = engine.db.write(|index| index.start_build(&describe(options), &lease))?;
    let stats = match &options.context {
        Some(context) => {
            StatCache::open(&engine.root.join("cache/context"), &engine.root.join("trash"), context)
        }
        None => StatCache::in_memory(),
    };
    let context = options.context.as_deref().map(|dir| build::Context { dir, ignore, stats: &stats });
    let notes = Notes::default();
    let told = describe(options);
    let previous = build::Previous::new(told.context, told.dockerfile, record);
    let inputs = Inputs {
        context,
        images: &bases,
        no_cache: options.no_cache,
        epoch: plan.epoch,
        record,
        lease: &lease,
        notes: &notes,
        previous: &previous,
        #[cfg(debug_assertions)]
        hole: options.hole,
        host: &options.host,
        run: Given { secrets: options.run.secrets.clone(), agents },
    };
    let outcome = build::build(engine, &plan, &inputs, job);
    if let Err(problem) = stats.save() {
        job.warn(format!("the next build will read the whole context again: {problem}"));
    }
    let settled = settle(engine, options, record, lease, &notes, outcome.as_ref());
    let outcome = outcome?;
    settled?;
    job.report(Event::Built { image: outcome.image, took: start.elapsed() });
    for name in &options.names {
        job.report(Event::Tagged { name: name.familiar(), image: outcome.image });
    }
    Ok(Built { image: outcome.image, ran: outcome.ran, build: record })
}

pub(super) fn ignore(options: &Options) -> Result<Ignore> {
    match &options.ignore {
        Some((name, text)) => Ignore::parse(text).context(|| format!("reading `{name}`")),
        None => Ok(Ignore::default()),
    }
}

pub(super) fn plan_options(options: &Options) -> PlanOptions {
    PlanOptions {
        build_args: options.build_args.clone(),
        target: options.target.clone(),
        platform: options.platform.clone(),
        labels: options.labels.clone(),
        network: options.network,
        run: run_options(&options.run),
        ..PlanOptions::default()
    }
}

fn run_options(options: &RunOptions) -> dockerfile::RunOptions {
    dockerfile::RunOptions {
        secrets: Some(options.secrets.keys().cloned().collect()),
        ssh: Some(options.ssh.keys().cloned().collect()),
        insecure: options.insecure,
        resources: Arc::new(options.resources.clone()),
    }
}

fn describe(options: &Options) -> NewBuild {
    let names: Vec<String> = options.names.iter().map(Reference::to_string).collect();
    let said = serde_json::json!({
        "names": names,
        "build_args": options.build_args.keys().collect::<Vec<_>>(),
        "target": options.target,
        "platform": options.platform.to_string(),
        "no_cache": options.no_cache,
    });
    NewBuild {
        context: options.context.as_ref().map_or("-".into(), |path| path.to_string_lossy().into_owned()),
        dockerfile: options.dockerfile_name.clone(),
        options: said.to_string(),
    }
}

/// One barrier for the whole build, then the names; none where nothing is new.
fn settle(
    engine: &Engine,
    options: &Options,
    record: BuildId,
    lease: Lease,
    notes: &Notes,
    outcome: Result<&build::Outcome, &Error>,
) -> Result<()> {
    let (status, image) = match outcome {
        Ok(outcome) => (BuildStatus::Done, Some(outcome.image)),
        Err(error) if error.kind() == Kind::Cancelled => (BuildStatus::Cancelled, None),
        Err(_) => (BuildStatus::Failed, None),
    };
    let (pending, stands) = engine.db.read(|index| {
        let mut stands = true;
        for name in image.iter().flat_map(|_| &options.names) {
            stands &= index
                .tag(&name.to_string())?
                .is_some_and(|tag| Some(tag.image) == image && tag.target.is_none());
        }
        Ok((!index.pending()?.is_empty(), stands))
    })?;
    if pending || !stands {
        engine.barrier(|durable| {
            for name in image.iter().flat_map(|_| &options.names) {
                let image = image.as_ref().expect("there are names only with an image");
                durable.move_tag(&name.to_string(), image, None, "build", None)?;
            }
            notes.write(durable, record)?;
            durable.finish_build(record, status, image.as_ref())
        })?;
    } else {
        engine.db.write(|index| {
            notes.write(index, record)?;
            index.finish_build(record, status, image.as_ref())
        })?;
    }
    drop(lease);
    engine.sweep()
}

/// Base images: here, or pulled; each once.
struct Bases<'b> {
    engine: &'b Engine,
    options: &'b Options,
    job: &'b Job,
    known: Mutex<HashMap<(String, String), Base>>,
}

impl Bases<'_> {
    fn get(&self, reference: &str, platform: &Platform) -> Result<Base> {
        let key = (reference.to_owned(), platform.to_string());
        let mut known = self.known.lock().expect("no holder panics");
        if let Some(base) = known.get(&key) {
            return Ok(base.clone());
        }
        let here = if self.options.pull { None } else { images::find(self.engine, reference)? };
        let row = match here {
            Some(row) => row,
            None => {
                let name: Reference = reference.parse()?;
                let options =
                    pull::Options { platform: platform.clone(), registry: self.options.registry.clone() };
                let pulled = pull::pull(self.engine, &name, &options, self.job)
                    .map_err(|cause| pull::not_to_be_had("base image", &name, cause))?;
                images::resolve(self.engine, &pulled.image.to_string())?
            }
        };
        let (config, _) = images::config(self.engine, &row.id)?;
        let stack = Stack::load(self.engine, row.chain.as_ref())?;
        let base = Base { image: Some(row.id), config, stack };
        known.insert(key, base.clone());
        Ok(base)
    }
}

impl Resolver for Bases<'_> {
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig> {
        self.get(reference, platform).map(|base| base.config)
    }
}

impl build::Images for Bases<'_> {
    fn image(&self, reference: &str, platform: &Platform) -> Result<Base> {
        self.get(reference, platform)
    }
}
