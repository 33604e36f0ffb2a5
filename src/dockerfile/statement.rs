//! One instruction, taken apart: keyword, flags, and the ways to read what follows.

use std::ops::Range;
use std::sync::Arc;

use super::heredoc::Heredoc;
use super::source::{Line, Problem, Span};

#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) line: Arc<Line>,
    /// In capitals.
    pub(super) keyword: String,
    pub(super) keyword_span: Span,
    pub(super) flags: Vec<Flag>,
    /// What follows, without blanks around it.
    pub(super) rest: Span,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) escape: char,
    /// What stands behind the `#` of the comments right above, nothing between.
    pub(super) comments: Vec<String>,
}

/// `--name` or `--name=value`, quotes taken away.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) span: Span,
}

/// `KEY=value` or the old `KEY value`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) span: Span,
}

/// What a text in brackets is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Strings(Vec<String>),
    /// JSON, and not only strings; or a string with a NUL, which no argument can hold.
    Mixed,
}

impl Statement {
    /// Reads the line from a byte on.
    pub(super) fn parse(
        line: &Arc<Line>,
        from: usize,
        escape: char,
        heredocs: Vec<Heredoc>,
    ) -> Result<Statement, Problem> {
        let text = &line.text;
        let start = from + (text[from..].len() - text[from..].trim_start().len());
        let end = text.trim_end().len().max(start);
        let keyword_end = text[start..end].find(is_blank).map_or(end, |length| start + length);
        let (flags, rest_start) = flags(text, keyword_end..end)?;
        let rest_start =
            rest_start + (text[rest_start..end].len() - text[rest_start..end].trim_start().len());
        Ok(Statement {
            line: line.clone(),
            keyword: text[start..keyword_end].to_uppercase(),
            keyword_span: start..keyword_end,
            flags,
            rest: rest_start..end,
            heredocs,
            escape,
            comments: Vec::new(),
        })
    }

    /// ONBUILD's instruction.
    pub(super) fn nested(&self) -> Result<Statement, Problem> {
        Statement::parse(&self.line, self.rest.start, self.escape, self.heredocs.clone())
    }

    /// The keyword as the user wrote it.
    pub(super) fn written_keyword(&self) -> &str {
        &self.line.text[self.keyword_span.clone()]
    }

    /// What the comments right above say of `name`: one of them begins with it.
    pub(super) fn description(&self, name: &str) -> Option<&str> {
        let told = |comment: &'_ String| comment.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        let comment = self.comments.iter().find(|comment| told(comment))?;
        comment.get(name.len() + 1..)
    }

    pub(super) fn rest(&self) -> &str {
        &self.line.text[self.rest.clone()]
    }

    /// Keyword to end.
    pub(super) fn span(&self) -> Span {
        self.keyword_span.start..self.rest.end.max(self.keyword_span.end)
    }

    /// As the user wrote it, on one line.
    pub(super) fn text(&self) -> &str {
        self.line.text[self.span()].trim_end()
    }

    /// A JSON array, where what follows is one from its first byte to its last.
    pub(super) fn json(&self) -> Option<Json> {
        json(self.rest())
    }

    /// Split at blanks; quotes mean nothing yet.
    pub(super) fn blank_separated(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut at = self.rest.start;
        for part in self.rest().split(is_blank) {
            if !part.is_empty() {
                words.push(Word { text: part.to_owned(), span: at..at + part.len() });
            }
            // A blank is one byte.
            at += part.len() + 1;
        }
        words
    }

    /// The strings of the JSON form, or what blanks separate.
    pub(super) fn json_or_words(&self) -> Result<Vec<Word>, Problem> {
        match self.json() {
            Some(Json::Strings(strings)) => {
                Ok(strings.into_iter().map(|text| Word { text, span: self.rest.clone() }).collect())
            }
            Some(Json::Mixed) => Err(self.mixed()),
            None => Ok(self.blank_separated()),
        }
    }

    pub(super) fn mixed(&self) -> Problem {
        Problem::invalid(self.rest.clone(), "the JSON form holds something that is no word")
            .hint("put every word in double quotes, as in `[\"sleep\", \"1\"]`")
    }

