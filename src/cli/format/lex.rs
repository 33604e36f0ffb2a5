//! A template's text as tokens (Go's text/template, "Text and spaces" and "Actions").

use super::Fault;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// What stands outside of actions, spaces trimmed where `{{-` and `-}}` say so.
    Text(String),
    Open,
    Close,
    /// A name: a function, or `if`, `range`, `nil`, ...
    Word(String),
    /// `.A.B`; `.` alone is no field at all. Glued to what precedes it or not.
    Fields {
        names: Vec<String>,
        glued: bool,
    },
    /// Without the `$`; the one without a name is what the template was given.
    Variable(String),
    String(String),
    Integer(i64),
    Float(f64),
    Pipe,
    Left,
    Right,
    Comma,
    Declare,
    Assign,
}

/// A token and the byte it begins at.
pub(super) type Placed = (usize, Token);

pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, Fault> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    let mut trim_start = false;
    loop {
        let rest = &text[lexer.at..];
        let open = rest.find("{{");
        let mut outside = &rest[..open.unwrap_or(rest.len())];
        if trim_start {
            outside = outside.trim_start_matches(SPACE);
        }
        let Some(open) = open else {
            lexer.text(outside);
            return Ok(lexer.tokens);
        };
        let inside = &rest[open + 2..];
        let trim_end = inside.strip_prefix('-').is_some_and(|after| after.starts_with(SPACE));
        if trim_end {
            outside = outside.trim_end_matches(SPACE);
        }
        lexer.text(outside);
        let start = lexer.at + open;
        lexer.at = start + if trim_end { 3 } else { 2 };
        trim_start = lexer.action(start)?;
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    tokens: Vec<Placed>,
}

