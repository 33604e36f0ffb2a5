//! `FROM [--platform=..] BASE [AS NAME]`: begins a stage.

use super::{Entry, Instruction, Takes, flag};
use crate::dockerfile::source::Problem;
use crate::dockerfile::statement::{Statement, Word};

pub(super) static ENTRY: Entry = Entry { keyword: "FROM", flags: &[("platform", Takes::Value)], parse };

#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct From {
    pub(in crate::dockerfile) base: Word,
    pub(in crate::dockerfile) platform: Option<Word>,
    /// As written.
    pub(in crate::dockerfile) name: Option<Word>,
}

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    const FORM: &str = "write `FROM IMAGE` or `FROM IMAGE AS NAME`";
    let words = statement.blank_separated();
    let (base, name) = match &words[..] {
        [] => return Err(statement.needs("an image", FORM)),
        [base] => (base, None),
        [base, as_, name] if as_.text.eq_ignore_ascii_case("as") => (base, Some(name.clone())),
        [_, more, ..] => {
            return Err(Problem::invalid(
                more.span.start..statement.rest.end,
                "FROM takes an image, and `AS` with a name",
            )
            .hint(FORM));
        }
    };
    if let Some(name) = &name {
        let lower = name.text.to_lowercase();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !lower.starts_with(|c: char| c.is_ascii_lowercase()) || !lower.chars().all(fits) {
            return Err(Problem::invalid(
                name.span.clone(),
                format!("`{}` cannot be the name of a stage", name.text),
            )
            .hint("a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`"));
        }
    }
    Ok(Instruction::From(From { base: base.clone(), platform: flag(statement, "platform"), name }))
}
