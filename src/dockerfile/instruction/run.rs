//! `RUN [--network=..] [--security=..] [--mount=..]... command`: executes in the stage so far; what it changes is a layer.

use super::command::Command;
use super::run_mount::{self, Written};
use super::{Effect, Entry, Instruction, Step, Takes, flag};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::nearest::did_you_mean;
use crate::dockerfile::source::{Problem, Span};
use crate::dockerfile::stage::{Names, StageState};
use crate::dockerfile::statement::Statement;
use crate::error::Kind;
use crate::plan::{self, Action, CopyFrom, InlineFile, Mount, Network, Security};

pub(super) static ENTRY: Entry = Entry {
    keyword: "RUN",
    flags: &[
        ("network", Takes::Value),
        ("mount", Takes::Value),
        ("security", Takes::Value),
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
    /// With its place, where it is not the sandbox.
    insecure: Option<Span>,
    mounts: Vec<Written>,
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
    let mounts = run_mount::read_all(statement)?;
    let insecure = insecure(statement)?;
    let (command, script) = command(statement)?;
    if matches!(&command, Command::Exec(words) if words.is_empty()) {
        return Err(Problem::invalid(statement.rest.clone(), "the list names no program")
            .hint("write `RUN [\"program\", \"argument\"]`"));
    }
    Ok(Instruction::Step(Box::new(Run { command, script, network, insecure, mounts })))
}

fn insecure(statement: &Statement) -> Result<Option<Span>, Problem> {
    let Some(word) = flag(statement, "security") else { return Ok(None) };
    match word.text.as_str() {
        "sandbox" => Ok(None),
        "insecure" => Ok(Some(word.span)),
        other => Err(Problem::invalid(word.span, format!("`{other}` is no security of a RUN")).hint(
            did_you_mean(other, ["sandbox", "insecure"])
                .unwrap_or_else(|| "write `sandbox` or `insecure`".into()),
        )),
    }
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

fn hostname(statement: &Statement, stage: &StageState<'_>) -> Result<Option<String>, Problem> {
    const NAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
    let Some(given) = stage.options.build_args.get(NAME).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    // Linux, HOST_NAME_MAX.
    if given.len() > 64 || !given.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("the build argument {NAME} is `{given}`, which is no host name");
        return Err(Problem::invalid(statement.keyword_span.clone(), message)
            .hint("a host name has at most 64 letters, digits, `-` and `.`"));
    }
    Ok(Some(given.clone()))
}

impl Step for Run {
    fn apply(&self, statement: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        if let (Some(span), false) = (&self.insecure, stage.options.run.insecure) {
            return Err(Problem::new(Kind::Denied, span.clone(), "an insecure RUN is not allowed").hint(
                "it is as good as root on this host; to allow it, build with `--allow security.insecure`",
            ));
        }
        let mut mounts = Vec::new();
        for written in &self.mounts {
            let sockets = mounts.iter().filter(|mount| matches!(mount, Mount::Ssh(_))).count();
            mounts.push(written.mount(stage, sockets)?);
        }
        let args = self.command.args(stage);
        let created_by = format!("RUN {}{}", stage.declared(), args.join(" "));
        let run = plan::Run {
            args,
            env: stage.env(),
            hidden_env: stage.hidden_env(),
            user: stage.config().user.clone(),
            working_dir: stage.config().working_dir.clone(),
            network: self.network.unwrap_or(stage.options.network),
            hostname: hostname(statement, stage)?,
            security: if self.insecure.is_some() { Security::Insecure } else { Security::Sandbox },
            mounts,
            resources: stage.options.run.resources.clone(),
            files: self.script.iter().cloned().collect(),
        };
        Ok(Effect { created_by, action: Action::Run(run) })
    }

    fn copies_from(&self, names: &Names, number: usize) -> Result<Vec<CopyFrom>, Problem> {
        let all: Vec<_> =
            self.mounts.iter().map(|mount| mount.from(names, number)).collect::<Result<_, _>>()?;
        Ok(all.into_iter().flatten().collect())
    }
}
