//! The Dockerfile language: text in, a [`Plan`] out. No I/O; what base images say comes through [`Resolver`].
//!
//! ```text
//! text -> lines (directives, comments, continuation, here-documents) -> statement (keyword, flags, words)
//!      -> instruction (one file each) -> stage by stage, expanded: a plan
//! ```
//!
//! The language is that of BuildKit's frontend. What it can say and this version cannot do is refused by name.

mod check;
mod epoch;
mod expand;
#[doc(hidden)]
pub mod fuzzing;
mod go;
mod heredoc;
mod instruction;
mod lines;
mod nearest;
mod outline;
mod pattern;
mod planner;
mod source;
mod stage;
mod statement;
mod syntax;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::context::ignore::Ignore;
use crate::error::{Error, Result};
use crate::image::{ImageConfig, Platform};
use crate::plan::{GitSource, HttpSource, Network, Plan, Resources};
use check::{Asked, Notes};
use instruction::{From, Instruction, Step};
use source::{Line, Problem, Source};
use statement::Statement;

pub use check::{Check, Finding, all as checks};
pub use outline::{Outline, OutlineArg, OutlineMount, Target};

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
    /// What `# syntax=` names.
    syntax: Option<String>,
    remarks: Remarks,
}

/// What was noted while a file was read, and what it asks of the checks.
#[derive(Debug, Default)]
struct Remarks {
    notes: Notes,
    check: Option<(String, Arc<Line>)>,
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
    /// Names that stand for something else than an image; a stage of such a name is not made of its steps.
    pub contexts: BTreeSet<String>,
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
            contexts: BTreeSet::new(),
            run: RunOptions::default(),
        }
    }
}

/// Tells what a base image says of itself. Asked once for each image and platform that a needed stage stands on.
pub trait Resolver {
    /// `reference` as the user wrote it, expanded; never `scratch`. The caller looks it up or pulls it.
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig>;

    /// Whether that is what the image says. Who answers for images that are not at hand says no: nothing is then
    /// concluded from what the image does not set.
    fn is_known(&self, _reference: &str, _platform: &Platform) -> bool {
        true
    }

    /// When something was made, in seconds since 1970: a commit's time, what a server says (`Last-Modified`), the
    /// newest file of an archive. `None` for what has no such time, as a directory.
    fn time(&self, _of: &Dated) -> Result<Option<i64>> {
        Ok(None)
    }
}

/// What SOURCE_DATE_EPOCH may be the time of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dated {
    /// `context`: the build context.
    Context,
    /// One of the contexts with names.
    Named(String),
    /// What a stage adds from an address.
    Http(HttpSource),
    /// What a stage adds from a repository.
    Git(GitSource),
}

/// How far checks look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// Also at stages that the target does not need.
    pub all_stages: bool,
    /// What the context leaves out.
    pub ignore: Option<&'a Ignore>,
}

/// A file gone through: what the checks found, by line, and its plan, or why there is none.
#[derive(Debug)]
pub struct Checked {
    pub findings: Vec<Finding>,
    pub plan: Result<Plan>,
}

impl Checked {
    /// Where the error stands, from 1.
    pub fn line_of_error(&self) -> Option<usize> {
        Source::line_of(self.plan.as_ref().err()?)
    }
}

/// Reads, plans and checks; an error further down does not hide what was found above it.
pub fn check(
    name: &str,
    text: &str,
    options: &PlanOptions,
    resolver: &dyn Resolver,
    scope: Scope<'_>,
) -> Checked {
    let mut remarks = Remarks::default();
    match Dockerfile::parse_noting(name, text, &mut remarks) {
        Ok(dockerfile) => dockerfile.check(options, resolver, scope),
        Err(error) => {
            let asked = remarks.asked(&Source::new(name, text), options).unwrap_or_default();
            Checked { findings: remarks.notes.findings(&asked).0, plan: Err(error) }
        }
    }
}

impl Dockerfile {
    /// `name` as the user wrote it (`-` for standard input), for messages alone. An error names the line and
    /// shows the place.
    pub fn parse(name: &str, text: &str) -> Result<Dockerfile> {
        Self::parse_noting(name, text, &mut Remarks::default())
    }

