//! `ENTRYPOINT command`: what a container runs, whatever its arguments.

use super::command::Command;
use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::go;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;

pub(super) static ENTRY: Entry = Entry {
    keyword: "ENTRYPOINT",
    flags: &[],
    parse: |statement| Ok(Instruction::Step(Box::new(Entrypoint(Command::parse(statement)?)))),
};

#[derive(Debug)]
struct Entrypoint(Command);

impl Step for Entrypoint {
    /// A CMD that came with the base goes: it was meant for the base's ENTRYPOINT.
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let args = self.0.args(stage);
        let told = format!("ENTRYPOINT {}", go::quoted_list(&args));
        let keep_cmd = stage.cmd_is_ours;
        let config = stage.config_mut();
        config.entrypoint = (!args.is_empty()).then_some(args);
        if !keep_cmd {
            config.cmd = None;
        }
        Effect::config(told)
    }
}
