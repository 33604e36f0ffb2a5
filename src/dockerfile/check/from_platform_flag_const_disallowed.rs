//! FromPlatformFlagConstDisallowed: a FROM that builds for one platform whatever is asked for.

use super::{Check, FromSeen, Look, Notes, Place};
use crate::image::Platform;

pub(super) static CHECK: Check = Check {
    name: "FromPlatformFlagConstDisallowed",
    description: "FROM --platform is best given a variable, not one platform",
    experimental: false,
    look: Look::From(look),
};

/// A stage that carries the platform in its name means it.
fn look(seen: &FromSeen<'_>, notes: &mut Notes) {
    let Some(words) = seen.platform.filter(|words| words.used.is_empty() && words.unset.is_empty()) else {
        return;
    };
    let Ok(platform) = words.text.parse::<Platform>() else { return };
    let name = seen.stage.name().unwrap_or_default().to_lowercase();
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return;
    }
    let message = format!(
        "`--platform={}` holds whatever platform is built for; use a variable such as `$BUILDPLATFORM`, \
         or name the stage after it",
        words.text
    );
    notes.note(&CHECK, &Place::of(&seen.stage.statement), message);
}
