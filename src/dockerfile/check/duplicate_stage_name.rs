//! DuplicateStageName: two stages of one name.

use super::{Check, File, Look, Notes, Place};

pub(super) static CHECK: Check = Check {
    name: "DuplicateStageName",
    description: "Every stage has a name of its own",
    experimental: false,
    look: Look::File(look),
};

fn look(file: &File<'_>, notes: &mut Notes) {
    let mut names: Vec<String> = Vec::new();
    for stage in file.stages {
        let Some(name) = stage.name() else { continue };
        let small = name.to_lowercase();
        if names.contains(&small) {
            let message = format!("there is a stage `{name}` above already; below, the name means this one");
            notes.note(&CHECK, &Place::of(&stage.statement), message);
        }
        names.push(small);
    }
}
