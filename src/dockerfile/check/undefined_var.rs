//! UndefinedVar: a variable that stands for nothing.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "UndefinedVar",
    description: "Variables are set or declared before they are used",
    experimental: false,
    look: Look::Step(look),
};

/// Not in EXPOSE, where BuildKit does not look.
fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    if seen.statement.keyword == "EXPOSE" {
        return;
    }
    let mut told: Vec<&str> = Vec::new();
    for unset in seen.unset {
        if told.contains(&unset.name.as_str()) {
            continue;
        }
        told.push(&unset.name);
        let meant = unset.meant.as_ref().map_or(String::new(), |meant| format!("; {meant}"));
        let message = format!("`${}` is not set and stands for nothing{meant}", unset.name);
        notes.note(&CHECK, seen.place, message);
    }
}
