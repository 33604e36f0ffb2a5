//! `bake --list`: the targets or the variables of the files, as a table or as JSON.

use outcrop::bake::{Bake, escape_json};
use outcrop::error::{Error, Kind, Result};

use super::super::Context;

/// `targets`, `type=variables,format=json`.
pub(super) fn list(bake: &Bake, said: &str, context: &Context) -> Result<()> {
    let mut what = None;
    let mut json = false;
    for part in said.split(',') {
        match part.split_once('=').unwrap_or(("type", part)) {
            ("type", kind @ ("targets" | "variables")) => what = Some(kind),
            ("format", "json") => json = true,
            ("format", "table") => json = false,
            _ => {
                return Err(Error::new(Kind::Invalid, format!("`{part}` in --list is not known"))
                    .hint("write --list targets, or --list variables,format=json"));
            }
        }
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut objects = Vec::new();
    if what == Some("variables") {
        rows.push(["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec());
        for variable in &bake.variables {
            let value = variable.value.clone();
            objects.push(object(&[
                ("name", &variable.name),
                ("description", &variable.description),
                ("type", &variable.kind),
                ("value", value.as_deref().unwrap_or_default()),
            ]));
            rows.push(vec![
                variable.name.clone(),
                variable.kind.clone(),
                value.unwrap_or_else(|| "<null>".into()),
                variable.description.clone(),
            ]);
        }
    } else {
        rows.push(["TARGET", "DESCRIPTION"].map(str::to_owned).to_vec());
        for (name, description, group) in bake.list() {
            let mut target = object(&[("name", &name), ("description", &description)]);
            if group {
                target.insert("group".into(), true.into());
            }
            objects.push(target);
            rows.push(vec![name, description]);
        }
    }
    let mut out = context.out();
    match json {
        true => {
            let objects = serde_json::Value::Array(objects.into_iter().map(Into::into).collect());
            out.line(escape_json(&format!("{objects:#}")))?;
        }
        false => out.text(table(&rows))?,
    }
    out.done()
}

/// Empty values are left out.
fn object(pairs: &[(&str, &str)]) -> serde_json::Map<String, serde_json::Value> {
    let full = pairs.iter().filter(|(_, value)| !value.is_empty());
    full.map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}
