//! JSONArgsRecommended: a shell between the container and its program.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "JSONArgsRecommended",
    description: "CMD and ENTRYPOINT in JSON form run the program itself, so that signals reach it and not a shell",
    experimental: false,
    look: Look::Step(look),
};

/// A SHELL of one's own means it.
fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    let statement = seen.statement;
    let is_one = ["CMD", "ENTRYPOINT"].contains(&statement.keyword.as_str());
    let own_shell = seen.state.config().shell.as_ref().is_some_and(|shell| !shell.is_empty());
    if !is_one || own_shell || statement.json().is_some() {
        return;
    }
    let keyword = &statement.keyword;
    let message = match statement.rest().starts_with('[') && statement.rest().ends_with(']') {
        true => format!(
            "`{}` is no JSON and goes to a shell; JSON strings stand in double quotes with commas between",
            statement.rest()
        ),
        false => format!(
            "{keyword} runs a shell that signals do not pass; write `{keyword} [\"program\", \"argument\"]`"
        ),
    };
    notes.note(&CHECK, seen.place, message);
}
