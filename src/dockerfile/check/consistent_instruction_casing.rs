//! ConsistentInstructionCasing: `RUN` or `run`, as most of the file does.

use super::{Check, File, Look, Notes, Place};
use crate::dockerfile::statement::Statement;

pub(super) static CHECK: Check = Check {
    name: "ConsistentInstructionCasing",
    description: "Instructions are best written alike, all in capitals or all in small letters",
    experimental: false,
    look: Look::File(look),
};

/// ARGs before the first FROM are not counted (BuildKit).
fn look(file: &File<'_>, notes: &mut Notes) {
    let statements: Vec<&Statement> = file
        .stages
        .iter()
        .flat_map(|stage| {
            std::iter::once(&stage.statement).chain(stage.steps.iter().map(|(statement, _)| statement))
        })
        .collect();
    let count = |is: fn(&str) -> String| {
        statements
            .iter()
            .filter(|statement| is(statement.written_keyword()) == statement.written_keyword())
            .count()
    };
    let small = count(str::to_lowercase) > count(str::to_uppercase);
    for statement in statements {
        let written = statement.written_keyword();
        let (wanted, what) = match small {
            true => (written.to_lowercase(), "small letters"),
            false => (written.to_uppercase(), "capitals"),
        };
        if written != wanted {
            let message = format!("`{written}` stands among instructions in {what}; write `{wanted}`");
            notes.note(&CHECK, &Place::of(statement), message);
        }
    }
}
