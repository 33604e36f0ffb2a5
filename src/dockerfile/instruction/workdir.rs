//! `WORKDIR path`: where the following steps and the container run; made where it is absent.

use super::{Effect, Entry, Instruction, Step, only_word};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};
use crate::plan::Action;

pub(super) static ENTRY: Entry = Entry {
    keyword: "WORKDIR",
    flags: &[],
    parse: |statement| {
        Ok(Instruction::Step(Box::new(Workdir(only_word(statement, "write `WORKDIR /app`")?))))
    },
};

#[derive(Debug)]
struct Workdir(Word);

impl Step for Workdir {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let path = stage.word(&self.0)?;
        let path = stage.absolute(&path);
        stage.config_mut().working_dir.clone_from(&path);
        let action = match path.as_str() {
            // Always there.
            "/" => Action::Config,
            _ => Action::Workdir { path: path.clone(), user: stage.config().user.clone() },
        };
        Ok(Effect { created_by: format!("WORKDIR {path}"), action })
    }
}
