//! `--build-context NAME=VALUE`: what stands in for an image of that name, wherever a Dockerfile names one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use crate::archive::Layout;
use crate::build::Context;
use crate::context::ignore::Ignore;
use crate::context::{Held, Private, Remote, StatCache, git_url};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Platform, Reference};
use crate::job::Job;
use crate::plan::{GitSource, HttpSource};
use crate::verb::pull;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Absolute.
    Dir(PathBuf),
    Git(GitSource),
    /// The file as it is, called `context` (BuildKit).
    Url(String),
    /// An image's name or id.
    Image(String),
    /// An OCI layout, and which image of it: `:tag`, `@digest` or nothing.
    Layout {
        dir: PathBuf,
        selector: String,
    },
}

/// `VALUE` as the user wrote it. `find` makes a path absolute.
pub fn parse(value: &str, find: impl Fn(&str) -> Result<PathBuf>) -> Result<Named> {
    if let Some(name) = value.strip_prefix("docker-image://") {
        let _well_formed: Reference = name.parse()?;
        return Ok(Named::Image(name.to_owned()));
    }
    if let Some(rest) = value.strip_prefix("oci-layout://") {
        let (path, digest) = rest.split_once('@').map_or((rest, None), |(path, digest)| (path, Some(digest)));
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (path, None),
        };
        let selector = match (digest, tag) {
            (Some(digest), _) => format!("@{digest}"),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => String::new(),
        };
        let _well_formed: Reference = format!("layout{selector}").parse()?;
        return Ok(Named::Layout { dir: find(path)?, selector });
    }
    if let Some(target) = value.strip_prefix("target:") {
        return Err(Error::invalid(format!("there is no target `{target}` here"))
            .hint("targets are those of a bake file: `outcrop bake` knows them"));
    }
    if let Some(git) = git_url::parse_context(value)? {
        return Ok(Named::Git(git));
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        return Ok(Named::Url(value.to_owned()));
    }
    find(value).map(Named::Dir)
}

/// The name under which a context is found: as an image's is shown, without `:latest`.
pub fn normalized(name: &str) -> Result<String> {
    let familiar = name.parse::<Reference>()?.familiar();
    Ok(familiar.strip_suffix(":latest").map_or(familiar.clone(), str::to_owned))
}

/// The contexts of one build, each opened when it is first needed.
pub(super) struct Contexts<'b> {
    engine: &'b Engine,
    remote: &'b Remote<'b>,
    job: &'b Job,
    named: &'b BTreeMap<String, Named>,
    opened: BTreeMap<&'b str, OnceLock<Directory>>,
    opening: Mutex<()>,
}

struct Directory {
    dir: PathBuf,
    ignore: Ignore,
    stats: StatCache,
    _held: Option<Held>,
}

impl<'b> Contexts<'b> {
    pub(super) fn new(
        engine: &'b Engine,
        remote: &'b Remote<'b>,
        named: &'b BTreeMap<String, Named>,
        job: &'b Job,
    ) -> Self {
        let opened = named.keys().map(|name| (name.as_str(), OnceLock::new())).collect();
        Contexts { engine, remote, job, named, opened, opening: Mutex::default() }
    }

    fn find(&self, reference: &str) -> Option<(&'b str, &'b Named)> {
        if self.named.is_empty() {
            return None;
        }
        let (name, named) = self.named.get_key_value(&normalized(reference).ok()?)?;
        Some((name.as_str(), named))
    }

    /// Whether it stands for files that are no image.
    pub(super) fn is_directory(&self, reference: &str) -> bool {
        matches!(self.find(reference), Some((_, Named::Dir(_) | Named::Git(_) | Named::Url(_))))
    }

    /// The image it stands for: a name, or the id of one that has been brought here.
    pub(super) fn image(&self, reference: &str, platform: &Platform) -> Result<Option<String>> {
        match self.find(reference) {
            Some((_, Named::Image(name))) => Ok(Some(name.clone())),
            Some((name, Named::Layout { dir, selector })) => {
                let say = || format!("the build context `{name}`");
                let layout = Layout::open(dir).context(say)?;
                let reference: Reference = format!("layout{selector}").parse()?;
                let image =
                    pull::bring_from(self.engine, &layout, &reference, platform, self.job).context(say)?;
                Ok(Some(image.to_string()))
            }
            _ => Ok(None),
        }
    }

