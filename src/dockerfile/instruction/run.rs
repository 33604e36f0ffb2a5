//! `RUN [--network=..] command`: executes in the stage so far; what it changes is a layer.

use super::command::Command;
use super::{Effect, Entry, Instruction, Step, Takes, flag};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::nearest::did_you_mean;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::Statement;
use crate::plan::{self, Action, InlineFile, Network};

pub(super) static ENTRY: Entry = Entry {
    keyword: "RUN",
    flags: &[
        ("network", Takes::Value),
        ("mount", Takes::ValueLater),
        ("security", Takes::ValueLater),
        ("device", Takes::ValueLater),
    ],
    parse,
};

/// Where a here-document with a shebang stands while it runs (BuildKit).
const SCRIPTS: &str = "/dev/pipes";

#[derive(Debug)]
struct Run {
    command: Command,
    script: Option<InlineFile>,
    network: Option<Network>,
}

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    if statement.rest().is_empty() {
        return Err(statement.needs("a command", "write `RUN make`"));
    }
    let network = match flag(statement, "network") {
        None => None,
        Some(word) => Some(match word.text.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => {
                return Err(Problem::invalid(word.span, format!("`{other}` is no network of a RUN")).hint(
                    did_you_mean(other, ["default", "none", "host"])
                        .unwrap_or_else(|| "write `default`, `none` or `host`".into()),
                ));
            }
        }),
    };
    let (command, script) = command(statement)?;
    if matches!(&command, Command::Exec(words) if words.is_empty()) {
        return Err(Problem::invalid(statement.rest.clone(), "the list names no program")
            .hint("write `RUN [\"program\", \"argument\"]`"));
    }
    Ok(Instruction::Step(Box::new(Run { command, script, network })))
}

/// A here-document alone is the script; with anything beside it, it is the shell's own.
fn command(statement: &Statement) -> Result<(Command, Option<InlineFile>), Problem> {
    let Some(first) = statement.heredocs.first() else { return Ok((Command::parse(statement)?, None)) };
    let alone = matches!(Heredoc::open(statement.rest()), Ok(Some(_)));
    if !alone {
        let mut line = statement.rest().to_owned();
        for heredoc in &statement.heredocs {
            line.push('\n');
            line.push_str(&heredoc.body);
            line.push_str(&heredoc.name);
        }
        return Ok((Command::Shell(line), None));
    }
    let content = first.content();
    if !content.starts_with("#!") {
        return Ok((Command::Shell(content), None));
    }
    let path = format!("{SCRIPTS}/{}", first.name);
    let script = InlineFile { path: path.clone().into(), bytes: content.into_bytes(), mode: 0o755 };
    Ok((Command::Shell(path), Some(script)))
}

impl Step for Run {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let args = self.command.args(stage);
        let created_by = format!("RUN {}{}", stage.declared(), args.join(" "));
        let run = plan::Run {
            args,
            env: stage.env(),
            hidden_env: stage.hidden_env(),
            user: stage.config().user.clone(),
            working_dir: stage.config().working_dir.clone(),
            network: self.network.unwrap_or(stage.options.network),
            files: self.script.iter().cloned().collect(),
        };
        Ok(Effect { created_by, action: Action::Run(run) })
    }
}
