//! NoEmptyContinuation: an empty line within an instruction.

use super::{Check, Look, Notes, Place};
use crate::dockerfile::statement::Statement;

pub(super) static CHECK: Check = Check {
    name: "NoEmptyContinuation",
    description: "An empty line between continuation lines will be an error some day",
    experimental: false,
    look: Look::Statement(look),
};

fn look(statement: &Statement, notes: &mut Notes) {
    if let Some(end) = statement.line.gap {
        let place = Place { lines: (end, end), ..Place::of(statement) };
        let message = format!("an empty line stands within the {} that ends here", statement.keyword);
        notes.note(&CHECK, &place, message);
    }
}
