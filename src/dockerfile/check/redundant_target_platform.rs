//! RedundantTargetPlatform: `FROM --platform=$TARGETPLATFORM` is what FROM does anyway.

use super::{Check, FromSeen, Look, Notes, Place};

pub(super) static CHECK: Check = Check {
    name: "RedundantTargetPlatform",
    description: "FROM takes the target's platform by itself",
    experimental: false,
    look: Look::From(look),
};

fn look(seen: &FromSeen<'_>, notes: &mut Notes) {
    let (Some(platform), Some(word)) = (seen.platform, &seen.stage.from.platform) else { return };
    let alone = platform.unset.is_empty() && platform.used == ["TARGETPLATFORM"];
    if alone && seen.globals.get("TARGETPLATFORM").as_ref() == Some(&platform.text) {
        let message = format!("`--platform={}` is what FROM does by itself; leave it out", word.text);
        notes.note(&CHECK, &Place::of(&seen.stage.statement), message);
    }
}
