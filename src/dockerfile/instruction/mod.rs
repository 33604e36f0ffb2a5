//! The instructions: one per file, and the table of them.
//!
//! To add one: its file, its `mod` line and its line in `TABLE`.

mod add;
mod arg;
mod cmd;
mod command;
mod copy;
mod entrypoint;
mod env;
mod expose;
mod from;
mod healthcheck;
mod label;
mod maintainer;
mod onbuild;
mod run;
mod run_mount;
mod shell;
mod stopsignal;
mod user;
mod volume;
mod workdir;

use std::fmt;

pub(super) use add::{keeps_git_dir, remote};
pub(super) use arg::Argument;
pub(super) use from::From;

use super::nearest::did_you_mean;
use super::source::Problem;
use super::stage::{Names, StageState};
use super::statement::{Statement, Word};
use crate::plan::{Action, CopyFrom};

static TABLE: &[&Entry] = &[
    &add::ENTRY,
    &arg::ENTRY,
    &cmd::ENTRY,
    &copy::ENTRY,
    &entrypoint::ENTRY,
    &env::ENTRY,
    &expose::ENTRY,
    &from::ENTRY,
    &healthcheck::ENTRY,
    &label::ENTRY,
    &maintainer::ENTRY,
    &onbuild::ENTRY,
    &run::ENTRY,
    &shell::ENTRY,
    &stopsignal::ENTRY,
    &user::ENTRY,
    &volume::ENTRY,
    &workdir::ENTRY,
];

/// A line of the table.
pub(super) struct Entry {
    keyword: &'static str,
    flags: &'static [(&'static str, Takes)],
    parse: fn(&Statement) -> Result<Instruction, Problem>,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Value,
    /// A value, in a later version.
    ValueLater,
    /// Nothing, `true` or `false`.
    Switch,
}

#[derive(Debug)]
pub(super) enum Instruction {
    /// Begins a stage.
    From(From),
    /// Works on the stage it stands in.
    Step(Box<dyn Step>),
}

/// What an instruction does to its stage. Pure: everything it needs is in the stage, what it wants done is in
/// the answer. Asked once for each time the instruction stands in a needed stage, in order.
pub(super) trait Step: fmt::Debug + Send + Sync {
    fn apply(&self, statement: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem>;

    /// ARG's names: it may stand before the first FROM.
    fn arguments(&self) -> Option<&[Argument]> {
        None
    }
    /// ONBUILD's instruction, as text.
    fn trigger(&self) -> Option<&str> {
        None
    }
    /// The stages and images that files come from, where it stands in stage `number`.
    fn copies_from(&self, names: &Names, number: usize) -> Result<Vec<CopyFrom>, Problem> {
        let (_none, _needed) = (names, number);
        Ok(Vec::new())
    }
}

/// What is left to do, and how history tells it.
pub(super) struct Effect {
    pub(super) created_by: String,
    pub(super) action: Action,
}

impl Effect {
    fn config(created_by: impl Into<String>) -> Result<Effect, Problem> {
        Ok(Effect { created_by: created_by.into(), action: Action::Config })
    }
}

/// Knows the keyword, checks the flags, reads the rest.
pub(super) fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    let Some(entry) = TABLE.iter().find(|entry| entry.keyword == statement.keyword) else {
        let written = &statement.line.text[statement.keyword_span.clone()];
        return Err(Problem::invalid(
            statement.keyword_span.clone(),
            format!("unknown instruction `{written}`"),
        )
        .maybe_hint(did_you_mean(written, TABLE.iter().map(|entry| entry.keyword)).or_else(|| {
            let words = TABLE.iter().map(|entry| entry.keyword).collect::<Vec<_>>().join(" ");
            Some(format!("the instructions are {words}"))
        })));
    };
    check_flags(entry, statement)?;
    (entry.parse)(statement)
}

fn check_flags(entry: &Entry, statement: &Statement) -> Result<(), Problem> {
    for flag in &statement.flags {
        let name = &flag.name;
        let invalid = |message: String| Problem::invalid(flag.span.clone(), message);
        let Some((_, takes)) = entry.flags.iter().find(|(known, _)| known == name) else {
            let known = entry.flags.iter().map(|(known, _)| *known);
            let hint = match nearest_flag(name, known.clone()) {
                Some(hint) => hint,
                None if entry.flags.is_empty() => format!("{} takes no flags", entry.keyword),
                None => {
                    let known: Vec<_> = known.map(|known| format!("--{known}")).collect();
                    format!("{} takes {}", entry.keyword, known.join(" "))
                }
            };
            return Err(invalid(format!("unknown flag `--{name}`")).hint(hint));
        };
        match (takes, flag.value.as_deref()) {
            (Takes::Value | Takes::ValueLater, None) => {
                return Err(invalid(format!("`--{name}` has no value"))
                    .hint(format!("write `--{name}=value`, without a blank")));
            }
            (Takes::Switch, Some(value)) if !["true", "false"].contains(&&*value.to_ascii_lowercase()) => {
                return Err(invalid(format!("`--{name}` is `true` or `false`, not `{value}`")));
            }
            (Takes::Value | Takes::ValueLater | Takes::Switch, _) => {}
        }
    }
    Ok(())
}

/// The first flag that this version knows and cannot do. Asked only for steps that are going to be done.
pub(super) fn unsupported(statement: &Statement) -> Option<Problem> {
    let entry = TABLE.iter().find(|entry| entry.keyword == statement.keyword)?;
    let flag = statement.flags.iter().find(|flag| {
        entry.flags.iter().any(|(known, takes)| {
            *known == flag.name
                && match takes {
                    Takes::Value | Takes::Switch => false,
                    Takes::ValueLater => true,
                }
        })
    })?;
    Some(Problem::later(flag.span.clone(), &format!("`{} --{}`", entry.keyword, flag.name)))
}

fn nearest_flag<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    super::nearest::nearest(name, known).map(|known| format!("did you mean `--{known}`?"))
}

/// A flag's value as a word, with its place; an empty one (`--from=`) is none, as in BuildKit.
fn flag(statement: &Statement, name: &str) -> Option<Word> {
    let flag = statement.flags.iter().find(|flag| flag.name == name)?;
    let value = flag.value.clone().filter(|value| !value.is_empty())?;
    Some(Word { text: value, span: flag.span.clone() })
}

/// Whether a flag that takes nothing, `true` or `false` is given, and not as `false`.
fn switch(statement: &Statement, name: &str) -> bool {
    let flag = statement.flags.iter().find(|flag| flag.name == name);
    flag.is_some_and(|flag| flag.value.as_ref().is_none_or(|value| !value.eq_ignore_ascii_case("false")))
}

/// What follows as one word, blanks and all.
fn only_word(statement: &Statement, hint: &str) -> Result<Word, Problem> {
    if statement.rest().is_empty() {
        return Err(statement.needs("an argument", hint));
    }
    Ok(Word { text: statement.rest().to_owned(), span: statement.rest.clone() })
}
