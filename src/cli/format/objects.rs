//! What every `inspect` shows: an array of objects, or a line of a template for each.

use std::io::Write as _;
use std::process::ExitCode;

use outcrop::error::{Error, Result};
use serde::Serialize as _;
use serde_json::Value;

use super::Template;
use crate::cli::frame::Out;

/// Prints what `find` gives for each name; `None` is "No such `noun`" on standard error and exit code 1, as
/// in Docker, once what was found is printed.
pub(crate) fn inspect(
    mut out: Out,
    format: Option<&str>,
    noun: &str,
    names: &[String],
    mut find: impl FnMut(&str) -> Result<Option<Value>>,
) -> Result<ExitCode> {
    let template = match format {
        None | Some("" | "json") => None,
        Some(template) => Some(Template::parse(template)?),
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match find(name)? {
            Some(object) => found.push(object),
            None => missing.push(name),
        }
    }
    match &template {
        Some(template) => {
            for object in &found {
                out.line(template.render(object)?)?;
            }
        }
        None if format == Some("json") => out.line(Value::from(found))?,
        None => out.line(pretty(&Value::from(found))?)?,
    }
    out.done()?;
    for name in &missing {
        // Where standard error is gone, the exit code still says it.
        let _gone = writeln!(std::io::stderr(), "Error: No such {noun}: {name}");
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Indented by four, as Docker does.
pub(crate) fn pretty(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indent));
    written.map_err(|cause| Error::internal("writing JSON").because(cause))?;
    String::from_utf8(bytes).map_err(|cause| Error::internal("writing JSON").because(cause))
}
