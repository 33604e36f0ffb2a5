//! A bake file's text with its places: what an error shows.

use std::fmt::Write as _;
use std::ops::Range;

use crate::error::{Error, Kind};

/// A file as its user named it.
#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// Which file, and which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) span: Range<usize>,
}

/// What is wrong at a place; [`Problem::error`] makes an `Error` of it.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    place: Place,
    message: String,
    hint: Option<String>,
}

impl Problem {
    pub(super) fn new(place: &Place, message: impl Into<String>) -> Self {
        Problem { kind: Kind::Invalid, place: place.clone(), message: message.into(), hint: None }
    }
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub(super) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
    pub(super) fn hint_if_none(mut self, hint: &str) -> Self {
        self.hint = self.hint.or_else(|| Some(hint.to_owned()));
        self
    }
    pub(super) fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn error(self, files: &[File]) -> Error {
        let file = &files[self.place.file];
        let mut error = Error::new(self.kind, draw(&file.text, &self.place.span, &self.message));
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        Error::new(self.kind, format!("reading `{}`", file.name)).because(error)
    }
}

/// The message with its line and a caret under its place. Tabs stay tabs, so that the caret stands where the
/// terminal puts the text.
fn draw(text: &str, span: &Range<usize>, message: &str) -> String {
    let cut = |at: usize| (0..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = cut(span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let number = text[..start].matches('\n').count() + 1;
    let end = cut(span.end).clamp(start, line_end);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let label = number.to_string();
    let blank = " ".repeat(label.len());
    let before: String =
        text[line_start..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let carets = "^".repeat(text[start..end].trim_end().chars().count().max(1));
    let mut out = format!("line {number}: {message}");
    write!(out, "\n  {label} | {line}\n  {blank} | {before}{carets}").expect("a String takes all");
    out
}
