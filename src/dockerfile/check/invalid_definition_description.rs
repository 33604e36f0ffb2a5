//! InvalidDefinitionDescription: a comment right above `FROM .. AS name` or ARG that describes something else.

use super::{Check, Look, Notes, Place};
use crate::dockerfile::statement::Statement;

pub(super) static CHECK: Check = Check {
    name: "InvalidDefinitionDescription",
    description: "A comment right above a stage or an ARG describes it and begins with its name; \
                  an empty line or an empty comment between them makes it an ordinary comment",
    experimental: true,
    look: Look::Statement(look),
};

fn look(statement: &Statement, notes: &mut Notes) {
    let Some(comment) = statement.comments.last() else { return };
    let names = names(statement);
    let begins_with = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.iter().any(|name| name == begins_with) {
        return;
    }
    let name = match &names[..] {
        [name] => name,
        _ => "NAME",
    };
    let message = format!("the comment above does not begin with the name; write `# {name} what it is`");
    notes.note(&CHECK, &Place::of(statement), message);
}

/// What can be described.
fn names(statement: &Statement) -> Vec<String> {
    match statement.keyword.as_str() {
        "ARG" => {
            let words = statement.quoted_words().into_iter();
            words.map(|word| word.text.split('=').next().unwrap_or_default().to_owned()).collect()
        }
        "FROM" => match &statement.blank_separated()[..] {
            [_, _, name] => vec![name.text.to_lowercase()],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
