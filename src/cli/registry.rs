//! Registries, as the command line and the environment speak of them.

use std::env;
use std::path::PathBuf;

use outcrop::error::{Error, Result};
use outcrop::image::Compression;
use outcrop::registry::{HostFiles, Keychain, Options, Proxies};

use super::Context;
use super::progress::Mode;

/// How registries are spoken to: as the environment says.
pub(super) fn options() -> Options {
    let proxies = Proxies::from_variables(|name| env::var(name).ok());
    let home = env::var_os("HOME").map(PathBuf::from);
    let own = home.filter(|home| home.is_absolute()).map(|home| home.join(".config/containers"));
    let system = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from);
    let certificates: Vec<_> = own.iter().map(|own| own.join("certs.d")).chain(system).collect();
    let named = env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|file| !file.is_empty());
    let registries_conf = match named {
        Some(file) => vec![file.into()],
        None => {
            let own = own.iter().map(|own| own.join("registries.conf"));
            own.chain(Some("/etc/containers/registries.conf".into())).collect()
        }
    };
    let hosts = certificates.iter().cloned().chain(Some("/etc/containerd/certs.d".into())).collect();
    Options {
        proxies,
        keychain: keychain(),
        hosts: HostFiles { registries_conf, hosts },
        certificates,
        ..Options::default()
    }
}

/// `--compression`
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    None,
}

impl Kind {
    pub(super) fn compression(self) -> Compression {
        match self {
            Kind::Gzip => Compression::Gzip,
            Kind::Zstd => Compression::Zstd,
            Kind::None => Compression::None,
        }
    }
}

/// How one registry is spoken to that a verb is about.
#[derive(clap::Args)]
pub(super) struct RegistryArgs {
    /// With false, plain HTTP will do, and the registry's certificate is not looked at
    #[arg(long, value_name = "BOOL", default_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
}

impl RegistryArgs {
    pub(super) fn options(&self) -> Options {
        Options { insecure: !self.tls_verify, ..options() }
    }
}

/// Where a Docker daemon listens; one that is far away is not spoken to.
pub(super) fn docker_socket() -> Result<PathBuf> {
    match env::var("DOCKER_HOST").unwrap_or_default().as_str() {
        "" => Ok("/var/run/docker.sock".into()),
        host => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => Err(Error::unsupported(format!(
                "DOCKER_HOST is `{host}`; a daemon is spoken to by unix:// alone"
            ))
            .hint("copy there by way of a registry, or of a Docker archive")),
        },
    }
}

/// Docker's file before the containers' own ones (containers-auth.json(5)); one that is named is the only one.
fn keychain() -> Keychain {
    let directory = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let named = env::var_os("REGISTRY_AUTH_FILE").filter(|file| !file.is_empty());
    let files = match named {
        Some(file) => vec![file.into()],
        None => {
            let home = directory("HOME");
            let docker = env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from);
            let docker = docker.or_else(|| home.as_ref().map(|home| home.join(".docker")));
            let own = || format!("/run/containers/{}", rustix::process::getuid().as_raw()).into();
            let runtime = directory("XDG_RUNTIME_DIR").map_or_else(own, |dir| dir.join("containers"));
            let config = directory("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
            let containers = [Some(runtime), config.map(|config| config.join("containers"))];
            docker
                .map(|dir| dir.join("config.json"))
                .into_iter()
                .chain(containers.into_iter().flatten().map(|dir| dir.join("auth.json")))
                .collect()
        }
    };
    Keychain { files, path: env::var_os("PATH").unwrap_or_default() }
}

/// Of verbs that move an image from or to a registry.
#[derive(clap::Args)]
pub(super) struct TransferArgs {
    /// How to show what happens
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    progress: Mode,
    /// Say nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
}

impl TransferArgs {
    pub(super) fn mode(&self) -> Mode {
        if self.quiet { Mode::Quiet } else { self.progress }
    }

    /// For people, where the name came without a tag.
    pub(super) fn say_default_tag(&self, context: &Context) -> Result<()> {
        if matches!(self.mode(), Mode::Auto | Mode::Plain | Mode::Tty) {
            let mut out = context.out();
            out.line("Using default tag: latest")?;
            out.done()?;
        }
        Ok(())
    }
}
