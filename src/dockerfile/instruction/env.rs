//! `ENV NAME=value...` and the old `ENV NAME value`.

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Pair, Statement};

pub(super) static ENTRY: Entry = Entry {
    keyword: "ENV",
    flags: &[],
    parse: |statement| Ok(Instruction::Step(Box::new(Env(statement.pairs()?)))),
};

#[derive(Debug)]
struct Env(Vec<Pair>);

impl Step for Env {
    /// All values are expanded before the first is set.
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let mut told = String::from("ENV");
        for (name, value) in stage.pairs(&self.0)? {
            told.push_str(&format!(" {name}={value}"));
            stage.set_env(&name, &value);
        }
        Effect::config(told)
    }
}
