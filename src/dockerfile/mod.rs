//! The Dockerfile language: text in, a [`Plan`] out. No I/O; what base images say comes through [`Resolver`].
//!
//! ```text
//! text -> lines (directives, comments, continuation, here-documents) -> statement (keyword, flags, words)
//!      -> instruction (one file each) -> stage by stage, expanded: a plan
//! ```
//!
//! The language is that of BuildKit's frontend. What it can say and this version cannot do is refused by name.

mod expand;
mod go;
mod heredoc;
mod instruction;
mod lines;
mod nearest;
mod pattern;
mod planner;
mod source;
mod stage;
mod statement;
mod syntax;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::{ImageConfig, Platform};
use crate::plan::{Network, Plan, Resources};
use instruction::{From, Instruction, Step};
use source::{Problem, Source};
use statement::Statement;

/// A parsed Dockerfile: every instruction known and well formed, nothing expanded yet.
#[derive(Debug)]
pub struct Dockerfile {
    source: Arc<Source>,
    escape: char,
    /// ARGs before the first FROM.
    global_args: Vec<(Statement, Box<dyn Step>)>,
    /// At least one.
    stages: Vec<StageText>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct StageText {
    statement: Statement,
    from: From,
    steps: Vec<(Statement, Box<dyn Step>)>,
}

/// What the caller decides, beyond the text.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// `--build-arg NAME=value`; a caller resolves `--build-arg NAME` from its environment.
    pub build_args: BTreeMap<String, String>,
    /// A stage's name or number; `None` is the last stage.
    pub target: Option<String>,
    /// What is built, unless FROM says otherwise.
    pub platform: Platform,
    /// What builds.
    pub build_platform: Platform,
    /// `--label`: a last LABEL step of the target.
    pub labels: BTreeMap<String, String>,
    /// The network of every RUN that does not name one.
    pub network: Network,
    pub run: RunOptions,
}

/// What RUN may ask for.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What is there by these names; `None`: nobody asks whether what is required was given.
    pub secrets: Option<BTreeSet<String>>,
    pub ssh: Option<BTreeSet<String>>,
    /// `--security=insecure` is allowed.
    pub insecure: bool,
    pub resources: Arc<Resources>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            build_args: BTreeMap::new(),
            target: None,
            platform: Platform::host(),
            build_platform: Platform::host(),
            labels: BTreeMap::new(),
            network: Network::Default,
            run: RunOptions::default(),
        }
    }
}

/// Tells what a base image says of itself. Asked once for each image and platform that a needed stage stands on.
pub trait Resolver {
    /// `reference` as the user wrote it, expanded; never `scratch`. The caller looks it up or pulls it.
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig>;
}

impl Dockerfile {
    /// `name` as the user wrote it (`-` for standard input), for messages alone. An error names the line and
    /// shows the place.
    pub fn parse(name: &str, text: &str) -> Result<Dockerfile> {
        let source = Source::new(name, text);
        let Some(syntax) = syntax::detect(text).filter(|syntax| !syntax::is_known(syntax)) else {
            return Self::of(&source);
        };
        let mut dockerfile = Self::of(&source).map_err(|cause| {
            let message = format!("`syntax={syntax}` names another language; this was read as a Dockerfile");
            Error::new(cause.kind(), message).because(cause)
        })?;
        dockerfile.warnings.insert(
            0,
            format!("{name}: `# syntax={syntax}` names another language; this is read as a Dockerfile"),
        );
        Ok(dockerfile)
    }

    fn of(source: &Arc<Source>) -> Result<Dockerfile> {
        let text = lines::read(source)?;
        let mut warnings = text.warnings;
        let mut global_args = Vec::new();
        let mut stages: Vec<StageText> = Vec::new();
        for statement in text.statements {
            let at = |problem| source.error_at(&statement.line, problem);
            let instruction = instruction::parse(&statement).map_err(at)?;
            if let Some(warning) = almost_json(&statement) {
                warnings.push(source.warning(&statement.line, &warning));
            }
            match (instruction, stages.last_mut()) {
                (Instruction::From(from), _) => stages.push(StageText { statement, from, steps: Vec::new() }),
                (Instruction::Step(step), Some(stage)) => stage.steps.push((statement, step)),
                (Instruction::Step(step), None) if step.arguments().is_some() => {
                    global_args.push((statement, step));
                }
                (Instruction::Step(_), None) => {
                    let message = format!("{} stands before the first FROM", statement.keyword);
                    return Err(at(Problem::invalid(statement.keyword_span.clone(), message)
                        .hint("begin with `FROM image`; only ARG may stand before it")));
                }
            }
        }
        if stages.is_empty() {
            let (last, _) = global_args.last().expect("a file without instructions is refused above");
            let problem =
                Problem::invalid(last.span(), "the file ends without a FROM").hint("add `FROM image`");
            return Err(source.error_at(&last.line, problem));
        }
        Ok(Dockerfile {
            source: source.clone(),
            escape: text.directives.escape,
            global_args,
            stages,
            warnings,
        })
    }

    /// The same of a file's bytes, which must be UTF-8.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Dockerfile> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Dockerfile::parse(name, text),
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
                let hint = if utf16 { "it looks like UTF-16; save it as UTF-8" } else { "save it as UTF-8" };
                let problem = Error::invalid(format!("line {line}: the text is not UTF-8")).hint(hint);
                Err(Source::new(name, "").error(problem))
            }
        }
    }

    /// Everything expanded and resolved. An error names the line and shows the place; nothing has run yet.
    pub fn plan(&self, options: &PlanOptions, resolver: &dyn Resolver) -> Result<Plan> {
        planner::plan(self, options, resolver)
    }
}

impl StageText {
    fn name(&self) -> Option<&str> {
        self.from.name.as_ref().map(|name| name.text.as_str())
    }
}

/// `['a', 'b']` and `["a", "b",]` go to the shell, which is hardly meant.
fn almost_json(statement: &Statement) -> Option<String> {
    let takes_json =
        ["RUN", "CMD", "ENTRYPOINT", "COPY", "ADD", "VOLUME"].contains(&statement.keyword.as_str());
    let rest = statement.rest();
    let inside = rest.strip_prefix('[')?.strip_suffix(']')?;
    let is_list =
        inside.trim_start().starts_with(['"', '\'']) && (inside.contains("',") || inside.contains("\","));
    let is_word = inside.starts_with(['"', '\'']);
    (takes_json && statement.json().is_none() && (is_list || is_word)).then(|| {
        format!(
            "`{rest}` is no JSON and is taken as plain words; JSON strings stand in double quotes with commas between"
        )
    })
}
