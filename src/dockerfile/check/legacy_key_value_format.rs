//! LegacyKeyValueFormat: `ENV key value`.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "LegacyKeyValueFormat",
    description: "ENV and LABEL take `key=value`; the form with a blank is an old one",
    experimental: false,
    look: Look::Step(look),
};

fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    let keyword = &seen.statement.keyword;
    if !["ENV", "LABEL"].contains(&keyword.as_str()) {
        return;
    }
    if let Some(first) = seen.statement.quoted_words().first().filter(|word| !word.text.contains('=')) {
        let message =
            format!("`{keyword} {0} value` is an old form; write `{keyword} {0}=value`", first.text);
        notes.note(&CHECK, seen.place, message);
    }
}
