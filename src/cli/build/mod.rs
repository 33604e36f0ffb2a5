//! `build`: a Dockerfile and its context become an image.

mod call;
mod output;
mod run_flags;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outcrop::context::GitHost;
use outcrop::error::{Context as _, Error, Kind, Result};
use outcrop::image::{Platform, Reference};
use outcrop::network::Host;
use outcrop::plan::Network;
use outcrop::verb::build::{self, Options};
use outcrop::verb::explain;

use super::progress::{Mode, Progress};
use super::{Context, Verb};

/// A Dockerfile is text that people write.
const LARGEST_DOCKERFILE: u64 = 4 << 20;

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
    output: output::OutputArgs,
    #[command(flatten)]
    run: run_flags::RunFlags,
    #[command(flatten)]
    call: call::CallArgs,
    /// The directory whose files COPY and ADD see; `-` reads a Dockerfile from standard input, without any
    #[arg(value_name = "PATH|-")]
    path: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["build", "image build", "builder build"];
    const ABOUT: &'static str = "Build an image from a Dockerfile";
    const EXAMPLE: &'static str = "outcrop build -t site .\noutcrop build -f web/Dockerfile --build-arg VERSION=2 -t web:2 .\noutcrop build -o type=oci,dest=site.tar .\noutcrop build --check .";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let mode = if self.quiet { Mode::Quiet } else { self.progress };
        let call = self.call.call()?;
        let options = self.options()?;
        if let Some(call) = call {
            return call.run(context, &options);
        }
        let streams = output::OutputArgs::streams(&options.results);
        if streams && self.explain {
            return Err(Error::invalid("`--explain` and an output both go to standard output")
                .hint("give the output a file: dest=FILE"));
        }
        let progress = if streams { Progress::aside(mode) } else { Progress::of(mode) };
        let job = context.job(progress.report());
        let built = build::build(context.engine()?, &options, &job)
            .context(|| format!("building `{}`", self.path))?;
        drop(progress);
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
        let source = self.source()?;
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
            context: source.context,
            ignore: source.ignore,
            names,
            build_args,
            labels: self.labels()?,
            target: self.target.clone(),
            platform: self.platforms.first().cloned().unwrap_or_else(Platform::host),
            results: self.output.results(self.platforms.iter().skip(1).cloned().collect())?,
            network: self.network()?,
            no_cache: self.no_cache,
            pull: self.pull,
            host: Host::read(Path::new("/etc"))?,
            run: self.run.options()?,
            registry: super::registry_options(),
            git: git_host(),
            ..Options::new(source.name, source.text)
        })
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

    fn source(&self) -> Result<Source> {
        if self.path == "-" {
            return from_standard_input();
        }
        if self.path.contains("://") || self.path.starts_with("git@") {
            return Err(Error::unsupported(format!(
                "a build context from `{}` is not supported by this version",
                self.path
            ))
            .hint("fetch it first and name the directory"));
        }
        let dir = std::fs::canonicalize(&self.path)
            .context(|| format!("build context `{}`", self.path))
            .map_err(|error| error.hint("name the directory that holds the files to copy"))?;
        if !dir.is_dir() {
            return Err(Error::invalid(format!("build context `{}` is not a directory", self.path))
                .hint("name the directory; a Dockerfile goes with -f"));
        }
        if self.file.as_deref() == Some(Path::new("-")) {
            return Ok(Source {
                context: Some(dir.clone()),
                ignore: ignore_of(&dir, None)?,
                ..from_standard_input()?
            });
        }
        let (shown, file) = match &self.file {
            None => (join_shown(&self.path, "Dockerfile"), dir.join("Dockerfile")),
            // As the docker CLI: from here, else from the context.
            Some(file) if file.exists() || file.is_absolute() => (file.display().to_string(), file.clone()),
            Some(file) => (join_shown(&self.path, &file.display().to_string()), dir.join(file)),
        };
        let open =
            std::fs::File::open(&file).context(|| format!("reading `{shown}`")).map_err(
                |error| match error.kind() {
                    Kind::NotFound => error.hint("name the Dockerfile with -f FILE"),
                    _ => error,
                },
            )?;
        let text = read_text(open, &shown)?;
        Ok(Source { ignore: ignore_of(&dir, Some(&file))?, context: Some(dir), name: shown, text })
    }
}

/// What git may know of the caller.
fn git_host() -> GitHost {
    let known_hosts = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts"));
    GitHost {
        path: std::env::var_os("PATH").unwrap_or_default(),
        ssh_agent: std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
        known_hosts: known_hosts.filter(|file| file.is_file()),
    }
}

fn from_standard_input() -> Result<Source> {
    let text = read_text(std::io::stdin().lock(), "-")?;
    Ok(Source { context: None, name: "-".into(), text, ignore: None })
}

struct Source {
    context: Option<PathBuf>,
    name: String,
    text: String,
    ignore: Option<(String, Vec<u8>)>,
}

fn join_shown(dir: &str, file: &str) -> String {
    match dir.trim_end_matches('/') {
        "." | "" => file.to_owned(),
        dir => format!("{dir}/{file}"),
    }
}

fn read_text(from: impl std::io::Read, shown: &str) -> Result<String> {
    let say = || format!("reading `{shown}`");
    let mut bytes = Vec::new();
    from.take(LARGEST_DOCKERFILE + 1).read_to_end(&mut bytes).context(say)?;
    if bytes.len() as u64 > LARGEST_DOCKERFILE {
        return Err(
            Error::invalid(say()).because(Error::invalid("it is larger than 4 MiB; is it a Dockerfile?"))
        );
    }
    if bytes.get(257..262) == Some(b"ustar") || bytes.starts_with(b"\x1f\x8b") {
        return Err(Error::unsupported(
            "a build context as a tar on standard input is not supported by this version",
        )
        .hint("unpack it and name the directory"));
    }
    String::from_utf8(bytes)
        .map_err(|cause| Error::invalid(say()).because(Error::invalid(format!("it is not UTF-8: {cause}"))))
}

/// `<Dockerfile>.dockerignore` next to the Dockerfile goes before the context's `.dockerignore`.
fn ignore_of(dir: &Path, dockerfile: Option<&Path>) -> Result<Option<(String, Vec<u8>)>> {
    let own = dockerfile.map(|file| {
        let mut name = file.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for file in own.into_iter().chain([dir.join(".dockerignore")]) {
        match std::fs::read(&file) {
            Ok(text) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Ok(Some((name, text)));
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause).context(|| format!("reading `{}`", file.display())),
        }
    }
    Ok(None)
}
