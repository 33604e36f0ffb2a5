//! WorkdirRelativePath: a WORKDIR that depends on what the base image says.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "WorkdirRelativePath",
    description: "The first WORKDIR is absolute; a relative one changes with the base image",
    experimental: false,
    look: Look::Step(look),
};

fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    if seen.statement.keyword != "WORKDIR" || seen.earlier.workdir {
        return;
    }
    if let Some(path) = seen.state.peek(seen.statement.rest()).filter(|path| !path.starts_with('/')) {
        let message =
            format!("where `{path}` lies is for the base image to say; begin with an absolute WORKDIR");
        notes.note(&CHECK, seen.place, message);
    }
}