impl Lexer<'_> {
    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.tokens.push((self.at, Token::Text(text.to_owned())));
        }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// From behind `{{` to behind `}}`; whether the text that follows is trimmed.
    fn action(&mut self, start: usize) -> Result<bool, Fault> {
        if self.rest().trim_start_matches(SPACE).starts_with("/*") {
            return self.comment(start);
        }
        self.tokens.push((start, Token::Open));
        let mut after_space = true;
        loop {
            let Some(next) = self.rest().chars().next() else {
                return Err(Fault::new(start, "this action is not closed by `}}`"));
            };
            if SPACE.contains(&next) {
                self.at += next.len_utf8();
                after_space = true;
                continue;
            }
            let closing = match self.rest() {
                rest if rest.starts_with("}}") => Some((2, false)),
                rest if after_space && rest.starts_with("-}}") => Some((3, true)),
                _ => None,
            };
            if let Some((length, trim)) = closing {
                self.tokens.push((self.at, Token::Close));
                self.at += length;
                return Ok(trim);
            }
            let at = self.at;
            let token = self.token(next, after_space)?;
            self.tokens.push((at, token));
            after_space = false;
        }
    }

    fn comment(&mut self, start: usize) -> Result<bool, Fault> {
        let end =
            self.rest().find("*/").ok_or_else(|| Fault::new(start, "this comment is not closed by `*/`"))?;
        self.at += end + 2;
        for (end, trim) in [("}}", false), (" -}}", true)] {
            if self.rest().starts_with(end) {
                self.at += end.len();
                return Ok(trim);
            }
        }
        Err(Fault::new(self.at, "a comment ends with `*/}}`"))
    }

    fn token(&mut self, next: char, after_space: bool) -> Result<Token, Fault> {
        let at = self.at;
        match next {
            '|' => Ok(self.take(1, Token::Pipe)),
            '(' => Ok(self.take(1, Token::Left)),
            ')' => Ok(self.take(1, Token::Right)),
            ',' => Ok(self.take(1, Token::Comma)),
            '=' => Ok(self.take(1, Token::Assign)),
            ':' if self.rest().starts_with(":=") => Ok(self.take(2, Token::Declare)),
            '"' => self.quoted(),
            '`' => {
                let end = self.rest()[1..].find('`');
                let end = end.ok_or_else(|| Fault::new(at, "this string is not closed by a backquote"))?;
                let text = self.rest()[1..=end].to_owned();
                Ok(self.take(end + 2, Token::String(text)))
            }
            '\'' => self.character(),
            '$' => {
                self.at += 1;
                Ok(Token::Variable(self.name()))
            }
            '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Token::Fields { names: self.fields(), glued: !after_space })
            }
            '0'..='9' | '+' | '-' | '.' => self.number(),
            _ if next.is_alphabetic() || next == '_' => Ok(Token::Word(self.name())),
            _ => Err(Fault::new(at, format!("`{next}` has no meaning in an action"))),
        }
    }

    fn take(&mut self, bytes: usize, token: Token) -> Token {
        self.at += bytes;
        token
    }

    fn name(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        self.at += end;
        name
    }

    /// From a dot on. Names with hyphens are no fields in Go either: that is what `index` is for.
    fn fields(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while self.rest().starts_with('.') {
            self.at += 1;
            let name = self.name();
            if name.is_empty() {
                break;
            }
            names.push(name);
        }
        names
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let at = self.at;
        let rest = self.rest();
        let mut end = 1;
        for (place, letter) in rest.char_indices().skip(1) {
            let exponent = rest[..place].ends_with(['e', 'E']) && !rest.starts_with("0x");
            if !(letter.is_alphanumeric()
                || letter == '.'
                || letter == '_'
                || (exponent && "+-".contains(letter)))
            {
                break;
            }
            end = place + letter.len_utf8();
        }
        let written = rest[..end].to_owned();
        self.at += end;
        let text = written.replace('_', "");
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.strip_prefix('+').unwrap_or(&text)),
        };
        let radix = |prefix: [&str; 2]| prefix.iter().find_map(|prefix| digits.strip_prefix(prefix));
        let integer = if let Some(digits) = radix(["0x", "0X"]) {
            i64::from_str_radix(&format!("{sign}{digits}"), 16).ok()
        } else if let Some(digits) = radix(["0b", "0B"]) {
            i64::from_str_radix(&format!("{sign}{digits}"), 2).ok()
        } else if let Some(digits) = radix(["0o", "0O"]) {
            i64::from_str_radix(&format!("{sign}{digits}"), 8).ok()
        } else {
            format!("{sign}{digits}").parse().ok()
        };
        let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let float = || format!("{sign}{digits}").parse().ok().filter(|_| plain);
        integer
            .map(Token::Integer)
            .or_else(|| float().map(Token::Float))
            .ok_or_else(|| Fault::new(at, format!("`{written}` is no number")))
    }

    /// Go's interpreted string literals.
    fn quoted(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            match self.rest().chars().next() {
                None | Some('\n') => return Err(Fault::new(start, "this string is not closed by `\"`")),
                Some('"') => return Ok(self.take(1, Token::String(text))),
                Some(_) => text.push(self.letter()?),
            }
        }
    }

    /// A character is its number.
    fn character(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        self.at += 1;
        let letter = self.letter()?;
        if !self.rest().starts_with('\'') {
            return Err(Fault::new(start, "a character is one letter between single quotes"));
        }
        self.at += 1;
        Ok(Token::Integer(i64::from(u32::from(letter))))
    }

    fn letter(&mut self) -> Result<char, Fault> {
        let at = self.at;
        let mut letters = self.rest().chars();
        let unfinished = || Fault::new(at, "this literal is not finished");
        let first = letters.next().ok_or_else(unfinished)?;
        if first != '\\' {
            self.at += first.len_utf8();
            return Ok(first);
        }
        let escape = letters.next().ok_or_else(unfinished)?;
        let unknown = || Fault::new(at, format!("`\\{escape}` is no escape"));
        let (digits, radix) = match escape {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ => {
                self.at += 1 + escape.len_utf8();
                let plain = [
                    ('n', '\n'),
                    ('t', '\t'),
                    ('r', '\r'),
                    ('a', '\x07'),
                    ('b', '\x08'),
                    ('f', '\x0c'),
                    ('v', '\x0b'),
                    ('\\', '\\'),
                    ('"', '"'),
                    ('\'', '\''),
                ];
                return plain
                    .iter()
                    .find(|(name, _)| *name == escape)
                    .map(|(_, letter)| *letter)
                    .ok_or_else(unknown);
            }
        };
        let from = at + if radix == 8 { 1 } else { 2 };
        let digits = self.text.get(from..from + digits).ok_or_else(unknown)?;
        self.at = from + digits.len();
        u32::from_str_radix(digits, radix).ok().and_then(char::from_u32).ok_or_else(unknown)
    }
}
