//! `ARG NAME[=default]...`: variables of the build alone.

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};

pub(super) static ENTRY: Entry = Entry { keyword: "ARG", flags: &[], parse };

#[derive(Debug)]
pub(in crate::dockerfile) struct Argument {
    pub(in crate::dockerfile) name: String,
    pub(in crate::dockerfile) default: Option<Word>,
}

#[derive(Debug)]
struct Arg(Vec<Argument>);

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    let mut arguments = Vec::new();
    for word in statement.quoted_words() {
        let (name, default) = match word.text.split_once('=') {
            Some((name, value)) => {
                (name.to_owned(), Some(Word { text: value.to_owned(), span: word.span.clone() }))
            }
            None => (word.text.clone(), None),
        };
        if name.is_empty() {
            return Err(Problem::invalid(word.span, "a name is missing before the `=`")
                .hint("write `ARG NAME=default`"));
        }
        arguments.push(Argument { name, default });
    }
    if arguments.is_empty() {
        return Err(statement.needs("at least one name", "write `ARG NAME` or `ARG NAME=default`"));
    }
    Ok(Instruction::Step(Box::new(Arg(arguments))))
}

impl Step for Arg {
    /// A value given with --build-arg, else the default, else the value of the ARG before the first FROM.
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let mut told = String::from("ARG");
        for argument in &self.0 {
            let value = match (stage.options.build_args.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(stage.word(default)?),
                (None, None) => stage.global(&argument.name),
            };
            told.push(' ');
            told.push_str(&argument.name);
            if let Some(value) = &value {
                told.push('=');
                told.push_str(value);
            }
            stage.declare(&argument.name, value);
        }
        Effect::config(told)
    }

    fn arguments(&self) -> Option<&[Argument]> {
        Some(&self.0)
    }
}
