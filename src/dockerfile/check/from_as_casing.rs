//! FromAsCasing: `FROM x AS y` or `from x as y`.

use super::{Check, Look, Notes, Place};
use crate::dockerfile::statement::Statement;

pub(super) static CHECK: Check = Check {
    name: "FromAsCasing",
    description: "FROM and its AS are best written alike, both in capitals or both in small letters",
    experimental: false,
    look: Look::Statement(look),
};

/// A `From` that is neither is said by another check.
fn look(statement: &Statement, notes: &mut Notes) {
    let from = statement.written_keyword();
    let words = statement.blank_separated();
    let (true, Some(word)) = (statement.keyword == "FROM" && words.len() > 2, words.get(1)) else { return };
    let wanted = match from {
        _ if from == from.to_lowercase() => word.text.to_lowercase(),
        _ if from == from.to_uppercase() => word.text.to_uppercase(),
        _ => return,
    };
    if word.text != wanted {
        let message = format!("`{}` stands with `{from}`; write `{wanted}`", word.text);
        notes.note(&CHECK, &Place::of(statement), message);
    }
}
