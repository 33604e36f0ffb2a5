//! Commands in shell and JSON form, as RUN, CMD, ENTRYPOINT and HEALTHCHECK take them.

use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Json, Statement, json};

#[derive(Debug)]
pub(super) enum Command {
    /// For the stage's shell.
    Shell(String),
    /// The program and its arguments.
    Exec(Vec<String>),
}

impl Command {
    /// What begins with `[` and is no JSON is for the shell (BuildKit); JSON of other things is an error.
    pub(super) fn parse(statement: &Statement) -> Result<Command, Problem> {
        Self::parse_text(statement, statement.rest())
    }

    pub(super) fn parse_text(statement: &Statement, text: &str) -> Result<Command, Problem> {
        match json(text) {
            Some(Json::Strings(words)) => Ok(Command::Exec(words)),
            Some(Json::Mixed) => Err(statement.mixed()),
            None => Ok(Command::Shell(text.to_owned())),
        }
    }

    /// With the stage's shell before it, where it needs one.
    pub(super) fn args(&self, stage: &StageState<'_>) -> Vec<String> {
        match self {
            Command::Shell(line) => stage.in_shell(line),
            Command::Exec(words) => words.clone(),
        }
    }
}
