//! MultipleInstructionsDisallowed: of several CMDs the last one counts.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "MultipleInstructionsDisallowed",
    description: "A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK; of several only the last counts",
    experimental: false,
    look: Look::Step(look),
};

/// Points at the one that does not count.
fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    let keyword = &seen.statement.keyword;
    if !["CMD", "ENTRYPOINT", "HEALTHCHECK"].contains(&keyword.as_str()) {
        return;
    }
    if let Some(place) = seen.earlier.last.get(keyword) {
        let message = format!("this {keyword} means nothing: another stands below it in the same stage");
        notes.note(&CHECK, place, message);
    }
}
