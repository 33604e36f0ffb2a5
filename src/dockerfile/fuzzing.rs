//! What the fuzz targets reach of the inside of this room.

use super::expand::{self, Mode};

/// How a text is read; see the modes of the lexer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub raw_quotes: bool,
    pub raw_escapes: bool,
    pub quotes_mean_nothing: bool,
    pub keep_unset: bool,
}

/// The text and its words, or where it cannot be read and why.
pub fn expand(
    text: &str,
    escape: char,
    how: Reading,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>), (usize, String)> {
    let mode = Mode {
        raw_quotes: how.raw_quotes,
        raw_escapes: how.raw_escapes,
        quotes_mean_nothing: how.quotes_mean_nothing,
        keep_unset: how.keep_unset,
    };
    match expand::expand(text, escape, mode, lookup) {
        Ok(expansion) => Ok((expansion.text, expansion.words)),
        Err(fault) => Err((fault.at, fault.message)),
    }
}
