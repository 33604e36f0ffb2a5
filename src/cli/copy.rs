//! `copy`: an image from one place to another.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use outcrop::error::{Context as _, Result};
use outcrop::image::Platform;
use outcrop::verb::copy::{self, Options, Place};

use super::progress::{Mode, Progress};
use super::registry::{docker_socket, options};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The index, with the images for all platforms
    #[arg(short, long, visible_alias = "all", conflicts_with = "platform")]
    all_platforms: bool,
    /// The image for this platform, of an index; for this machine's unless given
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Leave what refers to the image: signatures, SBOMs
    #[arg(long)]
    no_referrers: bool,
    /// Fail where the manifest cannot be kept byte for byte
    #[arg(long)]
    preserve_digests: bool,
    /// Write the digest that it has over there into a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Layers at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    max_concurrent: u16,
    /// With false, plain HTTP will do, and certificates are not looked at
    #[arg(long, value_name = "BOOL", default_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// The same, of the source alone
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    src_tls_verify: Option<bool>,
    /// The same, of the destination alone
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    dest_tls_verify: Option<bool>,
    /// How to show what happens
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    progress: Mode,
    /// Say nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// Where it is: docker://NAME at a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME],
    /// dir:DIR, docker-daemon:NAME, containers-storage:NAME, or a name in the store
    #[arg(value_name = "SOURCE")]
    from: String,
    /// Where it goes: the same
    #[arg(value_name = "DESTINATION")]
    to: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["copy", "image copy"];
    const ABOUT: &'static str = "Copy an image from one place to another";
    const EXAMPLE: &'static str = "outcrop copy -a docker://debian:12 docker://registry.example.com/debian:12\noutcrop copy docker://debian:12 oci:layout:12\noutcrop copy site:1.0 docker-daemon:site:1.0";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let (from, to): (Place, Place) = (self.from.parse()?, self.to.parse()?);
        let is_store = |place: &Place| matches!(place, Place::Store(_));
        let is_daemon = |place: &Place| matches!(place, Place::Daemon(_));
        let engine = match is_store(&from) || is_store(&to) {
            true => Some(context.engine()?),
            false => None,
        };
        let docker = match is_daemon(&from) || is_daemon(&to) {
            true => docker_socket()?,
            false => PathBuf::new(),
        };
        let registry = |verify: Option<bool>| {
            let mut options = options();
            options.insecure = !verify.unwrap_or(self.tls_verify);
            options
        };
        let options = Options {
            platform: self.platform.clone(),
            all: self.all_platforms,
            referrers: !self.no_referrers,
            exact: self.preserve_digests,
            from: registry(self.src_tls_verify),
            to: registry(self.dest_tls_verify),
            docker,
            temp: env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from),
            path: env::var_os("PATH").unwrap_or_default(),
        };
        let progress = Progress::of(if self.quiet { Mode::Quiet } else { self.progress });
        let mut job = context.job(progress.report());
        job.budget.transfers = self.max_concurrent.into();
        let copied = copy::copy(engine, &from, &to, &options, &job)
            .context(|| format!("copying {} to {}", from, to))?;
        drop(progress);
        if let Some(file) = &self.digestfile {
            std::fs::write(file, copied.digest.to_string())
                .context(|| format!("writing `{}`", file.display()))?;
        }
        let mut out = context.out();
        if self.quiet {
            out.line(copied.digest)?;
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
