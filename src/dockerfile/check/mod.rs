//! The checks of a Dockerfile, by BuildKit's names: one per file, and the table of them.
//!
//! To add one: its file, its `mod` line and its line in `TABLE`. A check is pure: it is shown a part of the file and
//! notes what it finds; what was asked for (`# check=..`) is looked at afterwards, in one place.

mod asked;
mod consistent_instruction_casing;
mod copy_ignored_file;
mod duplicate_stage_name;
mod expose_invalid_format;
mod expose_proto_casing;
mod from_as_casing;
mod from_platform_flag_const_disallowed;
mod invalid_base_image_platform;
mod invalid_default_arg_in_from;
mod invalid_definition_description;
mod json_args_recommended;
mod legacy_key_value_format;
mod maintainer_deprecated;
mod multiple_instructions_disallowed;
mod no_empty_continuation;
mod redundant_target_platform;
mod reserved_stage_name;
mod secrets_used_in_arg_or_env;
mod stage_name_casing;
mod undefined_arg_in_from;
mod undefined_var;
mod workdir_relative_path;

use std::collections::HashMap;

pub(super) use asked::Asked;

use super::StageText;
use super::expand::Expansion;
use super::stage::{StageState, Unset, Variables};
use super::statement::Statement;
use crate::context::ignore::Ignore;
use crate::image::{ImageConfig, Platform};
use crate::plan::Action;

static TABLE: &[&Check] = &[
    &consistent_instruction_casing::CHECK,
    &copy_ignored_file::CHECK,
    &duplicate_stage_name::CHECK,
    &expose_invalid_format::CHECK,
    &expose_proto_casing::CHECK,
    &from_as_casing::CHECK,
    &from_platform_flag_const_disallowed::CHECK,
    &invalid_base_image_platform::CHECK,
    &invalid_default_arg_in_from::CHECK,
    &invalid_definition_description::CHECK,
    &json_args_recommended::CHECK,
    &legacy_key_value_format::CHECK,
    &maintainer_deprecated::CHECK,
    &multiple_instructions_disallowed::CHECK,
    &no_empty_continuation::CHECK,
    &redundant_target_platform::CHECK,
    &reserved_stage_name::CHECK,
    &secrets_used_in_arg_or_env::CHECK,
    &stage_name_casing::CHECK,
    &undefined_arg_in_from::CHECK,
    &undefined_var::CHECK,
    &workdir_relative_path::CHECK,
];

/// A line of the table.
#[derive(Debug)]
pub struct Check {
    /// What `skip=` names.
    pub name: &'static str,
    /// What it is about, whatever was found.
    pub description: &'static str,
    /// Only where `experimental=` asks for it.
    pub experimental: bool,
    look: Look,
}

/// What a check looks at, and when.
#[derive(Debug)]
enum Look {
    /// Every instruction as it is read, so that errors further down do not hide it.
    Statement(fn(&Statement, &mut Notes)),
    /// The whole file, once it is well formed.
    File(fn(&File<'_>, &mut Notes)),
    /// Every FROM with its variables expanded.
    From(fn(&FromSeen<'_>, &mut Notes)),
    /// A base image that was looked up.
    Base(fn(&BaseSeen<'_>, &mut Notes)),
    /// Every instruction of a stage that is gone through, in order.
    Step(fn(&StepSeen<'_>, &mut Notes)),
}

pub(super) struct File<'a> {
    pub(super) stages: &'a [StageText],
    /// What FROM sees where no build argument is given; `None` where that cannot be told.
    pub(super) defaults: Option<&'a Variables>,
    pub(super) escape: char,
}

pub(super) struct FromSeen<'a> {
    pub(super) stage: &'a StageText,
    pub(super) base: &'a Expansion,
    pub(super) platform: Option<&'a Expansion>,
    /// Names that FROM may use: given, declared or predefined.
    pub(super) declared: &'a [&'a str],
    pub(super) globals: &'a Variables,
}

pub(super) struct BaseSeen<'a> {
    pub(super) statement: &'a Statement,
    pub(super) name: &'a str,
    pub(super) wanted: &'a Platform,
    pub(super) image: &'a ImageConfig,
}

pub(super) struct StepSeen<'a> {
    pub(super) statement: &'a Statement,
    /// Where to point: a trigger stands in no line of this file, its FROM does.
    pub(super) place: &'a Place,
    /// What is to be done; `None` where the step fails.
    pub(super) action: Option<&'a Action>,
    /// Once the step is done.
    pub(super) state: &'a StageState<'a>,
    /// Used in it and not set.
    pub(super) unset: &'a [Unset],
    pub(super) earlier: &'a Earlier,
    pub(super) ignore: Option<&'a Ignore>,
}

/// What stood in a stage before a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Earlier {
    /// Where an instruction stands last, by keyword.
    last: HashMap<String, Place>,
    /// A WORKDIR stands above, here or in a stage below this one.
    workdir: bool,
}

impl Earlier {
    pub(super) fn on(base: &Earlier) -> Earlier {
        Earlier { last: HashMap::new(), workdir: base.workdir }
    }
    pub(super) fn add(&mut self, statement: &Statement, place: Place) {
        self.workdir |= statement.keyword == "WORKDIR";
        self.last.insert(statement.keyword.clone(), place);
    }
}

/// Where something was found, and what the comments right above it ask for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    lines: (usize, usize),
    asked: Asked,
}

impl Place {
    pub(super) fn of(statement: &Statement) -> Place {
        Place { lines: statement.line.lines, asked: Asked::above(&statement.comments) }
    }
    /// From 1.
    pub(super) fn lines(&self) -> (usize, usize) {
        self.lines
    }
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Finding {
    pub check: &'static Check,
    /// What is there, and what to do.
    pub message: String,
    /// First and last line, from 1.
    pub lines: (usize, usize),
}

/// One line of a list: which check, what, where.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (line {})", self.check.name, self.message, self.lines.0)
    }
}

/// What was noted, wanted or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Vec<(Place, &'static Check, String)>);

impl Notes {
    fn note(&mut self, check: &'static Check, place: &Place, message: impl Into<String>) {
        self.0.push((place.clone(), check, message.into()));
    }

    /// What was asked for, by line, and whether that fails the build.
    pub(super) fn findings(&self, asked: &Asked) -> (Vec<Finding>, bool) {
        let wanted = |place: &Place, check: &Check| match check.experimental {
            true => asked.experimental.holds(check.name) || place.asked.experimental.holds(check.name),
            false => !asked.skip.holds(check.name) && !place.asked.skip.holds(check.name),
        };
        let kept = self.0.iter().filter(|(place, check, _)| wanted(place, check));
        let fails = kept.clone().any(|(place, ..)| asked.error || place.asked.error);
        let mut findings: Vec<Finding> = kept
            .map(|(place, check, message)| Finding { check, message: message.clone(), lines: place.lines })
            .collect();
        findings.sort_by_key(|finding| finding.lines);
        (findings, fails)
    }
}

macro_rules! look {
    ($name:ident, $kind:ident, $seen:ty) => {
        pub(super) fn $name(seen: $seen, notes: &mut Notes) {
            for check in TABLE {
                if let Look::$kind(look) = &check.look {
                    look(seen, notes);
                }
            }
        }
    };
}

look!(statement, Statement, &Statement);
look!(file, File, &File<'_>);
look!(from, From, &FromSeen<'_>);
look!(base, Base, &BaseSeen<'_>);
look!(step, Step, &StepSeen<'_>);

/// All checks, by name.
pub fn all() -> impl Iterator<Item = &'static Check> {
    TABLE.iter().copied()
}
