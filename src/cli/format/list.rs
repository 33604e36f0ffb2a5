//! Lists: a table with headings, a template for each row, or JSON, one row a line.

use outcrop::error::Result;
use serde_json::{Map, Value};

use super::{Template, align};
use crate::cli::frame::Out;

/// One thing of a list: field names and what they show.
pub(crate) type Row = Map<String, Value>;

/// How a list is to look.
pub(crate) struct List {
    how: How,
    headings: &'static [(&'static str, &'static str)],
}

enum How {
    Table(Template),
    Plain(Template),
    Json,
}

impl List {
    /// `headings` names every field there is and its heading; `default` is the table shown when the user
    /// asks for none: a template, its columns separated by tabs.
    pub(crate) fn new(
        format: Option<&str>,
        headings: &'static [(&'static str, &'static str)],
        default: &str,
    ) -> Result<Self> {
        let format = format.unwrap_or("table").trim_matches(' ');
        // Shells hand on `\t` as it is written.
        let template = |text: &str| Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"));
        let how = match format.strip_prefix("table") {
            _ if format == "json" => How::Json,
            Some("") => How::Table(template(default)?),
            Some(columns) => How::Table(template(columns.trim_start_matches([' ', '\t']))?),
            None => How::Plain(template(format)?),
        };
        Ok(List { how, headings })
    }

    /// What `-q` shows: this field alone.
    pub(crate) fn quiet(field: &str) -> Self {
        let template = Template::parse(&format!("{{{{.{field}}}}}")).expect("a field's name is a template");
        List { how: How::Plain(template), headings: &[] }
    }

    /// A table is written when all rows are known, everything else as the rows come.
    pub(crate) fn write(&self, out: &mut Out, rows: impl IntoIterator<Item = Result<Row>>) -> Result<()> {
        let rows = rows.into_iter();
        match &self.how {
            How::Table(template) => {
                let headings =
                    self.headings.iter().map(|(name, heading)| ((*name).to_owned(), Value::from(*heading)));
                let mut text = template.headings(&Value::Object(headings.collect()))?;
                text.push('\n');
                for row in rows {
                    text.push_str(&template.render(&Value::Object(row?))?);
                    text.push('\n');
                }
                out.text(align(&text))
            }
            How::Plain(template) => {
                for row in rows {
                    out.line(template.render(&Value::Object(row?))?)?;
                }
                Ok(())
            }
            How::Json => {
                for row in rows {
                    let mut row = row?;
                    row.sort_keys();
                    out.line(Value::Object(row))?;
                }
                Ok(())
            }
        }
    }
}
