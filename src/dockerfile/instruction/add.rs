//! `ADD [--checksum=..] [--keep-git-dir] [--chown=..] [--chmod=..] SOURCE... DESTINATION`: COPY that unpacks local
//! archives, and takes files from the web and commits of git repositories.

use super::copy::{Files, is_web, parse_files};
use super::{Effect, Entry, Instruction, Step, Takes, flag, switch};
use crate::context::git_url;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};
use crate::plan::{Checksum, CopyFrom, GitSource, HttpSource, Source, Unpack};

pub(super) static ENTRY: Entry = Entry {
    keyword: "ADD",
    flags: &[
        ("chown", Takes::Value),
        ("chmod", Takes::Value),
        ("link", Takes::Switch),
        ("exclude", Takes::Value),
        ("checksum", Takes::Value),
        ("keep-git-dir", Takes::Switch),
        ("unpack", Takes::Switch),
    ],
    parse: |statement| {
        let add = Add {
            files: parse_files(statement)?,
            checksum: flag(statement, "checksum"),
            keep_git_dir: keeps_git_dir(statement),
            unpack: match statement.flags.iter().any(|flag| flag.name == "unpack") {
                false => Unpack::Local,
                true if switch(statement, "unpack") => Unpack::All,
                true => Unpack::None,
            },
        };
        if let Some(checksum) = add.checksum.as_ref().filter(|_| add.files.count() != 1) {
            return Err(Problem::invalid(
                checksum.span.clone(),
                "--checksum is of one source, and here are several",
            )
            .hint("write an ADD for each"));
        }
        Ok(Instruction::Step(Box::new(add)))
    },
};

#[derive(Debug)]
struct Add {
    files: Files,
    checksum: Option<Word>,
    keep_git_dir: Option<bool>,
    unpack: Unpack,
}

impl Step for Add {
    fn apply(&self, statement: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let foreign = |text: &str, word: &Word, stage: &mut StageState<'_>| {
            let checksum = match &self.checksum {
                Some(word) => Some((stage.word(word)?, word)).filter(|(text, _)| !text.is_empty()),
                None => None,
            };
            remote(text, word, checksum, self.keep_git_dir)
        };
        self.files.apply(statement, stage, CopyFrom::Context, self.unpack, &foreign)
    }
}

pub(in crate::dockerfile) fn keeps_git_dir(statement: &Statement) -> Option<bool> {
    let is_said = statement.flags.iter().any(|flag| flag.name == "keep-git-dir");
    is_said.then(|| switch(statement, "keep-git-dir"))
}

/// What `text` names on another machine, if it does; `word` is where it stands. Whether `--keep-git-dir` says yes or
/// no, it is of a repository (BuildKit).
pub(in crate::dockerfile) fn remote(
    text: &str,
    word: &Word,
    checksum: Option<(String, &Word)>,
    keep_git_dir: Option<bool>,
) -> Result<Option<Source>, Problem> {
    let git = git_url::parse_as(text, keep_git_dir.is_some()).map_err(|error| {
        Problem::invalid(word.span.clone(), error.message().to_owned())
            .maybe_hint(error.hint_text().map(str::to_owned))
    })?;
    if let Some(mut git) = git {
        git.keep_git_dir |= keep_git_dir == Some(true);
        return pinned(git, checksum).map(Some);
    }
    if is_web(text) {
        let checksum = checksum.map(|(text, word)| checksum_of(&text, word)).transpose()?;
        return Ok(Some(Source::Http(HttpSource { url: text.to_owned(), checksum })));
    }
    match checksum {
        Some((_, word)) => {
            Err(Problem::invalid(word.span.clone(), "--checksum is of a URL or a git repository")
                .hint("files of the build context need none: leave it out"))
        }
        None => Ok(None),
    }
}

fn pinned(mut git: GitSource, checksum: Option<(String, &Word)>) -> Result<Source, Problem> {
    if let Some((text, word)) = checksum {
        let invalid = |message: String| Problem::invalid(word.span.clone(), message);
        if !git_url::is_commit_prefix(&text) {
            return Err(invalid(format!("`{text}` is no commit id"))
                .hint("write the digits of the commit, as in `git log`: 0-9 and a-f"));
        }
        if git.checksum.as_ref().is_some_and(|other| *other != text) {
            return Err(
                invalid("the address names another commit than --checksum".into()).hint("leave one out")
            );
        }
        git.checksum = Some(text);
    }
    Ok(Source::Git(git))
}

fn checksum_of(text: &str, word: &Word) -> Result<Checksum, Problem> {
    Checksum::parse(text).ok_or_else(|| {
        Problem::invalid(word.span.clone(), format!("`{text}` is no checksum")).hint(
            "write --checksum=sha256: and the 64 digits that `sha256sum` prints; sha384 and sha512 do, too",
        )
    })
}
