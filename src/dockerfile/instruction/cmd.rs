//! `CMD command`: what a container runs, or the arguments of its ENTRYPOINT.

use super::command::Command;
use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::go;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;

pub(super) static ENTRY: Entry = Entry {
    keyword: "CMD",
    flags: &[],
    parse: |statement| Ok(Instruction::Step(Box::new(Cmd(Command::parse(statement)?)))),
};

#[derive(Debug)]
struct Cmd(Command);

impl Step for Cmd {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let args = self.0.args(stage);
        let told = format!("CMD {}", go::quoted_list(&args));
        let config = stage.config_mut();
        config.cmd = (!args.is_empty()).then_some(args);
        // Docker marks every image so since its arguments stopped needing escapes.
        config.args_escaped = true;
        stage.cmd_is_ours = true;
        Effect::config(told)
    }
}
