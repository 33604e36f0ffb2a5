//! Bake files, as those of `docker buildx bake`: texts and variables in, targets out. Nothing is read and nothing built.

mod arguments;
mod eval;
mod fields;
mod functions;
mod overrides;
mod print;
mod resolve;
mod source;
mod syntax;
#[cfg(test)]
mod tests;
mod value;
mod world;

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::error::{Error, Result};
use fields::{Setting, field};
use source::{Place, Problem};
use world::World;

pub use arguments::Request;
pub use print::escape_json;
pub use resolve::Resolved;
pub use source::File;
pub use world::Variable;

/// What is looked for where no file is named, in the order they are merged.
pub const DEFAULT_FILES: [&str; 4] =
    ["docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl"];

/// Compose files, which buildx reads too, and before those.
pub const COMPOSE_FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// What an evaluation may know of its surroundings.
pub struct Settings<'s> {
    /// A variable of the command line or the environment.
    pub lookup: &'s dyn Fn(&str) -> Option<String>,
    /// `BAKE_LOCAL_PLATFORM`
    pub platform: String,
    pub home: String,
    pub now: OffsetDateTime,
}

/// What some files say together.
#[derive(Debug)]
pub struct Bake {
    files: Vec<File>,
    pub variables: Vec<Variable>,
    groups: Vec<Group>,
    targets: Vec<Target>,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    description: String,
    targets: Vec<String>,
    place: Place,
}

#[derive(Clone, Debug)]
struct Target {
    name: String,
    place: Place,
    settings: BTreeMap<&'static str, Setting>,
    /// Where each of them was last set.
    places: BTreeMap<&'static str, Place>,
}

impl Target {
    fn merge(&mut self, later: &Target) {
        for (name, setting) in &later.settings {
            let field = field(name).expect("settings have the names of fields");
            match self.settings.get_mut(name) {
                Some(old) => old.merge(setting.clone(), field.2),
                None => drop(self.settings.insert(field.0, setting.clone())),
            }
        }
        self.places.extend(later.places.iter().map(|(name, place)| (*name, place.clone())));
    }
}

impl Bake {
    /// Errors show file, line and caret.
    pub fn read(files: Vec<File>, settings: &Settings<'_>) -> Result<Bake> {
        if let Some(file) = files.iter().find(|file| is_yaml(&file.name)) {
            return Err(Error::unsupported(format!(
                "`{}` is a compose file, which this version does not read",
                file.name
            ))
            .hint("write its services as targets of a docker-bake.hcl"));
        }
        let read = read(&files, settings);
        let (variables, groups, targets) = read.map_err(|problem| problem.error(&files))?;
        Ok(Bake { files, variables, groups, targets })
    }

    fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter().map(|group| group.name.as_str());
        groups.chain(self.targets.iter().map(|target| target.name.as_str()))
    }

    /// Name, description and whether it is a group; by name, without those that begin with `_`.
    pub fn list(&self) -> Vec<(String, String, bool)> {
        let said = |target: &Target| match target.settings.get("description") {
            Some(Setting::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let mut list: Vec<_> =
            self.targets.iter().map(|target| (target.name.clone(), said(target), false)).collect();
        for group in &self.groups {
            let description = match group.description.as_str() {
                "" => group.targets.join(", "),
                text => text.to_owned(),
            };
            list.push((group.name.clone(), description, true));
        }
        list.retain(|(name, ..)| !name.starts_with('_'));
        list.sort();
        list
    }
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

type Parts = (Vec<Variable>, Vec<Group>, Vec<Target>);

fn read(files: &[File], settings: &Settings<'_>) -> Result<Parts, Problem> {
    let bodies: Vec<syntax::Body> =
        files.iter().enumerate().map(|(at, file)| syntax::parse(at, file)).collect::<Result<_, Problem>>()?;
    let world = World::new(&bodies, settings);
    let variables = world.check()?;
    let mut groups: Vec<Group> = Vec::new();
    for block in &world.groups {
        let (description, targets) = world.group(block)?;
        let group = Group { name: block.label.clone(), description, targets, place: block.place.clone() };
        // A later group of the same name is instead of the earlier.
        match groups.iter_mut().find(|other| other.name == group.name) {
            Some(earlier) => *earlier = group,
            None => groups.push(group),
        }
    }
    let mut targets: Vec<Target> = Vec::new();
    for block in &world.targets {
        let instances = world.instances(block)?;
        let names: Vec<String> = instances.iter().map(|instance| instance.name.clone()).collect();
        for instance in instances {
            let mut target = Target {
                name: instance.name.clone(),
                place: block.place.clone(),
                settings: BTreeMap::new(),
                places: BTreeMap::new(),
            };
            for (name, place, setting) in world.fields(&instance)? {
                target.settings.insert(name, setting);
                target.places.insert(name, place);
            }
            match targets.iter_mut().find(|other| other.name == target.name) {
                Some(earlier) => earlier.merge(&target),
                None => targets.push(target),
            }
        }
        if names != [block.label.as_str()] && !names.is_empty() {
            let place = block.place.clone();
            let label = block.label.clone();
            match groups.iter_mut().find(|group| group.name == label) {
                Some(group) => {
                    let new = names.into_iter().filter(|name| !group.targets.contains(name));
                    let new: Vec<String> = new.collect();
                    group.targets.extend(new);
                }
                None => groups.push(Group { name: label, description: String::new(), targets: names, place }),
            }
        }
    }
    Ok((variables, groups, targets))
}
