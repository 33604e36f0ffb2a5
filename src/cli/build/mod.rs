//! `build`: a Dockerfile and its context become an image.

mod cache;
mod call;
mod contexts;
mod failed;
mod output;
mod reuse;
pub(super) mod run_flags;
pub(crate) mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outcrop::context::Held;
use outcrop::db::Time;
use outcrop::error::{Context as _, Error, Result};
use outcrop::image::{Platform, Reference};
use outcrop::job::Job;
use outcrop::network::Host;
use outcrop::plan::Network;
use outcrop::registry::without_password;
use outcrop::verb::build::{self, Options};
use outcrop::verb::explain;

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name the image; may be given several times
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
    /// The Dockerfile (default: PATH/Dockerfile)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stop at this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Set a label of the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// What to build for; several make one image with a variant for each
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT],..", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// The network of RUN steps: default, none or host
    #[arg(long, value_name = "NAME", default_value = "default", hide_default_value = true)]
    network: String,
    /// Run every step, whatever the cache holds
    #[arg(long)]
    no_cache: bool,
    /// Tell at the end why each step ran or did not
    #[arg(long)]
    explain: bool,
    /// Ask registries for newer base images
    #[arg(long)]
    pull: bool,
    /// How to show what happens
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    progress: Mode,
    /// Say nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    reuse: reuse::ReuseArgs,
    #[command(flatten)]
    cache: cache::CacheArgs,
    #[command(flatten)]
    failed: failed::FailedArgs,
    #[command(flatten)]
    output: output::OutputArgs,
    #[command(flatten)]
    run: run_flags::RunFlags,
    #[command(flatten)]
    contexts: contexts::ContextFlags,
    #[command(flatten)]
    call: call::CallArgs,
    /// What COPY and ADD see: a directory, a git repository, an archive's address; `-` reads an archive, or a Dockerfile
    /// alone, from standard input
    #[arg(value_name = "PATH|URL|-")]
    path: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["build", "image build", "builder build"];
    const ABOUT: &'static str = "Build an image from a Dockerfile";
    const EXAMPLE: &'static str = "outcrop build -t site .\noutcrop build -f web/Dockerfile --build-arg VERSION=2 -t web:2 .\noutcrop build -o type=oci,dest=site.tar .\noutcrop build --check .\noutcrop build --resume .";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let mode = if self.quiet { Mode::Quiet } else { self.progress };
        let call = self.call.call()?;
        let mut options = self.options()?;
        let streams = output::OutputArgs::streams(&options.results);
        if streams && self.explain {
            return Err(Error::invalid("`--explain` and an output both go to standard output")
                .hint("give the output a file: dest=FILE"));
        }
        let progress = if streams { Progress::aside(mode) } else { Progress::of(mode) };
        let job = context.job(progress.report());
        // The context is there as long as this.
        let _held = self.source(context, &mut options, &job)?;
        if let Some(call) = call {
            drop(progress);
            return call.run(context, &options);
        }
        let start = Time::now();
        let built = build::build(context.engine()?, &options, &job);
        drop(progress);
        if built.is_err()
            && let Err(problem) = self.failed.debug(context, start, &options.run)
        {
            tracing::warn!(%problem, "no shell in the failed step");
        }
        let built = built.context(|| format!("building `{}`", self.path))?;
        if self.explain {
            let mut out = context.out();
            super::explain::text(&mut out, &explain::explain(context.engine()?, Some(built.build), None)?)?;
            out.done()?;
        }
        self.output.tell(&built)?;
        if self.quiet && !streams {
            let mut out = context.out();
            out.line(output::id(&built))?;
            out.done()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn options(&self) -> Result<Options> {
        let mut build_args = self.build_args()?;
        // As buildx does: reproducible builds are asked for in one place.
        if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
            build_args.entry("SOURCE_DATE_EPOCH".into()).or_insert(epoch);
        }
        let names = self.tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>>>()?;
        if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
            return Err(Error::invalid(format!(
                "`{}` names a digest; an image is built under a tag",
                name.familiar()
            )));
        }
        Ok(Options {
            names,
            build_args,
            labels: self.labels()?,
            target: self.target.clone(),
            platform: self.platforms.first().cloned().unwrap_or_else(Platform::host),
            is_platform_asked: !self.platforms.is_empty(),
            results: self
                .output
                .results(self.platforms.iter().skip(1).cloned().collect(), self.run.may_delete())?,
            network: self.network()?,
            no_cache: self.no_cache,
            reuse: self.reuse.options()?,
            cache: self.cache.options()?,
            failed: self.failed.options(),
            pull: self.pull,
            host: Host::read(Path::new("/etc"))?,
            run: self.run.options()?,
            contexts: self.contexts.contexts()?,
            registry: super::registry::options(),
            git: source::git_host(),
            ..Options::new("", "")
        })
    }

    /// Reads the Dockerfile, and brings the context here.
    fn source(&self, context: &Context, options: &mut Options, job: &Job) -> Result<Option<Held>> {
        let source = source::source(context, &self.path, self.file.as_deref(), options, job)?;
        options.context_name = source.held.is_some().then(|| without_password(&self.path));
        options.context = source.dir;
        options.context_time = source.time;
        options.ignore = source.ignore;
        options.dockerfile_name = source.dockerfile_name;
        options.dockerfile = source.dockerfile;
        Ok(source.held)
    }

    fn network(&self) -> Result<Network> {
        match self.network.as_str() {
            "default" => Ok(Network::Default),
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            other => Err(Error::invalid(format!("unknown network `{other}` in --network"))
                .hint("RUN steps have: default, none, host")),
        }
    }

    fn build_args(&self) -> Result<BTreeMap<String, String>> {
        let mut args = BTreeMap::new();
        for arg in &self.build_args {
            match arg.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    drop(args.insert(name.to_owned(), value.to_owned()))
                }
                None if !arg.is_empty() => {
                    if let Ok(value) = std::env::var(arg) {
                        args.insert(arg.clone(), value);
                    }
                }
                _ => {
                    return Err(Error::invalid(format!("`{arg}` in --build-arg has no name"))
                        .hint("write --build-arg NAME=VALUE"));
                }
            }
        }
        Ok(args)
    }

    fn labels(&self) -> Result<BTreeMap<String, String>> {
        let pair = |label: &String| match label.split_once('=').unwrap_or((label, "")) {
            ("", _) => Err(Error::invalid(format!("`{label}` in --label has no key"))),
            (key, value) => Ok((key.to_owned(), value.to_owned())),
        };
        self.labels.iter().map(pair).collect()
    }
}
