//! `MAINTAINER name`: the image's author; a label does it better.

use super::{Effect, Entry, Instruction, Step, only_word};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;

pub(super) static ENTRY: Entry = Entry {
    keyword: "MAINTAINER",
    flags: &[],
    parse: |statement| {
        let name = only_word(statement, "write `MAINTAINER name`, or better a LABEL")?;
        Ok(Instruction::Step(Box::new(Maintainer(name.text))))
    },
};

#[derive(Debug)]
struct Maintainer(String);

impl Step for Maintainer {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        stage.author = Some(self.0.clone());
        Effect::config(format!("MAINTAINER {}", self.0))
    }
}
