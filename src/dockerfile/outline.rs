//! What a build can be told, and what it can make: the answers to `--call outline` and `--call targets`.

use super::check::{Notes, Place};
use super::stage::StageState;
use super::statement::{Flag, Statement};
use super::{Dockerfile, PlanOptions, Resolver, Scope, planner};
use crate::error::Result;
use crate::plan::{Base, Plan, StageId};

/// What one target can be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// Empty where the stage has none.
    pub name: String,
    /// What the comment above it says.
    pub description: String,
    pub args: Vec<OutlineArg>,
    pub secrets: Vec<OutlineMount>,
    pub ssh: Vec<OutlineMount>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OutlineArg {
    pub name: String,
    /// With what was given; `None` where there is no value.
    pub value: Option<String>,
    pub description: String,
    /// Where it is declared, from 1.
    pub lines: (usize, usize),
}

/// A secret or an agent that steps ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlineMount {
    pub name: String,
    pub required: bool,
    pub lines: (usize, usize),
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// In small letters; empty where it has none.
    pub name: String,
    /// What is built where nothing is said.
    pub default: bool,
    pub description: String,
    /// As written.
    pub base: String,
    /// As written; empty where nothing is.
    pub platform: String,
    pub lines: (usize, usize),
}

/// An ARG before the first FROM.
pub(super) struct GlobalArg {
    pub(super) name: String,
    arg: OutlineArg,
    /// Variables in its default.
    used: Vec<String>,
}

/// An argument that a stage uses.
pub(super) enum Argued {
    Own(OutlineArg),
    /// One from before the first FROM.
    Global(String),
}

impl GlobalArg {
    pub(super) fn new(statement: &Statement, name: String, value: Option<String>, used: Vec<String>) -> Self {
        let description = statement.description(&name).unwrap_or_default().to_owned();
        let arg = OutlineArg { name: name.clone(), value, description, lines: statement.line.lines };
        GlobalArg { name, arg, used }
    }
}

impl Argued {
    pub(super) fn own(statement: &Statement, place: &Place, name: String, state: &StageState<'_>) -> Self {
        let value = state.variable(&name);
        let description = statement.description(&name).unwrap_or_default().to_owned();
        Argued::Own(OutlineArg { name, value, description, lines: place.lines() })
    }
}

impl Dockerfile {
    /// Every stage, in order.
    pub fn targets(&self) -> Vec<Target> {
        let last = self.stages.len() - 1;
        let stages = self.stages.iter().enumerate();
        stages
            .map(|(number, stage)| {
                let name = stage.name().unwrap_or_default().to_lowercase();
                Target {
                    default: number == last,
                    description: stage.statement.description(&name).unwrap_or_default().to_owned(),
                    base: stage.from.base.text.clone(),
                    platform: stage.from.platform.as_ref().map_or(String::new(), |word| word.text.clone()),
                    lines: stage.statement.line.lines,
                    name,
                }
            })
            .collect()
    }

    /// What the target and all it needs can be told, by line.
    pub fn outline(&self, options: &PlanOptions, resolver: &dyn Resolver) -> Result<Outline> {
        let planned = planner::plan(self, options, resolver, Scope::default(), &mut Notes::default())?;
        let plan = &planned.plan;
        let target = self.targets().swap_remove(plan.target.0);
        let mut outline =
            Outline { name: target.name, description: target.description, ..Outline::default() };
        for stage in nearest_first(plan) {
            let mut own: Vec<OutlineArg> = Vec::new();
            let mut globals: Vec<&str> = Vec::new();
            for argued in &planned.argued[stage.0] {
                match argued {
                    // Of one name, what was said last.
                    Argued::Own(arg) => {
                        own.retain(|known| known.name != arg.name);
                        own.push(arg.clone());
                    }
                    Argued::Global(name) => globals.push(name),
                }
            }
            for name in with_what_they_use(&globals, &planned.globals) {
                let global = planned.globals.iter().rfind(|global| global.name == name);
                own.extend(global.map(|global| global.arg.clone()));
            }
            for arg in own {
                if outline.args.iter().all(|known| known.name != arg.name) {
                    outline.args.push(arg);
                }
            }
            for (statement, _) in &self.stages[stage.0].steps {
                for flag in statement.flags.iter().filter(|flag| flag.name == "mount") {
                    let (list, name, required) = match mount(flag) {
                        Some(Mount::Secret(name, required)) => (&mut outline.secrets, name, required),
                        Some(Mount::Ssh(name, required)) => (&mut outline.ssh, name, required),
                        None => continue,
                    };
                    let lines = statement.line.lines;
                    match list.iter_mut().find(|known| known.name == name) {
                        Some(known) => known.required |= required,
                        None => list.push(OutlineMount { name, required, lines }),
                    }
                }
            }
        }
        outline.args.sort_by_key(|arg| arg.lines);
        outline.secrets.sort_by_key(|mount| mount.lines);
        outline.ssh.sort_by_key(|mount| mount.lines);
        Ok(outline)
    }
}

/// The target, what it stands on, what it copies from.
fn nearest_first(plan: &Plan) -> Vec<StageId> {
    let mut found = Vec::new();
    let mut open = vec![plan.target];
    while let Some(stage) = open.pop() {
        if found.contains(&stage) {
            continue;
        }
        found.push(stage);
        open.extend(plan.stages[stage.0].uses());
        if let Base::Stage(base) = plan.stages[stage.0].base {
            open.push(base);
        }
    }
    found
}

/// The names, and those in the defaults of their ARGs, and so on.
fn with_what_they_use<'a>(names: &[&'a str], globals: &'a [GlobalArg]) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    let mut open = names.to_vec();
    while let Some(name) = open.pop() {
        if !found.contains(&name) {
            found.push(name);
            let declared = globals.iter().filter(|global| global.name == name);
            open.extend(declared.flat_map(|global| &global.used).map(String::as_str));
        }
    }
    found
}

enum Mount {
    Secret(String, bool),
    Ssh(String, bool),
}

/// `--mount=type=secret,id=..,required`.
fn mount(flag: &Flag) -> Option<Mount> {
    let value = flag.value.as_deref()?;
    let options: Vec<(String, &str)> = value
        .split(',')
        .map(|option| option.split_once('=').unwrap_or((option, "true")))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim()))
        .collect();
    let get = |names: &[&str]| {
        options.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| *value)
    };
    let required =
        get(&["required"]).is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE"));
    match get(&["type"])? {
        "secret" => {
            let from_target = || get(&["target", "dst", "destination"])?.rsplit('/').next();
            let id = get(&["id"]).or_else(from_target)?;
            Some(Mount::Secret(id.to_owned(), required))
        }
        "ssh" => Some(Mount::Ssh(get(&["id"]).unwrap_or("default").to_owned(), required)),
        _ => None,
    }
}