    /// Split at blanks that no quotes hold; quotes and escapes stay in the words.
    pub(super) fn quoted_words(&self) -> Vec<Word> {
        quoted_words(self.rest(), self.rest.start, self.escape)
    }

    /// `K=v L=w`, or the old form with one key and one value, told apart by the first word.
    pub(super) fn pairs(&self) -> Result<Vec<Pair>, Problem> {
        let words = self.quoted_words();
        let Some(first) = words.first() else {
            return Err(self.needs("at least one argument", "write `NAME=value`"));
        };
        if !first.text.contains('=') {
            let rest = self.rest();
            let key_end = rest.find(is_blank).unwrap_or(rest.len());
            let value = rest[key_end..].trim_start_matches(is_blank);
            if value.is_empty() {
                return Err(Problem::invalid(first.span.clone(), format!("`{}` has no value", first.text))
                    .hint(format!("write `{} {}=value`", self.keyword, first.text)));
            }
            let (key, value) = (rest[..key_end].to_owned(), value.to_owned());
            return Ok(vec![Pair { key, value, span: self.rest.clone() }]);
        }
        let mut pairs = Vec::new();
        for word in words {
            let Some((key, value)) = word.text.split_once('=') else {
                return Err(Problem::invalid(word.span, format!("`{}` has no `=`", word.text))
                    .hint("write every one as NAME=value, and quote a value with blanks in it"));
            };
            if key.is_empty() {
                return Err(Problem::invalid(word.span, "a name is missing before the `=`")
                    .hint("write `NAME=value`"));
            }
            pairs.push(Pair { key: key.to_owned(), value: value.to_owned(), span: word.span });
        }
        Ok(pairs)
    }

    pub(super) fn needs(&self, what: &str, hint: &str) -> Problem {
        Problem::invalid(self.span(), format!("{} needs {what}", self.keyword)).hint(hint)
    }
}

/// What separates words everywhere but in quotes; never more than one byte.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

pub(super) fn json(text: &str) -> Option<Json> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let strings: Option<Vec<String>> = values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) if !text.contains('\0') => Some(text),
            _ => None,
        })
        .collect();
    Some(strings.map_or(Json::Mixed, Json::Strings))
}

/// The flags, and where what follows them begins.
fn flags(text: &str, range: Range<usize>) -> Result<(Vec<Flag>, usize), Problem> {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        at += text[at..range.end].len() - text[at..range.end].trim_start().len();
        let tail = &text[at..range.end];
        if !tail.starts_with("--") {
            return Ok((flags, at));
        }
        let start = at;
        let mut word = String::new();
        let mut quote = None;
        let mut chars = tail.char_indices();
        at = range.end;
        while let Some((offset, c)) = chars.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    at = start + offset;
                    break;
                }
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                // The backslash, whatever the escape directive says (BuildKit).
                (_, '\\') => word.extend(chars.next().map(|(_, c)| c)),
                (_, c) => word.push(c),
            }
        }
        if word == "--" {
            return Ok((flags, at));
        }
        let (name, value) = match word[2..].split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word[2..].to_owned(), None),
        };
        let span = start..at;
        if flags
            .iter()
            .any(|flag: &Flag| flag.name == name && !["mount", "exclude", "device"].contains(&&*name))
        {
            return Err(
                Problem::invalid(span, format!("`--{name}` stands here twice")).hint("keep one of them")
            );
        }
        flags.push(Flag { name, value, span });
    }
}

fn quoted_words(text: &str, offset: usize, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<(usize, String)> = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take().map(|(start, text)| (start, at, text)));
            continue;
        }
        let (_, word) = word.get_or_insert((at, String::new()));
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the very end it is dropped; else it and the next stay together.
            if let Some((_, escaped)) = chars.next() {
                word.extend([c, escaped]);
            }
            continue;
        }
        word.push(c);
    }
    words.extend(word.map(|(start, word)| (start, text.len(), word)));
    words
        .into_iter()
        .filter(|(.., text)| !text.is_empty())
        .map(|(start, end, text)| Word { text, span: offset + start..offset + end })
        .collect()
}
