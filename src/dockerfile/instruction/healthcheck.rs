//! `HEALTHCHECK [options] CMD command` or `HEALTHCHECK NONE`: how to see whether a container works.

use super::command::Command;
use super::{Effect, Entry, Instruction, Step, Takes, flag};
use crate::dockerfile::go;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;
use crate::image::Healthcheck;

pub(super) static ENTRY: Entry = Entry {
    keyword: "HEALTHCHECK",
    flags: &[
        ("interval", Takes::Value),
        ("timeout", Takes::Value),
        ("start-period", Takes::Value),
        ("start-interval", Takes::Value),
        ("retries", Takes::Value),
    ],
    parse,
};

#[derive(Debug)]
struct Check(Healthcheck);

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    const FORM: &str = "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`";
    let rest = statement.rest();
    let kind_end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (kind, command) = (&rest[..kind_end], rest[kind_end..].trim());
    let test =
        match kind.to_ascii_uppercase().as_str() {
            "" => return Err(statement.needs("CMD or NONE", FORM)),
            "NONE" if command.is_empty() => vec!["NONE".to_owned()],
            "NONE" => {
                return Err(Problem::invalid(statement.rest.clone(), "HEALTHCHECK NONE takes nothing more")
                    .hint(FORM));
            }
            "CMD" => match Command::parse_text(statement, command)? {
                Command::Shell(line) if line.is_empty() => {
                    return Err(Problem::invalid(statement.rest.clone(), "a command is missing behind CMD")
                        .hint(FORM));
                }
                Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line],
                Command::Exec(words) if words.is_empty() => {
                    return Err(Problem::invalid(statement.rest.clone(), "a command is missing behind CMD")
                        .hint(FORM));
                }
                Command::Exec(words) => [vec!["CMD".to_owned()], words].concat(),
            },
            _ => {
                let span = statement.rest.start..statement.rest.start + kind_end;
                return Err(Problem::invalid(span, format!("`{kind}` is neither CMD nor NONE")).hint(FORM));
            }
        };
    if test[0] == "NONE" {
        let check = Healthcheck { test: Some(test), ..Healthcheck::default() };
        return Ok(Instruction::Step(Box::new(Check(check))));
    }
    let retries = match flag(statement, "retries") {
        None => 0,
        Some(word) => {
            word.text.parse::<i32>().ok().filter(|retries| *retries >= 0).map(i64::from).ok_or_else(|| {
                Problem::invalid(word.span, format!("`{}` is no number of retries", word.text))
                    .hint("write `--retries=3`")
            })?
        }
    };
    Ok(Instruction::Step(Box::new(Check(Healthcheck {
        test: Some(test),
        interval: time(statement, "interval")?,
        timeout: time(statement, "timeout")?,
        start_period: time(statement, "start-period")?,
        start_interval: time(statement, "start-interval")?,
        retries,
        ..Healthcheck::default()
    }))))
}

/// Nanoseconds; at least a millisecond, or 0 for the default.
fn time(statement: &Statement, name: &str) -> Result<i64, Problem> {
    let Some(word) = flag(statement, name) else { return Ok(0) };
    match go::parse_duration(&word.text) {
        None => Err(Problem::invalid(word.span, format!("`{}` is no duration", word.text))
            .hint("write a number with its unit, as in `30s`, `1m30s` or `500ms`")),
        Some(nanoseconds) if nanoseconds != 0 && nanoseconds < 1_000_000 => {
            Err(Problem::invalid(word.span, format!("`--{name}` is at least 1ms, not {}", word.text)))
        }
        Some(nanoseconds) => Ok(nanoseconds),
    }
}

impl Step for Check {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let check = &self.0;
        stage.config_mut().healthcheck = Some(check.clone());
        // Go's `%q` of the struct.
        let times = [check.interval, check.timeout, check.start_period, check.start_interval]
            .map(|time| go::quote(&go::duration(time)));
        let test = go::quoted_list(check.test.as_deref().unwrap_or_default());
        let retries = go::quoted_number(check.retries);
        Effect::config(format!("HEALTHCHECK &{{{test} {} {retries}}}", times.join(" ")))
    }
}
