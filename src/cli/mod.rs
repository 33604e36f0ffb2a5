//! The command line: one verb per file; flags in, text out. Nothing is decided here.
//!
//! To add a verb: a file with an `Args` that is a [`Verb`], `mod` and a line in [`TABLE`].

mod format;
mod frame;
mod progress;

mod bake;
mod bootstrap;
mod build;
mod cache;
mod check;
mod commit;
mod confirm;
mod container;
mod container_prune;
mod create;
mod debug;
mod diff;
mod explain;
mod export;
mod foreground;
mod history;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod layers;
mod load;
mod log;
mod login;
mod logout;
mod mounts;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod rollback;
mod run;
mod save;
mod start;
mod system_df;
mod system_prune;
mod tag;
mod undo;
mod version;

pub(crate) use frame::{Context, Verb, main};

use frame::{Entry, complain};

/// In the order `--help` lists them.
const TABLE: &[Entry] = &[
    Entry::of::<build::Args>(),
    Entry::of::<bake::Args>(),
    Entry::of::<debug::Args>(),
    Entry::of::<pull::Args>(),
    Entry::of::<push::Args>(),
    Entry::of::<login::Args>(),
    Entry::of::<logout::Args>(),
    Entry::of::<run::Args>(),
    Entry::of::<create::Args>(),
    Entry::of::<start::Args>(),
    Entry::of::<ps::Args>(),
    Entry::of::<rm::Args>(),
    Entry::of::<diff::Args>(),
    Entry::of::<commit::Args>(),
    Entry::of::<export::Args>(),
    Entry::of::<images::Args>(),
    Entry::of::<history::Args>(),
    Entry::of::<layers::Args>(),
    Entry::of::<inspect::Args>(),
    Entry::of::<tag::Args>(),
    Entry::of::<rmi::Args>(),
    Entry::of::<log::Args>(),
    Entry::of::<rollback::Args>(),
    Entry::of::<undo::Args>(),
    Entry::of::<save::Args>(),
    Entry::of::<load::Args>(),
    Entry::of::<import::Args>(),
    Entry::of::<bootstrap::Args>(),
    Entry::of::<info::Args>(),
    Entry::of::<system_df::Args>(),
    Entry::of::<system_prune::Args>(),
    Entry::of::<explain::Args>(),
    Entry::of::<cache::Ls>(),
    Entry::of::<cache::Inspect>(),
    Entry::of::<cache::Prune>(),
    Entry::of::<check::Args>(),
    Entry::of::<image_prune::Args>(),
    Entry::of::<inspect::ImageArgs>(),
    Entry::of::<container_prune::Args>(),
    Entry::of::<inspect::ContainerArgs>(),
    Entry::of::<version::Args>(),
];

/// What stands before the verb in a management form, and what `--help` says of it.
const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage builds"),
    ("cache", "Manage the build cache"),
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("manifest", "Manage image manifests and indexes"),
    ("network", "Manage networks"),
    ("system", "Manage outcrop"),
    ("volume", "Manage volumes"),
];

/// How registries are spoken to: as the environment says.
fn registry_options() -> outcrop::registry::Options {
    let proxies = outcrop::registry::Proxies::from_variables(|name| std::env::var(name).ok());
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let own = home.filter(|home| home.is_absolute()).map(|home| home.join(".config/containers"));
    let system = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(std::path::PathBuf::from);
    let certificates: Vec<_> = own.iter().map(|own| own.join("certs.d")).chain(system).collect();
    let named = std::env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|file| !file.is_empty());
    let registries_conf = match named {
        Some(file) => vec![file.into()],
        None => {
            let own = own.iter().map(|own| own.join("registries.conf"));
            own.chain(Some("/etc/containers/registries.conf".into())).collect()
        }
    };
    let hosts = certificates.iter().cloned().chain(Some("/etc/containerd/certs.d".into())).collect();
    outcrop::registry::Options {
        proxies,
        keychain: keychain(),
        hosts: outcrop::registry::HostFiles { registries_conf, hosts },
        certificates,
        ..outcrop::registry::Options::default()
    }
}

/// How one registry is spoken to that a verb is about.
#[derive(clap::Args)]
struct RegistryArgs {
    /// With false, plain HTTP will do, and the registry's certificate is not looked at
    #[arg(long, value_name = "BOOL", default_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
}

impl RegistryArgs {
    fn options(&self) -> outcrop::registry::Options {
        outcrop::registry::Options { insecure: !self.tls_verify, ..registry_options() }
    }
}

/// Docker's file before the containers' own ones (containers-auth.json(5)); one that is named is the only one.
fn keychain() -> outcrop::registry::Keychain {
    let directory =
        |name: &str| std::env::var_os(name).map(std::path::PathBuf::from).filter(|path| path.is_absolute());
    let named = std::env::var_os("REGISTRY_AUTH_FILE").filter(|file| !file.is_empty());
    let files = match named {
        Some(file) => vec![file.into()],
        None => {
            let home = directory("HOME");
            let docker =
                std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(std::path::PathBuf::from);
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
    outcrop::registry::Keychain { files, path: std::env::var_os("PATH").unwrap_or_default() }
}