    /// The remarks are the caller's where there is an error, else the file's.
    fn parse_noting(name: &str, text: &str, remarks: &mut Remarks) -> Result<Dockerfile> {
        let source = Source::new(name, text);
        let syntax = syntax::detect(text);
        let other = syntax.clone().filter(|syntax| !syntax::is_known(syntax));
        let dockerfile = Self::of(&source, remarks).map_err(|cause| match other {
            Some(syntax) => {
                let message =
                    format!("`syntax={syntax}` names another language; this was read as a Dockerfile");
                Error::new(cause.kind(), message).because(cause)
            }
            None => cause,
        })?;
        Ok(Dockerfile { syntax, ..dockerfile })
    }

    fn of(source: &Arc<Source>, remarks: &mut Remarks) -> Result<Dockerfile> {
        let text = lines::read(source)?;
        let mut warnings = Vec::new();
        remarks.check = text.directives.check;
        let mut global_args = Vec::new();
        let mut stages: Vec<StageText> = Vec::new();
        for statement in text.statements {
            check::statement(&statement, &mut remarks.notes);
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
            syntax: None,
            remarks: std::mem::take(remarks),
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
        self.check(options, resolver, Scope::default()).plan
    }

    /// The same, with what the checks found on the way. Where the file asks for it, findings are an error.
    pub fn check(&self, options: &PlanOptions, resolver: &dyn Resolver, scope: Scope<'_>) -> Checked {
        let asked = match self.remarks.asked(&self.source, options) {
            Ok(asked) => asked,
            Err(error) => return Checked { findings: Vec::new(), plan: Err(error) },
        };
        let mut notes = self.remarks.notes.clone();
        let planned = planner::plan(self, options, resolver, scope, &mut notes);
        let (findings, fails) = notes.findings(&asked);
        let plan = planned.and_then(|planned| match fails {
            true => Err(self.refused(&findings)),
            false => Ok(planned.plan),
        });
        let plan = plan.map(|mut plan| {
            let names = asked.unknown().into_iter();
            plan.warnings.extend(names.map(|unknown| format!("{}: {unknown}", self.source.name)));
            plan
        });
        Checked { findings, plan }
    }

    fn refused(&self, findings: &[Finding]) -> Error {
        let mut names: Vec<&str> = findings.iter().map(|finding| finding.check.name).collect();
        names.sort_unstable();
        names.dedup();
        let line = findings.first().map_or(1, |finding| finding.lines.0);
        let error = Error::invalid(format!("line {line}: the checks found something: {}", names.join(", ")))
            .hint("change it, or have it skipped with `# check=skip=NAME`");
        self.source.error(error)
    }
}

impl Remarks {
    /// A build argument goes before the directive.
    fn asked(&self, source: &Source, options: &PlanOptions) -> Result<Asked> {
        const NAME: &str = "BUILDKIT_DOCKERFILE_CHECK";
        if let Some(text) = options.build_args.get(NAME).filter(|text| !text.is_empty()) {
            return Asked::parse(text).map_err(|error| {
                let hint = error.hint_text().unwrap_or_default().to_owned();
                Error::invalid(format!("the build argument {NAME}: {}", error.message())).hint(hint)
            });
        }
        let Some((text, line)) = &self.check else { return Ok(Asked::default()) };
        Asked::parse(text).map_err(|error| {
            let problem = Problem::invalid(0..line.text.trim_end().len(), error.message());
            source.error_at(line, problem.maybe_hint(error.hint_text().map(str::to_owned)))
        })
    }
}

impl StageText {
    fn name(&self) -> Option<&str> {
        self.from.name.as_ref().map(|name| name.text.as_str())
    }
}

/// `['a', 'b']` and `["a", "b",]` go to the shell, which is hardly meant. Of CMD and ENTRYPOINT a check says it.
fn almost_json(statement: &Statement) -> Option<String> {
    let takes_json = ["RUN", "COPY", "ADD", "VOLUME"].contains(&statement.keyword.as_str());
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