    /// The files it stands for, if they are no image.
    pub(super) fn directory(&self, reference: &str) -> Result<Option<Context<'_>>> {
        let Some((name, named)) = self.find(reference) else { return Ok(None) };
        let Some(slot) = self.opened.get(name) else { return Ok(None) };
        let _one_at_a_time = self.opening.lock().expect("no holder panics");
        if slot.get().is_none() {
            let Some(opened) = self.open(named).context(|| format!("the build context `{name}`"))? else {
                return Ok(None);
            };
            drop(slot.set(opened));
        }
        Ok(slot.get().map(|directory| Context {
            dir: &directory.dir,
            ignore: &directory.ignore,
            stats: &directory.stats,
        }))
    }

    /// A commit's, a file's; nothing else has a time of its own.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>> {
        match self.named.get(name) {
            Some(Named::Git(source)) => self.remote.commit_time(source, self.job).map(Some),
            Some(Named::Url(url)) => {
                let private = Private::new(&self.engine.root)?;
                let source = HttpSource { url: url.clone(), checksum: None };
                self.remote.fetched_time(&source, &private, "context", self.job)
            }
            Some(Named::Dir(_) | Named::Image(_) | Named::Layout { .. }) | None => Ok(None),
        }
    }

    /// What was learned of directories that stay.
    pub(super) fn save(&self) -> Result<()> {
        self.opened.values().filter_map(OnceLock::get).try_for_each(|directory| directory.stats.save())
    }

    fn open(&self, named: &Named) -> Result<Option<Directory>> {
        let root = &self.engine.root;
        Ok(Some(match named {
            Named::Image(_) | Named::Layout { .. } => return Ok(None),
            Named::Dir(dir) => {
                let file = dir.join(".dockerignore");
                let ignore = match std::fs::read(&file) {
                    Ok(text) => Ignore::parse(&text).context(|| format!("reading `{}`", file.display()))?,
                    Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ignore::default(),
                    Err(cause) => return Err(cause).context(|| format!("reading `{}`", file.display())),
                };
                let stats = StatCache::open(&root.join("cache/context"), &root.join("trash"), dir);
                Directory { dir: dir.clone(), ignore, stats, _held: None }
            }
            Named::Git(source) => {
                let checkout = self.remote.checkout(source, self.job)?;
                Directory {
                    dir: checkout.path(),
                    ignore: Ignore::default(),
                    stats: StatCache::in_memory(),
                    _held: Some(Held::new(checkout)),
                }
            }
            Named::Url(url) => {
                let private = Private::new(root)?;
                let source = HttpSource { url: url.clone(), checksum: None };
                self.remote.fetch(&source, &private, "context", self.job)?;
                Directory {
                    dir: private.tree_path(),
                    ignore: Ignore::default(),
                    stats: StatCache::in_memory(),
                    _held: Some(Held::new(private)),
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_what_they_are() {
        let find = |path: &str| Ok(PathBuf::from("/at").join(path));
        let layout = |selector: &str| Named::Layout { dir: "/at/x/y".into(), selector: selector.into() };
        let digest = format!("sha256:{}", "0".repeat(64));
        for (value, expected) in [
            ("dir", Named::Dir("/at/dir".into())),
            ("docker-image://alpine:3", Named::Image("alpine:3".into())),
            ("oci-layout://x/y", layout("")),
            ("oci-layout://x/y:tag", layout(":tag")),
            (&format!("oci-layout://x/y:tag@{digest}"), layout(&format!("@{digest}"))),
            ("https://h/x.tar", Named::Url("https://h/x.tar".into())),
        ] {
            assert_eq!(parse(value, find).unwrap(), expected, "{value}");
        }
        assert!(matches!(parse("https://h/x.git#v1", find).unwrap(), Named::Git(_)));
        assert!(parse("target:x", find).is_err() && parse("docker-image://A", find).is_err());
    }

    #[test]
    fn a_name_is_that_of_an_image() {
        for (name, known) in [
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine", "alpine"),
            ("alpine:3", "alpine:3"),
            ("h.test/a/b:latest", "h.test/a/b"),
        ] {
            assert_eq!(normalized(name).unwrap(), known);
        }
        assert!(normalized("Alpine").is_err());
    }
}
