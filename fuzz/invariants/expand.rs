//! Variables in words: a byte that says how, then the text.

use outcrop::dockerfile::fuzzing::{Reading, expand};

fn lookup(name: &str) -> Option<String> {
    match name {
        "V" => Some("value".into()),
        "E" => Some(String::new()),
        "T" => Some("two words".into()),
        "S" => Some("a*b\\c/$V'\"}".into()),
        _ => None,
    }
}

pub fn check(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let escape = if how & 1 == 0 { '\\' } else { '`' };
    let reading = Reading {
        raw_quotes: how & 2 != 0,
        raw_escapes: how & 4 != 0,
        quotes_mean_nothing: how & 8 != 0,
        keep_unset: how & 16 != 0,
    };
    let result = expand(text, escape, reading, &lookup);
    assert_eq!(result, expand(text, escape, reading, &lookup));
    match &result {
        Ok((text, words)) => {
            assert!(words.iter().all(|word| !word.is_empty()));
            let longest: usize = words.iter().map(String::len).sum();
            assert!(longest <= text.len(), "the words are longer than the text");
        }
        Err((at, message)) => {
            assert!(*at <= text.len() && text.is_char_boundary(*at), "{at}");
            assert!(!message.is_empty());
        }
    }
    let plain = Reading::default();
    let special = |c: char| matches!(c, '$' | '\'' | '"') || c == escape;
    if !text.contains(special) {
        let words = text.split_whitespace().map(str::to_owned).collect();
        assert_eq!(expand(text, escape, plain, &lookup), Ok((text.to_owned(), words)));
    }
    if !text.contains('$') {
        let raw = Reading { raw_quotes: true, raw_escapes: true, ..plain };
        if let Ok((raw, _)) = expand(text, escape, raw, &lookup) {
            // In double quotes an escape before what needs none stands there twice (BuildKit).
            let doubled = text.contains('"') && text.contains(escape);
            let of = |text: &str| if doubled { text.replace(escape, "") } else { text.to_owned() };
            assert_eq!(of(&raw), of(text));
        }
        if let Ok((taken, _)) = expand(text, escape, plain, &lookup) {
            assert!(taken.len() <= text.len());
        }
    }
    // In single quotes nothing means anything.
    if !text.contains('\'') {
        let (taken, words) = expand(&format!("'{text}'"), escape, plain, &lookup).unwrap();
        assert_eq!(taken, text);
        assert_eq!(words.concat(), text);
    }
    // A value is a value, whatever is in it, and one word in double quotes.
    let value = |_: &str| Some(text.to_owned());
    assert_eq!(expand("$X", escape, plain, &value).map(|it| it.0), Ok(text.to_owned()));
    assert_eq!(expand("${X}", escape, plain, &value).map(|it| it.0), Ok(text.to_owned()));
    if !text.is_empty() {
        let one = (format!("<{text}>"), vec![format!("<{text}>")]);
        assert_eq!(expand("\"<$X>\"", escape, plain, &value), Ok(one));
    }
    // Of what is taken away, and what is left, the value is made.
    for operator in ["#*/", "##*/", "%/*", "%%/*", "#?", "%?"] {
        let (left, _) = expand(&format!("${{X{operator}}}"), escape, plain, &value).unwrap();
        assert!(if operator.starts_with('#') { text.ends_with(&left) } else { text.starts_with(&left) });
    }
    let (replaced, _) = expand("${X//a/b}", escape, plain, &value).unwrap();
    assert_eq!(replaced, text.replace('a', "b"));
}
