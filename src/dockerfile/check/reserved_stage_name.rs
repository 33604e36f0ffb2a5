//! ReservedStageName: names that mean something else.

use super::{Check, File, Look, Notes, Place};

pub(super) static CHECK: Check = Check {
    name: "ReservedStageName",
    description: "`scratch` and `context` mean something already and are no names for a stage",
    experimental: false,
    look: Look::File(look),
};

fn look(file: &File<'_>, notes: &mut Notes) {
    for stage in file.stages {
        let Some(name) = stage.name() else { continue };
        if ["scratch", "context"].contains(&&*name.to_lowercase()) {
            let message = format!("a stage cannot well be called `{name}`, which is reserved");
            notes.note(&CHECK, &Place::of(&stage.statement), message);
        }
    }
}
