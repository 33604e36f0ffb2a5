//! InvalidDefaultArgInFrom: a FROM that works only with --build-arg.

use super::{Check, File, Look, Notes, Place};
use crate::dockerfile::expand::Mode;
use crate::dockerfile::stage::expand_with;
use crate::image::Reference;

pub(super) static CHECK: Check = Check {
    name: "InvalidDefaultArgInFrom",
    description: "The ARGs before the first FROM have defaults with which every FROM names an image",
    experimental: false,
    look: Look::File(look),
};

/// Stops at what cannot be expanded: that is an error by itself.
fn look(file: &File<'_>, notes: &mut Notes) {
    let Some(defaults) = file.defaults else { return };
    for stage in file.stages {
        let word = &stage.from.base;
        let Ok(expanded) = expand_with(defaults, &word.text, &word.span, file.escape, Mode::default()) else {
            return;
        };
        if expanded.text.parse::<Reference>().is_err() {
            let message = format!(
                "`{}` names no image unless --build-arg says more: `{}`; give the ARG a default",
                word.text, expanded.text
            );
            notes.note(&CHECK, &Place::of(&stage.statement), message);
        }
    }
}
