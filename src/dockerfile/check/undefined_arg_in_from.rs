//! UndefinedArgInFrom: a variable in FROM that no ARG before the first FROM declares.

use super::{Check, FromSeen, Look, Notes, Place};
use crate::dockerfile::nearest::did_you_mean;

pub(super) static CHECK: Check = Check {
    name: "UndefinedArgInFrom",
    description: "Variables in FROM are declared by an ARG before the first FROM",
    experimental: false,
    look: Look::From(look),
};

fn look(seen: &FromSeen<'_>, notes: &mut Notes) {
    for words in [Some(seen.base), seen.platform].into_iter().flatten() {
        let mut told: Vec<&String> = Vec::new();
        for name in &words.unset {
            if seen.declared.contains(&name.as_str()) || told.contains(&name) {
                continue;
            }
            told.push(name);
            let meant = did_you_mean(name, seen.declared.iter().copied());
            let meant = meant.map_or(String::new(), |meant| format!("; {meant}"));
            let message = format!("no ARG before the first FROM declares `{name}`{meant}");
            notes.note(&CHECK, &Place::of(&seen.stage.statement), message);
        }
    }
}
