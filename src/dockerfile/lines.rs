//! From a file to its instructions' lines: directives, comments, continuation lines, here-documents.

use std::sync::Arc;

use super::heredoc::Heredoc;
use super::source::{Line, Problem, Source};
use super::statement::Statement;
use crate::error::{Error, Result};

/// `# name=value` lines that stand before everything else.
#[derive(Debug)]
pub(super) struct Directives {
    pub(super) escape: char,
    /// What checks are asked for, and where.
    pub(super) check: Option<(String, Arc<Line>)>,
}

#[derive(Debug)]
pub(super) struct Text {
    pub(super) directives: Directives,
    pub(super) statements: Vec<Statement>,
}

pub(super) fn read(source: &Arc<Source>) -> Result<Text> {
    no_nul(source)?;
    let directives = Directives { escape: '\\', check: None };
    let mut reader = Reader { source, at: 0, directives, comments: Vec::new() };
    reader.directives()?;
    let mut statements = Vec::new();
    while let Some(line) = reader.line() {
        statements.push(reader.statement(line)?);
    }
    if statements.is_empty() {
        return Err(source
            .error(Error::invalid("the file has no instructions").hint("a Dockerfile begins with FROM")));
    }
    Ok(Text { directives: reader.directives, statements })
}

/// No argument, name or path can hold one.
fn no_nul(source: &Source) -> Result<()> {
    let mut places =
        source.lines.iter().enumerate().filter_map(|(number, text)| Some((number, text.find('\0')?)));
    let Some((number, column)) = places.next() else { return Ok(()) };
    let mut line = Line::new();
    line.push(&source.lines[number], number, 0);
    let problem =
        Problem::invalid(column..column + 1, "the file holds a NUL byte").hint("is it a text file?");
    Err(source.error_at(&line, problem))
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    /// The line to come, from 0.
    at: usize,
    directives: Directives,
    /// Those right above the instruction to come.
    comments: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Stops before the first line that is none.
    fn directives(&mut self) -> Result<()> {
        let mut seen = Vec::new();
        while let Some(text) = self.source.lines.get(self.at) {
            let Some((name, value)) = directive(text.trim(), "#") else { return Ok(()) };
            let name = name.to_ascii_lowercase();
            let wrong = |message: String, hint: &str| {
                let mut line = Line::new();
                line.push(text, self.at, 0);
                let start = text.len() - text.trim_start().len();
                let problem = Problem::invalid(start..text.trim_end().len(), message).hint(hint);
                Err(self.source.error_at(&line, problem))
            };
            if seen.contains(&name) {
                return wrong(format!("the directive `{name}` stands here twice"), "keep one of them");
            }
            match (name.as_str(), value) {
                // What `syntax::detect` reads.
                ("syntax", _) => {}
                ("check", _) => {
                    let mut line = Line::new();
                    line.push(text, self.at, 0);
                    self.directives.check = Some((value.to_owned(), Arc::new(line)));
                }
                ("escape", "\\") => self.directives.escape = '\\',
                ("escape", "`") => self.directives.escape = '`',
                ("escape", _) => {
                    let hint = "the escape character is a backslash or a backtick";
                    return wrong(format!("`{value}` is no escape character"), hint);
                }
                _ => return Ok(()),
            }
            seen.push(name);
            self.at += 1;
        }
        Ok(())
    }

    /// The next instruction on one line.
    fn line(&mut self) -> Option<Line> {
        let mut line = Line::new();
        self.comments.clear();
        loop {
            let text = self.source.lines.get(self.at)?;
            let column = text.len() - text.trim_start().len();
            let text = &text[column..];
            self.at += 1;
            if let Some(comment) = text.strip_prefix('#').map(str::trim).filter(|comment| !comment.is_empty())
            {
                self.comments.push(comment.to_owned());
                continue;
            }
            if text.is_empty() || text.starts_with('#') {
                self.comments.clear();
                continue;
            }
            let (text, mut goes_on) = self.continuation(text);
            line.push(text, self.at - 1, column);
            let mut had_empty = false;
            while goes_on {
                let Some(text) = self.source.lines.get(self.at) else { break };
                self.at += 1;
                if text.trim_start().starts_with('#') {
                    continue;
                }
                if text.trim_start().is_empty() {
                    // The piece behind the last line end is no line.
                    had_empty |= self.at < self.source.lines.len();
                    continue;
                }
                let text;
                (text, goes_on) = self.continuation(&self.source.lines[self.at - 1]);
                line.push(text, self.at - 1, 0);
            }
            line.gap = had_empty.then_some(line.lines.1);
            if line.text.trim().is_empty() {
                line = Line::new();
                continue;
            }
            return Some(line);
        }
    }

    /// Without the escape character at its end, and whether there was one. A doubled one is no continuation.
    fn continuation(&self, text: &'a str) -> (&'a str, bool) {
        let trimmed = text.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.directives.escape) {
            Some(rest) if !rest.ends_with(self.directives.escape) => (rest, true),
            _ => (text, false),
        }
    }

    fn statement(&mut self, mut line: Line) -> Result<Statement> {
        let mut heredocs = Vec::new();
        if takes_heredocs(&line.text, self.directives.escape) {
            let opened =
                Heredoc::all_of(&line.text).map_err(|problem| self.source.error_at(&line, problem))?;
            for (mut heredoc, span) in opened {
                loop {
                    let Some(text) = self.source.lines.get(self.at) else {
                        let problem = Problem::invalid(
                            span,
                            format!("no line `{}` ends the here-document", heredoc.name),
                        )
                        .hint(format!("write `{}` alone on a line, without blanks around it", heredoc.name));
                        return Err(self.source.error_at(&line, problem));
                    };
                    self.at += 1;
                    line.lines.1 = self.at;
                    if heredoc.ends_with(text) {
                        break;
                    }
                    heredoc.body.push_str(text);
                    heredoc.body.push_str(&self.source.line_end(self.at - 1));
                }
                heredocs.push(heredoc);
            }
        }
        let line = Arc::new(line);
        let comments = std::mem::take(&mut self.comments);
        let statement = Statement::parse(&line, 0, self.directives.escape, heredocs)
            .map_err(|problem| self.source.error_at(&line, problem))?;
        Ok(Statement { comments, ..statement })
    }
}

/// Reads `# name = value`; `comment` is the `#`.
pub(super) fn directive<'t>(text: &'t str, comment: &str) -> Option<(&'t str, &'t str)> {
    let (name, value) = text.strip_prefix(comment)?.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    well_formed.then_some((name, value))
}

/// ADD, COPY and RUN do, and ONBUILD of them; their JSON form does not.
fn takes_heredocs(text: &str, escape: char) -> bool {
    if !text.contains("<<") {
        return false;
    }
    let mut line = Line::new();
    line.push(text, 0, 0);
    let line = Arc::new(line);
    let Ok(statement) = Statement::parse(&line, 0, escape, Vec::new()) else { return false };
    let statement = match statement.keyword.as_str() {
        "ONBUILD" => match statement.nested() {
            Ok(nested) => nested,
            Err(_) => return false,
        },
        _ => statement,
    };
    matches!(statement.keyword.as_str(), "ADD" | "COPY" | "RUN") && statement.json().is_none()
}
