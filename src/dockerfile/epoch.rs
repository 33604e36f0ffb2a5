//! SOURCE_DATE_EPOCH: a number, or something whose own time it is (BuildKit's frontend 1.24).

use super::expand::Mode;
use super::instruction::{Argument, keeps_git_dir, remote};
use super::source::{Problem, Span};
use super::stage::{Variables, expand_with};
use super::statement::{Statement, Word};
use super::{Dated, Dockerfile, PlanOptions, Resolver, StageText};
use crate::error::{Error, Result};
use crate::plan::Source;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The seconds; in `options` and `globals` they stand in place of what was written. What has no time unsets it.
pub(super) fn resolve(
    dockerfile: &Dockerfile,
    options: &mut PlanOptions,
    globals: &mut Variables,
    resolver: &dyn Resolver,
) -> Result<Option<i64>> {
    let given = options.build_args.get(NAME).cloned();
    let Some(text) = given.or_else(|| globals.get(NAME)) else { return Ok(None) };
    let seconds = match text.parse() {
        _ if text.is_empty() => None,
        Ok(seconds) => Some(seconds),
        Err(_) => time(dockerfile, options, globals, resolver, &text)?,
    };
    match seconds.map(|seconds: i64| seconds.to_string()) {
        Some(value) => {
            options.build_args.entry(NAME.to_owned()).and_modify(|given| given.clone_from(&value));
            if globals.get(NAME).is_some() {
                globals.set(NAME, &value);
            }
        }
        None => {
            options.build_args.remove(NAME);
            globals.unset(NAME);
        }
    }
    Ok(seconds)
}

/// Of the context, or of the one thing that a stage adds.
fn time(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    globals: &Variables,
    resolver: &dyn Resolver,
    text: &str,
) -> Result<Option<i64>> {
    if text == "context" {
        return resolver.time(&Dated::Context);
    }
    // A context goes before a stage of its name (BuildKit).
    let lower = text.to_lowercase();
    if let Some(name) = options.contexts.get(&lower) {
        return resolver.time(&Dated::Named(name.clone()));
    }
    let is_meant = |stage: &&StageText| stage.name().is_some_and(|name| name.eq_ignore_ascii_case(text));
    let Some(stage) = dockerfile.stages.iter().find(is_meant) else {
        return Err(unknown(dockerfile, options, text));
    };
    let (added, problem) = added(dockerfile, options, globals, stage)?;
    resolver.time(&added).map_err(problem)
}

fn unknown(dockerfile: &Dockerfile, options: &PlanOptions, text: &str) -> Error {
    let message = format!("{NAME} is `{text}`, which is no number, not `context` and no stage");
    let hint =
        "give it in seconds since 1970, as in `--build-arg SOURCE_DATE_EPOCH=1700000000`, or name a stage";
    let arguments = dockerfile.global_args.iter().rev().flat_map(|(statement, step)| {
        step.arguments().unwrap_or_default().iter().map(move |argument| (statement, argument))
    });
    let says = |argument: &Argument| argument.name == NAME && argument.default.is_some();
    let mut places = arguments.filter(|(_, argument)| says(argument));
    match places.next() {
        Some((statement, Argument { default: Some(word), .. })) if !options.build_args.contains_key(NAME) => {
            let problem = Problem::invalid(word.span.clone(), message).hint(hint);
            dockerfile.source.error_at(&statement.line, problem)
        }
        _ => dockerfile.source.error(Error::invalid(message).hint(hint)),
    }
}

/// A stage that dates a build stands on scratch and holds ARGs and one ADD of a URL or a git repository. With what
/// makes an error of that place.
fn added<'d>(
    dockerfile: &'d Dockerfile,
    options: &PlanOptions,
    globals: &Variables,
    stage: &'d StageText,
) -> Result<(Dated, impl FnOnce(Error) -> Error + use<'d>)> {
    const NEITHER: &str = "what it adds is neither a URL nor a git repository";
    const HINT: &str =
        "a stage that dates the build is `FROM scratch`, ARGs, and one ADD of a URL or a git repository";
    let refuse = |statement: &Statement, span: Span, what: &str| {
        let message = format!("the stage `{}` cannot say {NAME}: {what}", stage.name().unwrap_or_default());
        Err(dockerfile.source.error_at(&statement.line, Problem::invalid(span, message).hint(HINT)))
    };
    let mut variables = globals.clone();
    variables.unset(NAME);
    let expand = |variables: &Variables, statement: &Statement, word: &Word| {
        expand_with(variables, &word.text, &word.span, dockerfile.escape, Mode::default())
            .map(|expansion| expansion.text)
            .map_err(|problem| dockerfile.source.error_at(&statement.line, problem))
    };
    let base = &stage.from.base;
    if expand(&variables, &stage.statement, base)? != "scratch" {
        return refuse(&stage.statement, base.span.clone(), "it does not stand on scratch");
    }
    let mut found: Option<(Dated, &'d Statement, Span)> = None;
    for (statement, step) in &stage.steps {
        if let Some(arguments) = step.arguments() {
            for argument in arguments {
                let value = match (options.build_args.get(&argument.name), &argument.default) {
                    (Some(given), _) => given.clone(),
                    (None, Some(default)) => expand(&variables, statement, default)?,
                    (None, None) => continue,
                };
                variables.set(&argument.name, &value);
            }
            continue;
        }
        if statement.keyword != "ADD" {
            return refuse(statement, statement.keyword_span.clone(), "it holds more than ARG and ADD");
        }
        if found.is_some() {
            return refuse(statement, statement.keyword_span.clone(), "it adds more than one thing");
        }
        let words = statement
            .json_or_words()
            .map_err(|problem| dockerfile.source.error_at(&statement.line, problem))?;
        let [source, _] = &words[..] else {
            return refuse(statement, statement.rest.clone(), "it adds more than one thing");
        };
        if !statement.heredocs.is_empty() {
            return refuse(statement, source.span.clone(), NEITHER);
        }
        let url = expand(&variables, statement, source)?;
        let value = |name: &str| {
            let flag = statement.flags.iter().find(|flag| flag.name == name)?;
            Some(Word { text: flag.value.clone().unwrap_or_default(), span: flag.span.clone() })
        };
        let checksum = match value("checksum") {
            Some(word) => Some((expand(&variables, statement, &word)?, word)),
            None => None,
        };
        let checksum = checksum.as_ref().filter(|(text, _)| !text.is_empty());
        let checksum = checksum.map(|(text, word)| (text.clone(), word));
        found = match remote(&url, source, checksum, keeps_git_dir(statement)) {
            Ok(Some(Source::Http(http))) => Some((Dated::Http(http), statement, source.span.clone())),
            Ok(Some(Source::Git(git))) => Some((Dated::Git(git), statement, source.span.clone())),
            Ok(_) => return refuse(statement, source.span.clone(), NEITHER),
            Err(problem) => return Err(dockerfile.source.error_at(&statement.line, problem)),
        };
    }
    let Some((dated, statement, span)) = found else {
        return refuse(&stage.statement, base.span.clone(), "it adds nothing");
    };
    let unknown = move |cause: Error| {
        let message = format!("{NAME} is the time of this, and cannot be told");
        dockerfile.source.error_at(&statement.line, Problem::new(cause.kind(), span, message).because(cause))
    };
    Ok((dated, unknown))
}
