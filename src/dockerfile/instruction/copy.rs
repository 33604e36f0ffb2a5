//! `COPY [--from=..] [--chown=..] [--chmod=..] SOURCE... DESTINATION`, and what ADD has in common with it.

use super::{Effect, Entry, Instruction, Step, Takes, flag, switch};
use crate::context::{git_url, ignore, wildcard};
use crate::dockerfile::expand::Mode;
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::{Names, StageState};
use crate::dockerfile::statement::{Statement, Word};
use crate::error::Error;
use crate::plan::{self, Action, Chmod, CopyFrom, InlineFile, Unpack};

pub(super) static ENTRY: Entry = Entry {
    keyword: "COPY",
    flags: &[
        ("from", Takes::Value),
        ("chown", Takes::Value),
        ("chmod", Takes::Value),
        ("link", Takes::Switch),
        ("parents", Takes::Switch),
        ("exclude", Takes::Value),
    ],
    parse: |statement| {
        let copy = Copy { files: parse_files(statement)?, from: flag(statement, "from") };
        Ok(Instruction::Step(Box::new(copy)))
    },
};

#[derive(Debug)]
struct Copy {
    files: Files,
    from: Option<Word>,
}

/// What COPY and ADD have in common.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) sources: Vec<Word>,
    inline: Vec<(Heredoc, Word)>,
    destination: Word,
    chown: Option<Word>,
    chmod: Option<Word>,
    exclude: Vec<Word>,
    parents: bool,
    link: bool,
}

pub(super) fn parse_files(statement: &Statement) -> Result<Files, Problem> {
    let mut words = statement.json_or_words()?;
    let is_json = statement.json().is_some();
    let form = format!("write `{} SOURCE... DESTINATION`", statement.keyword);
    let destination = match words.pop() {
        Some(destination) if !words.is_empty() => destination,
        Some(only) => {
            return Err(Problem::invalid(
                only.span,
                format!("{} needs a source and a destination", statement.keyword),
            )
            .hint(form));
        }
        None => return Err(statement.needs("a source and a destination", &form)),
    };
    let opens = |word: &Word| match is_json {
        true => None,
        false => Heredoc::open(&word.text).ok().flatten(),
    };
    if opens(&destination).is_some() {
        return Err(
            Problem::invalid(destination.span, "a here-document cannot be the destination").hint(form)
        );
    }
    let mut sources = Vec::new();
    let mut inline = Vec::new();
    let mut bodies = statement.heredocs.clone();
    for word in words {
        let Some(opened) = opens(&word) else {
            sources.push(word);
            continue;
        };
        // In order; by name alone where blanks and quotes cut the line differently.
        let body = bodies.iter().position(|heredoc| heredoc.name == opened.name).map(|at| bodies.remove(at));
        let Some(body) = body else {
            return Err(Problem::invalid(word.span, format!("`{}` has no here-document", word.text))
                .hint("write it without blanks in its name"));
        };
        inline.push((body, word));
    }
    let exclude = statement.flags.iter().filter(|flag| flag.name == "exclude");
    let exclude =
        exclude.filter_map(|flag| Some(Word { text: flag.value.clone()?, span: flag.span.clone() }));
    Ok(Files {
        sources,
        inline,
        destination,
        chown: flag(statement, "chown"),
        chmod: flag(statement, "chmod"),
        exclude: exclude.filter(|word| !word.text.is_empty()).collect(),
        parents: switch(statement, "parents"),
        link: switch(statement, "link"),
    })
}

impl Step for Copy {
    fn apply(&self, statement: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let from = match &self.from {
            None => CopyFrom::Context,
            Some(from) => stage.copy_from(from)?,
        };
        let foreign = |text: &str, word: &Word, _: &mut StageState<'_>| {
            let refused = |what: &str| {
                Err(Problem::invalid(word.span.clone(), format!("COPY takes no {what}"))
                    .hint("ADD does, or a RUN step that fetches it"))
            };
            match git_url::parse(text) {
                Ok(Some(_)) | Err(_) => refused("git repositories"),
                Ok(None) if is_web(text) => refused("URLs"),
                Ok(None) => Ok(None),
            }
        };
        self.files.apply(statement, stage, from, Unpack::None, &foreign)
    }

    fn copies_from(&self, names: &Names, number: usize) -> Result<Vec<CopyFrom>, Problem> {
        self.from.iter().map(|from| names.copy_from(from, number)).collect()
    }
}

impl Files {
    /// How many sources were written, before any word of them becomes several.
    pub(super) fn count(&self) -> usize {
        self.sources.len() + self.inline.len()
    }

    pub(super) fn apply(
        &self,
        statement: &Statement,
        stage: &mut StageState<'_>,
        from: CopyFrom,
        unpack: Unpack,
        foreign: &Foreign<'_>,
    ) -> Result<Effect, Problem> {
        let mut told = statement.keyword.clone();
        let mut tell = |text: &str| {
            told.push(' ');
            told.push_str(text);
        };
        if self.parents {
            tell("--parents");
        }
        let chown = self.chown.as_ref().map(|word| stage.word(word)).transpose()?;
        if let Some(chown) = &chown {
            tell(&format!("--chown={chown}"));
        }
        let mut chmod = None;
        if let Some(word) = &self.chmod {
            let mode = stage.word(word)?;
            tell(&format!("--chmod={mode}"));
            chmod = Some(Chmod::parse(&mode).map_err(|error| located(word, &error))?);
        }
        let mut sources = Vec::new();
        for word in &self.sources {
            let source = stage.word(word)?;
            if source.is_empty() {
                return Err(Problem::invalid(word.span.clone(), "the source is empty")
                    .hint("a variable in it may not be set"));
            }
            if let Some(found) = foreign(&source, word, stage)? {
                tell(&source);
                sources.push(found);
                continue;
            }
            if !self.parents
                && wildcard::is_pattern(source.as_bytes())
                && let Err(error) = wildcard::Pattern::parse(source.as_bytes())
            {
                return Err(located(word, &error));
            }
            tell(&source);
            sources.push(plan::Source::Path(source));
        }
        let mut exclude = Vec::new();
        for word in &self.exclude {
            let pattern = stage.word(word)?;
            ignore::Ignore::parse(pattern.as_bytes()).map_err(|error| located(word, &error))?;
            exclude.push(pattern);
        }
        let mut inline = Vec::new();
        for (heredoc, word) in &self.inline {
            let mut content = heredoc.content();
            if heredoc.expands {
                let mode = Mode { quotes_mean_nothing: true, ..Mode::default() };
                content = stage.expand(&content, word.span.clone(), '\\', mode)?.text;
            }
            tell(&format!("<<{}", heredoc.name));
            inline.push(InlineFile {
                path: heredoc.name.clone().into(),
                bytes: content.into_bytes(),
                mode: 0o644,
            });
        }
        let destination = stage.word(&self.destination)?;
        tell(&destination);
        let destination = stage.destination(&destination);
        let (parents, link) = (self.parents, self.link);
        let copy =
            plan::Copy { from, sources, inline, destination, chown, chmod, unpack, exclude, parents, link };
        Ok(Effect { created_by: told, action: Action::Copy(copy) })
    }
}

/// What a source is that is no path.
pub(super) type Foreign<'f> =
    dyn Fn(&str, &Word, &mut StageState<'_>) -> Result<Option<plan::Source>, Problem> + 'f;

pub(super) fn is_web(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

fn located(word: &Word, error: &Error) -> Problem {
    let problem = Problem::new(error.kind(), word.span.clone(), error.message());
    problem.maybe_hint(error.hint_text().map(str::to_owned))
}
