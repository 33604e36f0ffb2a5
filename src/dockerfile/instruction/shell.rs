//! `SHELL ["program", "flag"...]`: what the shell forms run in.

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Json, Statement};

pub(super) static ENTRY: Entry = Entry { keyword: "SHELL", flags: &[], parse };

#[derive(Debug)]
struct Shell(Vec<String>);

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    match statement.json() {
        Some(Json::Strings(words)) if !words.is_empty() => Ok(Instruction::Step(Box::new(Shell(words)))),
        Some(Json::Mixed) => Err(statement.mixed()),
        Some(Json::Strings(_)) | None => {
            Err(statement.needs("the JSON form", "write `SHELL [\"/bin/bash\", \"-c\"]`, with double quotes"))
        }
    }
}

impl Step for Shell {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        stage.config_mut().shell = Some(self.0.clone());
        Effect::config(format!("SHELL [{}]", self.0.join(" ")))
    }
}
