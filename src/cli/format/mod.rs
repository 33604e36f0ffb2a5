//! What `--format`, `--filter` and `--no-trunc` mean, and how lists look.

mod columns;
mod eval;
mod filter;
mod functions;
mod glob;
mod human;
mod lex;
mod list;
mod objects;
mod parse;
mod printf;
mod value;

pub(crate) use columns::align;
pub(crate) use filter::Filters;
pub(crate) use glob::glob;
pub(crate) use human::{
    ago, ago_at, ellipsis, human_duration, percent, short_id, size, size_binary, size_exact, time,
};
pub(crate) use list::{List, Row};
pub(crate) use objects::inspect;
pub(crate) use printf::quoted;

use outcrop::error::{Error, Result};
use serde_json::Value;

/// A Go text/template, as far as formats need it: all but `define`, `template`, `block`, `call` and `js`.
#[derive(Debug)]
pub(crate) struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

/// Where in the template, in bytes, and what is wrong there.
#[derive(Debug)]
struct Fault {
    at: usize,
    message: String,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Fault { at, message: message.into() }
    }
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match parse::parse(text) {
            Ok(nodes) => Ok(Template { text: text.to_owned(), nodes }),
            Err(fault) => Err(explain(text, &fault)),
        }
    }

    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        self.run(value, eval::Row::Strict)
    }

    /// Over the headings of the columns.
    fn headings(&self, value: &Value) -> Result<String> {
        self.run(value, eval::Row::Headings)
    }

    fn run(&self, value: &Value, row: eval::Row) -> Result<String> {
        let mut run = eval::Run::new(value, row);
        run.all(&self.nodes).map_err(|fault| explain(&self.text, &fault))?;
        Ok(run.text)
    }
}

fn explain(text: &str, fault: &Fault) -> Error {
    let at = (0..=fault.at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let column = text[line_start..at].chars().count();
    let number = text[..at].matches('\n').count() + 1;
    // A tab would put the caret elsewhere.
    let line = line.replace('\t', " ");
    Error::invalid(format!(
        "the template is wrong at {number}:{}: {}\n  {line}\n  {:column$}^",
        column + 1,
        fault.message,
        ""
    ))
}

#[cfg(test)]
mod tests;
