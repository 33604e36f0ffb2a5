//! `USER name[:group]`: who the following steps and the container run as.

use super::{Effect, Entry, Instruction, Step, only_word};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};

pub(super) static ENTRY: Entry = Entry {
    keyword: "USER",
    flags: &[],
    parse: |statement| {
        Ok(Instruction::Step(Box::new(User(only_word(statement, "write `USER name` or `USER uid:gid`")?))))
    },
};

#[derive(Debug)]
struct User(Word);

impl Step for User {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let user = stage.word(&self.0)?;
        stage.config_mut().user.clone_from(&user);
        Effect::config(format!("USER {user}"))
    }
}
