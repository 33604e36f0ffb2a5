//! StageNameCasing: a stage is found in either case, so one spelling serves.

use super::{Check, Look, Notes, Place};
use crate::dockerfile::statement::Statement;

pub(super) static CHECK: Check = Check {
    name: "StageNameCasing",
    description: "The name of a stage is best written in small letters",
    experimental: false,
    look: Look::Statement(look),
};

fn look(statement: &Statement, notes: &mut Notes) {
    if statement.keyword != "FROM" {
        return;
    }
    if let [_, _, name] = &statement.blank_separated()[..]
        && name.text != name.text.to_lowercase()
    {
        let message = format!("the stage `{}` is best called `{}`", name.text, name.text.to_lowercase());
        notes.note(&CHECK, &Place::of(statement), message);
    }
}
