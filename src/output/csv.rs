//! One line of comma-separated values (RFC 4180), as buildx reads its flags.

use crate::error::{Error, Result};

/// A field that begins with `"` goes to the next single `"`; two of them stand for one.
pub(crate) fn fields(line: &str) -> Result<Vec<String>> {
    let bad = |what: &str| {
        Error::invalid(format!("`{line}`: {what}"))
            .hint("quote a whole field, key and all: type=image,\"name=one,two\"")
    };
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return Err(bad("a quotation mark inside of a field"));
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut inside = quoted;
        loop {
            let (text, after) =
                inside.split_once('"').ok_or_else(|| bad("a quotation mark is not closed"))?;
            field.push_str(text);
            match after.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    inside = after;
                }
                None => {
                    inside = after;
                    break;
                }
            }
        }
        fields.push(field);
        match inside.strip_prefix(',') {
            Some(after) => rest = after,
            None if inside.is_empty() => return Ok(fields),
            None => return Err(bad("text behind a quoted field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_at_commas_outside_of_quotation_marks() {
        for (line, expected) in [
            ("type=oci,dest=a", &["type=oci", "dest=a"][..]),
            ("type=image,\"name=a,b\",push=false", &["type=image", "name=a,b", "push=false"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("a,,", &["a", "", ""]),
            ("", &[""]),
            (" a , b", &[" a ", " b"]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for bad in ["a\"b", "name=\"a,b\"", "\"a", "\"a\"b", "\"a,b"] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
