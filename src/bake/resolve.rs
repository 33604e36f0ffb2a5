//! From what the files say to what is built: groups opened, inheritance resolved, links followed.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Entry, Setting};
use super::functions::clean;
use super::overrides::{self, Overrides};
use super::source::Problem;
use super::{Bake, Group, Target};
use crate::error::did_you_mean;
use crate::error::{Error, Kind, Result};

/// Everything some names ask for.
#[derive(Debug)]
pub struct Resolved {
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) targets: BTreeMap<String, Target>,
    /// Each after those it links to.
    pub order: Vec<String>,
    /// Built only because others link to them.
    pub(super) linked: BTreeSet<String>,
}

impl Bake {
    /// `overrides` are those of `--set`; `lookup` is for build arguments without a value among them.
    pub fn resolve(
        &self,
        names: &[String],
        overrides: &[String],
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Resolved> {
        let overrides = overrides::parse(self, overrides, lookup)?;
        let mut wanted: Vec<String> = Vec::new();
        for name in names {
            for name in self.matching(&name.replace('.', "_"))? {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
        }
        let mut resolved = Resolved {
            groups: BTreeMap::new(),
            targets: BTreeMap::new(),
            order: Vec::new(),
            linked: BTreeSet::new(),
        };
        let mut members = Vec::new();
        for name in &wanted {
            self.open(name, &mut Vec::new(), &mut members, &mut resolved.groups)?;
        }
        for name in &members {
            let target = self.finished(name, &overrides)?;
            resolved.targets.insert(name.clone(), target);
        }
        name_default(&wanted, &mut resolved.groups);
        for name in members {
            self.link(&name, &overrides, &mut Vec::new(), &mut resolved)?;
        }
        Ok(resolved)
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>> {
        if !pattern.contains(['*', '?', '[', ']']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let found: Vec<String> =
            self.names().filter(|name| overrides::matches(pattern, name)).map(str::to_owned).collect();
        match found.is_empty() {
            true => Err(Error::not_found(format!("no target matches `{pattern}`"))),
            false => Ok(found),
        }
    }

    /// The targets a name stands for.
    fn open(
        &self,
        name: &str,
        path: &mut Vec<String>,
        members: &mut Vec<String>,
        groups: &mut BTreeMap<String, Group>,
    ) -> Result<()> {
        let again = path.iter().any(|open| open == name);
        let group = self.group(name).filter(|_| !again || self.target(name).is_none());
        let Some(group) = group else {
            if self.target(name).is_none() {
                return Err(self.unknown(name, path.last().and_then(|group| self.group(group))));
            }
            if !members.iter().any(|member| member == name) {
                members.push(name.to_owned());
            }
            return Ok(());
        };
        if again {
            let say = format!("group `{name}` holds itself: {} -> {name}", path.join(" -> "));
            return Err(Problem::new(&group.place, say).error(&self.files));
        }
        groups.insert(name.to_owned(), group.clone());
        path.push(name.to_owned());
        for member in &group.targets {
            self.open(member, path, members, groups)?;
        }
        path.pop();
        Ok(())
    }

    fn unknown(&self, name: &str, within: Option<&Group>) -> Error {
        let near = did_you_mean(name, self.names());
        match within {
            Some(group) => {
                let say = format!("group `{}` names `{name}`, which is no target", group.name);
                Problem::new(&group.place, say).kind(Kind::NotFound).maybe_hint(near).error(&self.files)
            }
            None => {
                let error = Error::not_found(format!("no target `{name}` in the bake files"));
                let all = || {
                    let names: Vec<&str> = self.names().filter(|name| !name.starts_with('_')).collect();
                    format!("there are: {}", names.join(", "))
                };
                error.hint(near.unwrap_or_else(all))
            }
        }
    }

    fn finished(&self, name: &str, overrides: &Overrides) -> Result<Target> {
        let mut target = self.inherited(name, overrides, &mut Vec::new())?;
        target.settings.remove("inherits");
        for (field, default) in [("context", "."), ("dockerfile", "Dockerfile")] {
            let empty = |text: &Setting| field == "dockerfile" && *text == Setting::Text(String::new());
            if target.settings.get(field).is_none_or(empty) {
                target.settings.insert(field, Setting::Text(default.into()));
            }
        }
        for field in ["context", "dockerfile"] {
            if target.text(field) == Some("-") {
                return Err(Error::unsupported(format!(
                    "target `{name}`: bake reads no {field} from standard input"
                )));
            }
        }
        let context = target.text("context").unwrap_or_default();
        if !is_remote(context) {
            let context = clean(context.strip_prefix("cwd://").unwrap_or(context));
            target.settings.insert("context", Setting::Text(context));
        }
        Ok(target)
    }

    /// What it inherits, in order, then what it says itself, then the command line.
    fn inherited(&self, name: &str, overrides: &Overrides, path: &mut Vec<String>) -> Result<Target> {
        let Some(own) = self.target(name) else {
            let heir = path.last().and_then(|heir| self.target(heir));
            return Err(match heir {
                Some(heir) => {
                    let place = heir.places.get("inherits").unwrap_or(&heir.place);
                    let near = did_you_mean(name, self.targets.iter().map(|target| target.name.as_str()));
                    let say = format!("target `{}` inherits `{name}`, which is no target", heir.name);
                    Problem::new(place, say).kind(Kind::NotFound).maybe_hint(near).error(&self.files)
                }
                None => self.unknown(name, None),
            });
        };
        if let Some(at) = path.iter().position(|heir| heir == name) {
            let place = own.places.get("inherits").unwrap_or(&own.place);
            let say = format!("target `{name}` inherits itself: {} -> {name}", path[at..].join(" -> "));
            return Err(Problem::new(place, say).error(&self.files));
        }
        path.push(name.to_owned());
        let mut target = Target { settings: BTreeMap::new(), places: BTreeMap::new(), ..own.clone() };
        for parent in own.texts("inherits") {
            let mut parent = self.inherited(parent, overrides, path)?;
            parent.settings.remove("inherits");
            target.merge(&parent);
        }
        path.pop();
        target.merge(own);
        if let Some(overrides) = overrides.get(name) {
            target.set(overrides)?;
        }
        for (name, setting) in &mut target.settings {
            setting.tidy(name);
        }
        if target.text("network") == Some("host")
            && !target.texts("entitlements").any(|e| e == "network.host")
        {
            target.entitle(["network.host".to_owned()]);
        }
        Ok(target)
    }

    /// Adds what `name`'s contexts name as `target:OTHER`, and the order.
    fn link(
        &self,
        name: &str,
        overrides: &Overrides,
        path: &mut Vec<String>,
        resolved: &mut Resolved,
    ) -> Result<()> {
        let place = |name: &str| {
            let target = self.target(name).expect("found before");
            target.places.get("contexts").unwrap_or(&target.place).clone()
        };
        if let Some(at) = path.iter().position(|open| open == name) {
            let say = format!("these build on each other: {} -> {name}", path[at..].join(" -> "));
            return Err(Problem::new(&place(&path[path.len() - 1]), say).error(&self.files));
        }
        if resolved.order.iter().any(|done| done == name) {
            return Ok(());
        }
        path.push(name.to_owned());
        let links: Vec<String> =
            resolved.targets[name].links().map(|(_, target)| target.to_owned()).collect();
        for link in links {
            if !resolved.targets.contains_key(&link) {
                if self.target(&link).is_none() {
                    let near = did_you_mean(&link, self.targets.iter().map(|target| target.name.as_str()));
                    let say = format!("target `{name}` builds on `{link}`, which is no target");
                    let problem = Problem::new(&place(name), say).kind(Kind::NotFound);
                    return Err(problem.maybe_hint(near).error(&self.files));
                }
                let mut target = self.finished(&link, overrides)?;
                let nowhere: Entry = [("type".to_owned(), "cacheonly".into())].into_iter().collect();
                target.settings.insert("output", Setting::Entries(vec![nowhere]));
                resolved.targets.insert(link.clone(), target);
                resolved.linked.insert(link.clone());
            }
            self.link(&link, overrides, path, resolved)?;
            let other = &resolved.targets[&link];
            let entitlements: Vec<String> = other.texts("entitlements").map(str::to_owned).collect();
            let theirs: Vec<&str> = other.texts("platforms").collect();
            let ours: Vec<&str> = resolved.targets[name].texts("platforms").collect();
            let missing = ours.iter().find(|platform| !theirs.contains(platform));
            if let Some(missing) = missing.filter(|_| ours.len() > 1 && theirs.len() > 1) {
                let say = format!("target `{name}` builds on `{link}`, which is not built for {missing}");
                return Err(Problem::new(&place(name), say).error(&self.files));
            }
            resolved.targets.get_mut(name).expect("it is being linked").entitle(entitlements);
        }
        path.pop();
        resolved.order.push(name.to_owned());
        Ok(())
    }
}

/// What was asked for is the group `default`, whatever the files call so.
fn name_default(wanted: &[String], groups: &mut BTreeMap<String, Group>) {
    for name in wanted {
        if name == "default" && groups.contains_key("default") {
            continue;
        }
        let place = super::Place { file: 0, span: 0..0 };
        let new = || Group { name: "default".into(), description: String::new(), targets: Vec::new(), place };
        groups.entry("default".into()).or_insert_with(new).targets.push(name.clone());
    }
    if let Some(default) = groups.get_mut("default") {
        default.targets.sort();
        default.targets.dedup();
    }
}

/// A URL or git address: nothing of this host.
pub(super) fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/", "oci-layout://", "docker-image://"]
        .iter()
        .any(|start| context.starts_with(start))
}

impl Target {
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        match self.settings.get(field) {
            Some(Setting::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn texts(&self, field: &str) -> impl Iterator<Item = &str> {
        let texts = match self.settings.get(field) {
            Some(Setting::Texts(texts)) => texts.as_slice(),
            _ => &[],
        };
        texts.iter().map(String::as_str)
    }

    pub(super) fn flag(&self, field: &str) -> bool {
        self.settings.get(field) == Some(&Setting::Flag(true))
    }

    pub(super) fn pairs(&self, field: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = match self.settings.get(field) {
            Some(Setting::Map(map)) => Some(map),
            _ => None,
        };
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?)))
    }

    pub(super) fn entries(&self, field: &str) -> &[Entry] {
        match self.settings.get(field) {
            Some(Setting::Entries(entries)) => entries,
            _ => &[],
        }
    }

    /// Named contexts that are other targets' images.
    pub(super) fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs("contexts").filter_map(|(name, value)| Some((name, value.strip_prefix("target:")?)))
    }

    fn entitle(&mut self, more: impl IntoIterator<Item = String>) {
        let mut all: Vec<String> = self.texts("entitlements").map(str::to_owned).collect();
        for entitlement in more {
            if !all.contains(&entitlement) {
                all.push(entitlement);
            }
        }
        if !all.is_empty() {
            self.settings.insert("entitlements", Setting::Texts(all));
        }
    }
}
