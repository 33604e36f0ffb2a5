//! CopyIgnoredFile: what `.dockerignore` leaves out cannot be copied.

use super::{Check, Look, Notes, StepSeen};
use crate::context::ignore::{Ignore, clean};
use crate::plan::{Action, CopyFrom, Source};

pub(super) static CHECK: Check = Check {
    name: "CopyIgnoredFile",
    description: "COPY and ADD name nothing that `.dockerignore` leaves out",
    experimental: false,
    look: Look::Step(look),
};

/// Not where a `!` rule may bring back a part of it.
fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    let Some(ignore) = seen.ignore.filter(|ignore| !ignore.takes_back()) else { return };
    let Some(Action::Copy(copy)) = seen.action else { return };
    if copy.from != CopyFrom::Context {
        return;
    }
    for source in &copy.sources {
        let Source::Path(path) = source else { continue };
        if left_out(ignore, path) {
            let message =
                format!("{} names `{path}`, which the ignore file leaves out", seen.statement.keyword);
            notes.note(&CHECK, seen.place, message);
        }
    }
}

/// The context itself is left out only by a rule for everything.
fn left_out(ignore: &Ignore, path: &str) -> bool {
    match clean(path.as_bytes()).as_slice() {
        b"." | b"/" => ignore.leaves_out_all(),
        path => ignore.excluded(path, false),
    }
}
