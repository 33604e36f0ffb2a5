//! `ADD [--chown=..] [--chmod=..] SOURCE... DESTINATION`: COPY that unpacks local archives.

use super::copy::{Files, parse_files};
use super::{Effect, Entry, Instruction, Step, Takes};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;
use crate::plan::CopyFrom;

pub(super) static ENTRY: Entry = Entry {
    keyword: "ADD",
    flags: &[
        ("chown", Takes::Value),
        ("chmod", Takes::Value),
        ("link", Takes::SwitchLater),
        ("exclude", Takes::ValueLater),
        ("checksum", Takes::ValueLater),
        ("keep-git-dir", Takes::SwitchLater),
        ("unpack", Takes::SwitchLater),
    ],
    parse: |statement| Ok(Instruction::Step(Box::new(Add(parse_files(statement)?)))),
};

#[derive(Debug)]
struct Add(Files);

impl Step for Add {
    fn apply(&self, statement: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        for source in &self.0.sources {
            let text = stage.word(source)?;
            if ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
                return Err(Problem::later(source.span.clone(), "`ADD` of a URL")
                    .hint("fetch it in a RUN step, or put the file into the context"));
            }
            let scp =
                text.split_once(':').is_some_and(|(host, _)| host.starts_with("git@") && !host.contains('/'));
            if scp || ["git://", "ssh://"].iter().any(|scheme| text.starts_with(scheme)) {
                return Err(Problem::later(source.span.clone(), "`ADD` of a git repository")
                    .hint("clone it in a RUN step, or put the files into the context"));
            }
        }
        self.0.apply(statement, stage, CopyFrom::Context, true)
    }
}
