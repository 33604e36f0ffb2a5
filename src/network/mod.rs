//! Networks: what a container can reach, and the names it knows. One file each; `TABLE` lists them.

mod host;
mod none;

use std::io;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::runtime::{self, File, Spec};

/// What a container is told of the world, as files; and which namespace it gets.
pub trait Network: Sync {
    fn name(&self) -> &'static str;
    fn namespace(&self) -> runtime::Network;
    /// The host name of a container that was given none.
    fn hostname(&self, host: &Host, id: &str) -> String;
    fn resolv_conf(&self, host: &Host) -> String;
    /// Without the names that the user added.
    fn hosts(&self, host: &Host) -> String;
}

pub const TABLE: &[&dyn Network] = &[host::ENTRY, none::ENTRY];

/// The network of that name.
pub fn find(name: &str) -> Result<&'static dyn Network> {
    TABLE.iter().find(|network| network.name() == name).copied().ok_or_else(|| {
        let known: Vec<&str> = TABLE.iter().map(|network| network.name()).collect();
        Error::not_found(format!("network {name} not found"))
            .hint(format!("this version has {}", known.join(" and ")))
    })
}

/// What the host knows of names. Files that are missing are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub resolv_conf: String,
    pub hosts: String,
    pub hostname: String,
}

impl Host {
    /// `etc` is the host's /etc.
    pub fn read(etc: &Path) -> Result<Self> {
        let read = |name: &str| match std::fs::read(etc.join(name)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).context(|| format!("reading {}", etc.join(name).display())),
        };
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Host { resolv_conf: read("resolv.conf")?, hosts: read("hosts")?, hostname })
    }
}

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    /// `--hostname`.
    pub hostname: Option<&'a str>,
    /// `--add-host name:address`, in order.
    pub hosts: &'a [(String, String)],
}

/// Puts a container on a network: its namespace, its host name, and /etc/resolv.conf, /etc/hosts and /etc/hostname.
pub fn configure(network: &dyn Network, host: &Host, names: &Names<'_>, spec: &mut Spec) {
    spec.network = network.namespace();
    spec.hostname = match names.hostname {
        Some(name) => name.into(),
        None => network.hostname(host, &spec.id),
    };
    let mut hosts = network.hosts(host);
    if !hosts.is_empty() && !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    for (name, address) in names.hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    for (target, content) in [
        ("/etc/resolv.conf", network.resolv_conf(host)),
        ("/etc/hosts", hosts),
        ("/etc/hostname", format!("{}\n", spec.hostname)),
    ] {
        spec.files.push(File::plain(target, content));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::Mount;

    fn host() -> Host {
        Host {
            resolv_conf: "# made\nsearch lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\n"
                .into(),
            hosts: "127.0.0.1 localhost\n10.0.0.7 box".into(),
            hostname: "box".into(),
        }
    }

    fn configured(network: &str, names: &Names<'_>) -> Spec {
        let root = Mount::Bind { source: "/".into(), read_only: true };
        let mut spec = Spec::new("0123456789abcdef", root, vec!["true".into()]);
        configure(find(network).unwrap(), &host(), names, &mut spec);
        spec
    }

    fn content<'a>(spec: &'a Spec, target: &str) -> &'a str {
        let file = spec.files.iter().find(|file| file.target == target).unwrap();
        std::str::from_utf8(&file.content).unwrap()
    }

    #[test]
    fn on_the_hosts_network_names_are_the_hosts() {
        let hosts = [("db".to_owned(), "10.1.1.1".to_owned())];
        let spec = configured("host", &Names { hostname: None, hosts: &hosts });
        assert_eq!(spec.network, runtime::Network::Host);
        assert_eq!((spec.hostname.as_str(), content(&spec, "/etc/hostname")), ("box", "box\n"));
        assert_eq!(content(&spec, "/etc/resolv.conf"), host().resolv_conf);
        assert_eq!(content(&spec, "/etc/hosts"), "127.0.0.1 localhost\n10.0.0.7 box\n10.1.1.1\tdb\n");
    }

    #[test]
    fn without_a_network_the_hosts_loopback_resolvers_are_left_out() {
        let spec = configured("none", &Names::default());
        assert_eq!(spec.network, runtime::Network::None);
        assert_eq!(content(&spec, "/etc/hostname"), "0123456789ab\n");
        assert_eq!(content(&spec, "/etc/resolv.conf"), "# made\nsearch lan\nnameserver 10.0.0.1\n");
        assert!(content(&spec, "/etc/hosts").starts_with("127.0.0.1\tlocalhost\n"));
        assert_eq!(configured("none", &Names { hostname: Some("me"), hosts: &[] }).hostname, "me");
    }

    #[test]
    fn an_unknown_network_is_named() {
        let error = find("bridge").err().unwrap();
        assert_eq!(error.to_string(), "network bridge not found");
        assert_eq!(error.hint_text(), Some("this version has host and none"));
    }
}
