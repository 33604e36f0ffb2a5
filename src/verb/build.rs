//! `build`: a Dockerfile and its context become an image with names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::build::mounts::{Agent, Agents, SecretBytes};
use crate::build::{self, Given, Inputs, Notes, Part, Reuse};
use crate::cache::Imported;
use crate::context::ignore::Ignore;
use crate::context::{GitHost, Remote, StatCache};
use crate::db::{BuildId, NewBuild};
use crate::dockerfile::{self, PlanOptions, Scope};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result, did_you_mean};
use crate::image::{ImageId, Platform, Reference};
use crate::job::{Event, Job};
use crate::output::{self, Written};
use crate::plan::{Network, Plan, Resources};
use crate::rootfs::Stack;
use crate::verb::build_bases::Bases;
use crate::verb::named_context::{Contexts, Named};
use crate::verb::{build_cache, build_failed, build_platforms, build_results as results};

pub use results::Results;

pub struct Options {
    /// Absolute; `None`: there is no context (the Dockerfile came from standard input).
    pub context: Option<PathBuf>,
    /// What the context is called where its directory lasts no longer than the build.
    pub context_name: Option<String>,
    /// Its own time, in seconds since 1970; a directory has none, for each checkout gives its files others.
    pub context_time: Option<i64>,
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
    /// Somebody asked for it: the image's config says so, whatever the image stands on.
    pub is_platform_asked: bool,
    pub results: Results,
    pub network: Network,
    pub no_cache: bool,
    pub reuse: ReuseOptions,
    /// Caches of other stores: read, and written.
    pub cache: crate::cache::Options,
    pub failed: FailedOptions,
    /// Base images are asked for at their registry even when they are here.
    pub pull: bool,
    pub host: crate::network::Host,
    pub run: RunOptions,
    /// What stands for images, by their normalized names.
    pub contexts: BTreeMap<String, Named>,
    pub registry: crate::registry::Options,
    pub git: GitHost,
    /// A part that is left out of every key, to see that tests find the false hits that come of it.
    #[cfg(debug_assertions)]
    pub hole: Option<&'static str>,
}

impl Options {
    /// A build of this text for this host, without a context and with nothing asked for.
    pub fn new(dockerfile_name: impl Into<String>, dockerfile: impl Into<String>) -> Self {
        Options {
            context: None,
            context_name: None,
            context_time: None,
            dockerfile_name: dockerfile_name.into(),
            dockerfile: dockerfile.into(),
            ignore: None,
            names: Vec::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            platform: Platform::host(),
            is_platform_asked: false,
            results: Results::default(),
            network: Network::default(),
            no_cache: false,
            reuse: ReuseOptions::default(),
            cache: crate::cache::Options::default(),
            failed: FailedOptions::default(),
            pull: false,
            host: crate::network::Host::default(),
            run: RunOptions::default(),
            contexts: BTreeMap::new(),
            registry: crate::registry::Options::default(),
            git: GitHost::default(),
            #[cfg(debug_assertions)]
            hole: None,
        }
    }
}

pub use super::build_failed::FailedOptions;

/// What of earlier builds does not count, beside `no_cache`.
#[derive(Clone, Debug, Default)]
pub struct ReuseOptions {
    /// Stages whose steps run, by name or number.
    pub no_cache_filter: Vec<String>,
    /// Steps that ran longer ago run again.
    pub cache_ttl: Option<Duration>,
}

impl ReuseOptions {
    /// `NotFound` for a stage that is not there.
    fn of_plan(&self, no_cache: bool, plan: &Plan) -> Result<Reuse> {
        let mut stages = Vec::new();
        for name in &self.no_cache_filter {
            let meant = plan.called(name);
            if meant.is_empty() {
                let error = Error::not_found(format!("there is no stage `{name}` to run without the cache"));
                let names = plan.stages.iter().filter_map(|stage| stage.name.as_deref());
                let hint = || "name a stage as after AS, or by its number from 0".into();
                return Err(error.hint(did_you_mean(name, names).unwrap_or_else(hint)));
            }
            stages.extend(meant);
        }
        Ok(Reuse { no_cache, no_cache_stages: stages, newest: self.cache_ttl })
    }
}

/// What RUN steps get and may do.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub secrets: BTreeMap<String, SecretBytes>,
    pub ssh: BTreeMap<String, Agent>,
    /// `--security=insecure` is allowed.
    pub insecure: bool,
    /// The bytes of a secret in a step's layer are a warning and no error.
    pub allow_secret_leak: bool,
    pub resources: Resources,
}

#[derive(Debug)]
pub struct Built {
    /// Of several platforms, the host's, else the first.
    pub image: ImageId,
    /// Steps that had to be done.
    pub ran: usize,
    /// What it is remembered as.
    pub build: BuildId,
    /// By each output, in order.
    pub written: Vec<Written>,
}

