//! What the host says of registries: which have mirrors, which are insecure or blocked. Read are containers-registries.conf(5),
//! version 2, and containerd's hosts.toml (docs/hosts.md).

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Context as _, Error, Result};
use crate::image::Reference;

/// Where it is said. What is not there says nothing.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    /// The first that is there counts.
    pub registries_conf: Vec<PathBuf>,
    /// Directories with a directory for each registry, which holds a `hosts.toml`.
    pub hosts: Vec<PathBuf>,
}

/// Of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) insecure: bool,
    /// What stands for the registry's own name; `None`: that itself.
    pub(super) location: Option<String>,
    /// In the order in which they are asked.
    pub(super) mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The name there.
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) tags: bool,
    pub(super) digests: bool,
}

#[derive(Deserialize)]
struct Conf {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

#[derive(Deserialize)]
struct Hosts {
    #[serde(default)]
    host: toml::Table,
}

#[derive(Deserialize)]
struct Host {
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
}

impl HostFiles {
    pub(super) fn rule(&self, name: &Reference) -> Result<Rule> {
        let mut rule = Rule::default();
        for path in &self.registries_conf {
            let Some(text) = read(path)? else { continue };
            let conf: Conf = toml::from_str(&text).map_err(|cause| unread(path, cause))?;
            rule = of_conf(conf, &name.name()).context(|| format!("reading {}", path.display()))?;
            break;
        }
        for dir in &self.hosts {
            let path = dir.join(name.host()).join("hosts.toml");
            let Some(text) = read(&path)? else { continue };
            let hosts: Hosts = toml::from_str(&text).map_err(|cause| unread(&path, cause))?;
            add_hosts(&mut rule, hosts, name).map_err(|cause| unread(&path, cause))?;
            break;
        }
        Ok(rule)
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(cause)
            if matches!(cause.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        text => text.map(Some).context(|| format!("reading {}", path.display())),
    }
}

fn unread(path: &Path, cause: toml::de::Error) -> Error {
    Error::invalid(format!("reading {}", path.display())).because(cause)
}

/// The longest prefix counts.
fn of_conf(conf: Conf, name: &str) -> Result<Rule> {
    let mut best: Option<(usize, Entry, &str)> = None;
    for entry in conf.registry {
        let prefix = entry.prefix.as_deref().or(entry.location.as_deref()).unwrap_or_default();
        let Some(rest) = rest_of(name, prefix) else { continue };
        let length = name.len() - rest.len();
        if best.as_ref().is_none_or(|(known, _, _)| length > *known) {
            best = Some((length, entry, rest));
        }
    }
    let Some((_, entry, rest)) = best else { return Ok(Rule::default()) };
    if entry.blocked {
        return Err(Error::new(crate::error::Kind::Denied, format!("`{name}` is blocked here")));
    }
    let wildcard = entry.prefix.as_deref().is_some_and(|prefix| prefix.starts_with("*."));
    let at = |location: &str| format!("{location}{rest}");
    let mirror = |mirror: &MirrorEntry| {
        let (tags, digests) = match mirror.pull_from_mirror.as_deref() {
            Some("digest-only") => (false, true),
            Some("tag-only") => (true, false),
            _ => (!entry.mirror_by_digest_only, true),
        };
        Mirror { location: at(&mirror.location), insecure: mirror.insecure, tags, digests }
    };
    Ok(Rule {
        insecure: entry.insecure,
        location: entry.location.as_deref().filter(|_| !wildcard).map(at).filter(|location| location != name),
        mirrors: entry.mirror.iter().map(mirror).collect(),
    })
}

/// What follows the prefix, which ends where a part of the name does; `*.example.com` is every host below it.
fn rest_of<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    if prefix.is_empty() {
        return None;
    }
    let rest = match prefix.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => {
            let (host, _) = name.split_once('/')?;
            let plain = host.split(':').next().unwrap_or(host);
            &name[if plain.ends_with(domain) { host.len() } else { return None }..]
        }
        _ => name.strip_prefix(prefix)?,
    };
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn add_hosts(rule: &mut Rule, hosts: Hosts, name: &Reference) -> Result<(), toml::de::Error> {
    for (address, value) in hosts.host {
        let host: Host = value.try_into()?;
        let capabilities = host.capabilities.unwrap_or_else(|| vec!["pull".into(), "resolve".into()]);
        let can = |what: &str| capabilities.iter().any(|one| one == what);
        let insecure = host.skip_verify || address.starts_with("http://");
        let plain =
            address.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
        let plain = plain.strip_suffix("/v2").unwrap_or(plain);
        // Paths that are not below /v2/ are none that a name could say.
        if !can("pull") || host.override_path || plain.is_empty() {
            continue;
        }
        rule.mirrors.push(Mirror {
            location: format!("{plain}/{}", name.path()),
            insecure,
            tags: can("resolve"),
            digests: true,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "reg.test"
location = "other.test/cache"
[[registry.mirror]]
location = "m.test:5000/x"
insecure = true
[[registry.mirror]]
location = "n.test"
pull-from-mirror = "digest-only"
[[registry]]
location = "reg.test/deep"
insecure = true
[[registry]]
prefix = "*.wild.test"
insecure = true
[[registry]]
prefix = "bad.test"
blocked = true
"#;

    fn shown(name: &str) -> String {
        match of_conf(toml::from_str(CONF).unwrap(), name) {
            Err(error) => error.message().to_owned(),
            Ok(rule) => {
                let mut text = rule.location.unwrap_or_default();
                if rule.insecure {
                    text.push_str(" insecure");
                }
                for mirror in rule.mirrors {
                    text.push_str(&format!(" | {} {} {}", mirror.location, mirror.insecure, mirror.tags));
                }
                text
            }
        }
    }

    #[test]
    fn the_longest_prefix_says_where_a_repository_is() {
        for (name, expected) in [
            ("reg.test/app", "other.test/cache/app | m.test:5000/x/app true true | n.test/app false false"),
            ("reg.test/deep/app", " insecure"),
            (
                "reg.test/deeper",
                "other.test/cache/deeper | m.test:5000/x/deeper true true | n.test/deeper false false",
            ),
            ("reg.testing/app", ""),
            ("a.wild.test:5000/app", " insecure"),
            ("wild.test/app", ""),
            ("bad.test/app", "`bad.test/app` is blocked here"),
        ] {
            assert_eq!(shown(name), expected, "{name}");
        }
    }
}
