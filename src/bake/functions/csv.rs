//! Comma-separated values, RFC 4180.

use super::Result;

/// The records of a text, each with its fields. Empty lines are none.
pub(in crate::bake) fn records(text: &str) -> Result<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut field = String::new();
    let mut letters = text.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted => {
                quoted = false;
                if !matches!(letters.peek(), None | Some(',' | '\n' | '\r')) {
                    return Err("a quote ends inside a field".into());
                }
            }
            letter if quoted => field.push(letter),
            '"' if field.is_empty() => quoted = true,
            '"' => return Err("a quote begins inside a field".into()),
            ',' => record.push(std::mem::take(&mut field)),
            '\r' if letters.peek() == Some(&'\n') => {}
            '\n' if record.is_empty() && field.is_empty() => {}
            '\n' => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            letter => field.push(letter),
        }
    }
    if quoted {
        return Err("a quote does not end".into());
    }
    if !record.is_empty() || !field.is_empty() {
        record.push(field);
        records.push(record);
    }
    Ok(records)
}

/// One record as a line; the inverse of [`records`].
pub(in crate::bake) fn line(fields: impl IntoIterator<Item = String>) -> String {
    let quote = |field: String| match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    };
    fields.into_iter().map(quote).collect::<Vec<_>>().join(",")
}
