//! ExposeProtoCasing: `EXPOSE 80/TCP`.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "ExposeProtoCasing",
    description: "The protocol of an EXPOSE is best written in small letters",
    experimental: false,
    look: Look::Step(look),
};

fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    if seen.statement.keyword != "EXPOSE" {
        return;
    }
    for port in seen.state.peek_words(seen.statement) {
        if let Some((_, protocol)) =
            port.split_once('/').filter(|(_, protocol)| *protocol != protocol.to_lowercase())
        {
            let message = format!("the protocol of `{port}` is best written `{}`", protocol.to_lowercase());
            notes.note(&CHECK, seen.place, message);
        }
    }
}