impl Options {
    /// What is built for, each once.
    fn platforms(&self) -> Vec<Platform> {
        let mut platforms = vec![self.platform.clone()];
        for platform in &self.results.more_platforms {
            if !platforms.iter().any(|known| known.normal() == platform.normal()) {
                platforms.push(platform.clone());
            }
        }
        platforms
    }
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
    // A base image that is pulled on the way ends with a sweep, which lets go what this process has seen; what stages come
    // to has no name yet, and anybody may remove it.
    let seen = engine.db.enter()?;
    let ignore = ignore(options)?;
    let platforms = options.platforms();
    output::check(&options.results.outputs, &options.names, platforms.len())?;
    let secret = |id: &str| options.run.secrets.get(id).map(|secret| secret.0.clone());
    let remote = Remote::new(engine, &options.registry, &options.git, &secret);
    let contexts = Contexts::new(engine, &remote, &options.contexts, job);
    let bases = Bases::new(engine, options, &contexts, &remote, job);
    let scope = Scope { all_stages: false, ignore: Some(&ignore) };
    let (name, text) = (&options.dockerfile_name, &options.dockerfile);
    let mut plans: Vec<Plan> = Vec::new();
    for platform in &platforms {
        let checked = dockerfile::check(name, text, &plan_options(options, platform), &bases, scope);
        for finding in checked.findings.iter().map(ToString::to_string) {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        plans.push(checked.plan?);
    }
    let reuse = plans
        .iter()
        .map(|plan| options.reuse.of_plan(options.no_cache, plan))
        .collect::<Result<Vec<Reuse>>>()?;
    let mut warned = BTreeSet::new();
    for warning in plans.iter().flat_map(|plan| &plan.warnings).filter(|warning| warned.insert(*warning)) {
        job.warn(warning.clone());
    }

    let agents = Agents::start(engine, &options.run.ssh)?;
    let lease = engine.db.lease()?;
    let record = engine.db.write(|index| index.start_build(&describe(options), &lease))?;
    let stats = match &options.context {
        Some(context) if options.context_name.is_none() => {
            StatCache::open(&engine.root.join("cache/context"), &engine.root.join("trash"), context)
        }
        _ => StatCache::in_memory(),
    };
    let context =
        options.context.as_deref().map(|dir| build::Context { dir, ignore: &ignore, stats: &stats });
    let notes = Notes::default();
    let told = describe(options);
    let previous = build::Previous::new(told.context, told.dockerfile, record);
    let slot = build::Slot::default();
    let resume = options.failed.resume(engine, &previous)?;
    let imported = Imported::load(engine, &options.cache.from, &options.registry, &lease, job)?;
    let given = Given {
        secrets: options.run.secrets.clone(),
        agents,
        allow_secret_leak: options.run.allow_secret_leak,
    };
    let inputs = Inputs {
        context,
        remote: &remote,
        images: &bases,
        reuse: Reuse::default(),
        imported: Some(&imported),
        failed: options.failed.keep.then_some(&slot),
        resume: resume.as_ref(),
        epoch: None,
        platform: options.is_platform_asked.then(|| options.platform.clone()),
        part: Part::default(),
        record,
        lease: &lease,
        notes: &notes,
        previous: &previous,
        #[cfg(debug_assertions)]
        hole: options.hole,
        host: &options.host,
        run: &given,
    };
    let epoch = plans.iter().find_map(|plan| plan.epoch);
    let attempt = || {
        let outcomes = build_platforms::build(engine, &platforms, &plans, &reuse, &inputs, job)?;
        let outcomes = build_cache::here(engine, options, &imported, outcomes, job)?;
        let mut outcomes = match options.results.squash {
            true => build_platforms::squash(engine, &plans, outcomes, &inputs, job)?,
            false => outcomes,
        };
        build_cache::inline(engine, options, &inputs, epoch, &mut outcomes)?;
        let stacks: Vec<Stack> = outcomes.iter().map(|outcome| outcome.stack.clone()).collect();
        let left = results::leave(engine, options, &platforms, outcomes, epoch, &imported, job)?;
        Ok((left, stacks))
    };
    let left = engine.snapshots.writing_out(|| build_cache::until_kept(&inputs, job, attempt));
    if let Err(problem) = stats.save().and_then(|()| contexts.save()) {
        job.warn(format!("the next build will read the whole context again: {problem}"));
    }
    let mut exported = Ok(());
    let left = left.map(|(left, stacks)| {
        exported = build_cache::export(engine, options, &inputs, &stacks, &bases.stacks(), job);
        left
    });
    drop(inputs);
    drop(imported);
    let settled = results::settle(engine, record, (lease, seen), &notes, left.as_ref());
    let left = left.map_err(|problem| build_failed::keep(engine, &slot, problem, job))?;
    settled?;
    job.report(Event::Built { image: left.image, took: start.elapsed() });
    for name in left.names() {
        job.report(Event::Tagged { name: name.familiar(), image: left.image });
    }
    exported?;
    Ok(Built { image: left.image, ran: left.ran, build: record, written: left.written })
}

pub(super) fn ignore(options: &Options) -> Result<Ignore> {
    match &options.ignore {
        Some((name, text)) => Ignore::parse(text).context(|| format!("reading `{name}`")),
        None => Ok(Ignore::default()),
    }
}

pub(super) fn plan_options(options: &Options, platform: &Platform) -> PlanOptions {
    PlanOptions {
        build_args: options.build_args.clone(),
        target: options.target.clone(),
        platform: platform.clone(),
        labels: options.labels.clone(),
        network: options.network,
        contexts: options.contexts.keys().cloned().collect(),
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
        "platform": options.platforms().iter().map(Platform::to_string).collect::<Vec<_>>().join(","),
        "no_cache": options.no_cache,
    });
    NewBuild {
        context: match (&options.context_name, &options.context) {
            (Some(name), _) => name.clone(),
            (None, Some(path)) => path.to_string_lossy().into_owned(),
            (None, None) => "-".into(),
        },
        dockerfile: options.dockerfile_name.clone(),
        options: said.to_string(),
    }
}
