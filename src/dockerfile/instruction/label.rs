//! `LABEL name=value...` and the old `LABEL name value`.

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Pair, Statement};

pub(super) static ENTRY: Entry = Entry {
    keyword: "LABEL",
    flags: &[],
    parse: |statement| Ok(Instruction::Step(Box::new(Label(statement.pairs()?)))),
};

#[derive(Debug)]
struct Label(Vec<Pair>);

impl Step for Label {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let mut told = String::from("LABEL");
        for (name, value) in stage.pairs(&self.0)? {
            told.push_str(&format!(" {name}={value}"));
            stage.config_mut().labels.get_or_insert_default().insert(name, value);
        }
        Effect::config(told)
    }
}
