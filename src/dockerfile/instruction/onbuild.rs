//! `ONBUILD instruction`: runs first in whatever is built from this image.

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;

pub(super) static ENTRY: Entry = Entry { keyword: "ONBUILD", flags: &[], parse };

/// The instruction as text, its here-documents with it.
#[derive(Debug)]
struct Onbuild(String);

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    let nested = statement.nested()?;
    match nested.keyword.as_str() {
        "" => return Err(statement.needs("an instruction", "write `ONBUILD RUN make`")),
        keyword @ ("ONBUILD" | "FROM" | "MAINTAINER") => {
            return Err(Problem::invalid(
                nested.keyword_span.clone(),
                format!("{keyword} cannot be a trigger of ONBUILD"),
            )
            .hint("ONBUILD takes every instruction but ONBUILD, FROM and MAINTAINER"));
        }
        _ => {}
    }
    super::parse(&nested)?;
    let mut text = nested.text().to_owned();
    for heredoc in &statement.heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
    }
    Ok(Instruction::Step(Box::new(Onbuild(text))))
}

impl Step for Onbuild {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        stage.config_mut().on_build.get_or_insert_default().push(self.0.clone());
        Effect::config(format!("ONBUILD {}", self.0))
    }

    fn trigger(&self) -> Option<&str> {
        Some(&self.0)
    }
}
