//! The text with its places: what an error shows.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Kind};

/// A file as its user named it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    /// Without their ends.
    pub(super) lines: Vec<String>,
    /// How many carriage returns each ended with.
    carriage_returns: Vec<usize>,
}

/// An instruction on one line: continuation lines joined, comments and empty lines between them left out.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: String,
    /// First and last line in the file, from 1; heredocs included.
    pub(super) lines: (usize, usize),
    /// The last line before heredocs, from 1, where an empty line stands between the continuation lines.
    pub(super) gap: Option<usize>,
    pieces: Vec<Piece>,
}

/// A part of a `Line` that stands on one line of the file.
#[derive(Debug)]
struct Piece {
    /// Where it begins in `Line::text`.
    start: usize,
    /// In the file, from 0.
    line: usize,
    /// Bytes before it on that line.
    column: usize,
}

/// A part of `Line::text`, in bytes.
pub(super) type Span = Range<usize>;

/// What is wrong with a part of a line; `Source::error` makes an `Error` of it.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    message: String,
    hint: Option<String>,
    span: Span,
    source: Option<Box<Error>>,
}

impl Problem {
    pub(super) fn new(kind: Kind, span: Span, message: impl Into<String>) -> Self {
        Problem { kind, message: message.into(), hint: None, span, source: None }
    }
    pub(super) fn invalid(span: Span, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, span, message)
    }
    /// What a later version can do.
    pub(super) fn later(span: Span, what: &str) -> Self {
        Self::new(Kind::Unsupported, span, format!("{what} is not supported by this version"))
    }
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub(super) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
    pub(super) fn because(mut self, source: Error) -> Self {
        self.source = Some(Box::new(source));
        self
    }
    /// The same at another place, with what was being done there.
    pub(super) fn moved(mut self, span: Span, doing: &str) -> Self {
        self.span = span;
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl Line {
    pub(super) fn new() -> Self {
        Line { text: String::new(), lines: (0, 0), gap: None, pieces: Vec::new() }
    }

    /// Appends what stands on line `line` (from 0) behind `column` bytes.
    pub(super) fn push(&mut self, text: &str, line: usize, column: usize) {
        self.pieces.push(Piece { start: self.text.len(), line, column });
        self.text.push_str(text);
        if self.lines.0 == 0 {
            self.lines.0 = line + 1;
        }
        self.lines.1 = line + 1;
    }

    /// Line (from 0) and bytes on it.
    fn place(&self, span: &Span) -> Option<(usize, Range<usize>)> {
        let index = self.pieces.partition_point(|piece| piece.start <= span.start).checked_sub(1)?;
        let piece = &self.pieces[index];
        let end = self.pieces.get(index + 1).map_or(self.text.len(), |next| next.start);
        let column = |at: usize| piece.column + at.min(end) - piece.start;
        Some((piece.line, column(span.start)..column(span.end.max(span.start))))
    }
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Arc<Source> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.split('\n').map(|line| line.trim_end_matches('\r').to_owned()).collect();
        let returns = |line: &str| line.len() - line.trim_end_matches('\r').len();
        let carriage_returns = text.split('\n').map(returns).collect();
        Arc::new(Source { name: name.to_owned(), lines, carriage_returns })
    }

    /// How a line (from 0) ends.
    pub(super) fn line_end(&self, line: usize) -> String {
        "\r".repeat(self.carriage_returns.get(line).copied().unwrap_or(0)) + "\n"
    }

    pub(super) fn warning(&self, line: &Line, text: &str) -> String {
        format!("{}: line {}: {text}", self.name, line.lines.0)
    }

    /// Where `error_at` found fault, from 1.
    pub(super) fn line_of(error: &Error) -> Option<usize> {
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            let text = next.to_string();
            if let Some((number, _)) = text.strip_prefix("line ").and_then(|rest| rest.split_once(':')) {
                return number.parse().ok();
            }
            cause = next.source();
        }
        None
    }

    /// An error without a place.
    pub(super) fn error(&self, error: Error) -> Error {
        Error::new(error.kind(), format!("reading `{}`", self.name)).because(error)
    }

    /// An error with its line and a caret under its place.
    pub(super) fn error_at(&self, line: &Line, problem: Problem) -> Error {
        let mut message = format!("line {}: {}", line.lines.0, problem.message);
        if let Some((number, columns)) = line.place(&problem.span) {
            message = format!("line {}: {}", number + 1, problem.message);
            self.draw(&mut message, number, &columns);
        }
        let mut error = Error::new(problem.kind, message);
        if let Some(hint) = problem.hint {
            error = error.hint(hint);
        }
        if let Some(source) = problem.source {
            error = error.because(*source);
        }
        self.error(error)
    }

    /// Tabs stay tabs, so that the caret stands where the terminal puts the text.
    fn draw(&self, out: &mut String, number: usize, columns: &Range<usize>) {
        let Some(text) = self.lines.get(number) else { return };
        let label = (number + 1).to_string();
        let cut = |at: usize| (0..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let before: String =
            text[..cut(columns.start)].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let marked = text[cut(columns.start)..cut(columns.end)].chars().count().max(1);
        let blank = " ".repeat(label.len());
        let carets = "^".repeat(marked);
        write!(out, "\n  {label} | {text}\n  {blank} | {before}{carets}").expect("a String takes all");
    }
}
