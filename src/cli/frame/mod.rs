//! What all verbs share: the tree of commands, the context they are given, signals, output, errors.

mod complain;
mod context;
mod out;
mod parse;
mod signals;
mod verb;

use std::process::ExitCode;

use outcrop::error::{Kind, Result};

pub(crate) use complain::{colours, print as complain};
pub(crate) use context::{Context, Globals};
pub(crate) use out::{Out, WRITING};
pub(crate) use verb::{Entry, Verb};

/// The whole program behind `main`: parse, run, say what went wrong, exit code.
pub(crate) fn main() -> ExitCode {
    let parsed = match parse::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(end) => return end.finish(),
    };
    let failure = parsed.entry.failure;
    match start(parsed) {
        Ok(code) => code,
        Err(error) if out::reader_is_gone(&error) => ExitCode::from(128 + 13),
        Err(error) => {
            complain(&error);
            ExitCode::from(match error.kind() {
                Kind::Cancelled => 128 + 2,
                _ => failure,
            })
        }
    }
}

fn start(parsed: parse::Parsed) -> Result<ExitCode> {
    parsed.globals.start_log();
    tracing::debug!(verb = parsed.invoked, "begins");
    let context = Context::new(parsed.globals);
    (parsed.entry.run)(&parsed.matches, &context)
}
