//! ExposeInvalidFormat: `EXPOSE 127.0.0.1:80:80`.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "ExposeInvalidFormat",
    description: "EXPOSE names a container's ports; addresses and ports of the host mean nothing there",
    experimental: false,
    look: Look::Step(look),
};

fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    if seen.statement.keyword != "EXPOSE" {
        return;
    }
    for port in seen.state.peek_words(seen.statement) {
        if let Some((host, container)) =
            port.rsplit_once(':').filter(|(host, _)| host.bytes().any(|byte| byte != b':'))
        {
            let message = format!("`{host}:` of `{port}` means nothing in EXPOSE; write `{container}`");
            notes.note(&CHECK, seen.place, message);
        }
    }
}
