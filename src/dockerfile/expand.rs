//! Variables in words: BuildKit's shell lexer (`$v`, `${v:-w}`, `${v#p}`, `${v/p/r}`, quotes, escapes).

use std::cell::RefCell;

use super::pattern::Pattern;

/// How a text is read; the default is a word of an instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mode {
    /// Quotes stay in the result.
    pub(super) raw_quotes: bool,
    /// Escape characters stay in the result.
    pub(super) raw_escapes: bool,
    /// Quotes mean nothing (the body of a heredoc).
    pub(super) quotes_mean_nothing: bool,
    /// An unset variable stays as it was written.
    pub(super) keep_unset: bool,
}

#[derive(Debug, Default)]
pub(super) struct Expansion {
    pub(super) text: String,
    /// The text split at blanks that no quotes hold; the values of variables are split too.
    pub(super) words: Vec<String>,
    /// Variables written plainly (`$v`, `${v}`) that are not set.
    pub(super) unset: Vec<String>,
    /// Variables that are set and were looked at, each once.
    pub(super) used: Vec<String>,
}

/// Why a word cannot be expanded, and the byte of the word where.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// What a variable holds; `None` is unset.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn expand(word: &str, escape: char, mode: Mode, lookup: Lookup<'_>) -> Result<Expansion, Fault> {
    let used = RefCell::new(Vec::new());
    let lookup = |name: &str| {
        let value = lookup(name)?;
        let mut used = used.borrow_mut();
        if used.iter().all(|known| known != name) {
            used.push(name.to_owned());
        }
        Some(value)
    };
    let mut lexer = Lexer {
        chars: word.char_indices().collect(),
        length: word.len(),
        at: 0,
        depth: 0,
        limit: word.len() + LARGEST,
        escape,
        mode,
        lookup: &lookup,
        unset: Vec::new(),
    };
    let (text, words) = lexer.until(None, mode.raw_escapes)?;
    let unset = lexer.unset;
    Ok(Expansion { text, words, unset, used: used.into_inner() })
}

struct Lexer<'a> {
    chars: Vec<(usize, char)>,
    length: usize,
    at: usize,
    /// `${` within `${`.
    depth: usize,
    /// Bytes of a result.
    limit: usize,
    escape: char,
    mode: Mode,
    lookup: Lookup<'a>,
    unset: Vec<String>,
}

/// Deeper nesting than anybody writes; keeps the stack bounded.
const DEEPEST: usize = 100;

/// What variables may add to a word, in bytes: no environment holds a longer value (Linux, MAX_ARG_STRLEN).
const LARGEST: usize = 128 * 1024;

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// The byte of the character to come.
    fn byte(&self) -> usize {
        self.chars.get(self.at).map_or(self.length, |(byte, _)| *byte)
    }

    fn fault<T>(&self, at: usize, message: impl Into<String>, hint: &str) -> Result<T, Fault> {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Err(Fault { at, message: message.into(), hint })
    }

    /// Reads up to `stop`, which is taken; `None` is the end of the word.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), Fault> {
        let outer = std::mem::replace(&mut self.mode.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.mode.raw_escapes = outer;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Fault> {
        let (from, start) = (self.at, self.byte());
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    value.chars().for_each(|c| words.push(c));
                    if text.len() > self.limit {
                        return self.fault(
                            start,
                            "the variables make the word too long",
                            "128 KiB are the most",
                        );
                    }
                }
                '\'' if !self.mode.quotes_mean_nothing => {
                    let value = self.single_quotes()?;
                    text.push_str(&value);
                    words.push_quoted(&value);
                }
                '"' if !self.mode.quotes_mean_nothing => {
                    let value = self.double_quotes()?;
                    text.push_str(&value);
                    words.push_quoted(&value);
                }
                _ => {
                    self.next();
                    if c != self.escape {
                        text.push(c);
                        words.push(c);
                        continue;
                    }
                    if self.mode.raw_escapes {
                        text.push(c);
                        words.push_quoted(c.encode_utf8(&mut [0; 4]));
                    }
                    if let Some(escaped) = self.next() {
                        text.push(escaped);
                        words.push_quoted(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
            }
        }
        match stop {
            None => Ok((text, words.finish())),
            Some(stop) => self.fault(
                from.checked_sub(1).map_or(start, |before| self.chars[before].0),
                format!("`{stop}` is missing"),
                "write every `${` with its `}`, or quote the `$`",
            ),
        }
    }

    fn single_quotes(&mut self) -> Result<String, Fault> {
        let start = self.byte();
        let mut text = String::new();
        let quote = self.next();
        text.extend(quote.filter(|_| self.mode.raw_quotes));
        while let Some(c) = self.next() {
            if c == '\'' {
                text.extend(quote.filter(|_| self.mode.raw_quotes));
                return Ok(text);
            }
            text.push(c);
        }
        self.fault(start, "the `'` has no partner", "close it, or write it escaped")
    }

    fn double_quotes(&mut self) -> Result<String, Fault> {
        let start = self.byte();
        let mut text = String::new();
        let quote = self.next();
        text.extend(quote.filter(|_| self.mode.raw_quotes));
        while let Some(c) = self.peek() {
            if c == '$' {
                let value = self.dollar()?;
                text.push_str(&value);
                if text.len() > self.limit {
                    return self.fault(start, "the variables make the word too long", "128 KiB are the most");
                }
                continue;
            }
            self.next();
            if c == '"' {
                text.extend(quote.filter(|_| self.mode.raw_quotes));
                return Ok(text);
            }
            if c != self.escape {
                text.push(c);
                continue;
            }
            if self.mode.raw_escapes {
                text.push(c);
            }
            match self.peek() {
                // An escape character at the very end is dropped; the missing quote is reported below.
                None => {}
                Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.escape => {
                    self.next();
                    text.push(escaped);
                }
                Some(_) => text.push(c),
            }
        }
        self.fault(start, "the `\"` has no partner", "close it, or write it escaped")
    }

    fn dollar(&mut self) -> Result<String, Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.fault(self.byte(), "variables are nested too deeply", "");
        }
        let value = self.dollar_inner();
        self.depth -= 1;
        value
    }

    fn dollar_inner(&mut self) -> Result<String, Fault> {
        let start = self.byte();
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(self.plain(&name, || format!("${name}")));
        }
        self.next();
        match self.peek() {
            None => return self.fault(start, "`}` is missing", "write `${NAME}`"),
            Some('{' | '}' | ':') => {
                return self.fault(start, "a name is missing behind `${`", "write `${NAME}`");
            }
            Some(_) => {}
        }
        let name = self.name();
        let modifier_at = self.byte();
        let Some(mut modifier) = self.next() else {
            return self.fault(start, "`}` is missing", "write `${NAME}`");
        };
        if modifier == '}' {
            return Ok(self.plain(&name, || format!("${{{name}}}")));
        }
        if modifier == '/' {
            return self.replacement(start, &name);
        }
        let mut written = modifier.to_string();
        let empty_is_unset = modifier == ':';
        if empty_is_unset {
            let Some(next) = self.next() else {
                return self.fault(start, "`}` is missing", "write `${NAME}`");
            };
            modifier = next;
            written.push(next);
        }
        // Of a variable that stays as it is written, a form behind `:` need not be known: the shell may (`${v:=w}`).
        let stays = self.mode.keep_unset && empty_is_unset && (self.lookup)(&name).is_none();
        if !stays && !matches!(modifier, '-' | '+' | '?' | '#' | '%') {
            let name = if name.is_empty() { "NAME" } else { &name };
            return self.fault(
                modifier_at,
                format!("`{written}` is no form of `${{{name}}}`"),
                "the forms are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`",
            );
        }
        let (word, _) = self.until(Some('}'), matches!(modifier, '#' | '%'))?;
        let value = (self.lookup)(&name);
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let absent = value.as_ref().is_none_or(|value| empty_is_unset && value.is_empty());
        match modifier {
            '-' => Ok(if absent { word } else { value.unwrap_or_default() }),
            '+' => Ok(if absent { String::new() } else { word }),
            '?' if absent => {
                let what = match (&value, word.is_empty()) {
                    (_, false) => word,
                    (None, true) => "is not set".to_owned(),
                    (Some(_), true) => "is empty".to_owned(),
                };
                self.fault(
                    start,
                    format!("{name}: {what}"),
                    "give it with --build-arg, or with ENV or ARG above",
                )
            }
            '?' => Ok(value.unwrap_or_default()),
            _ => {
                let longest = word.starts_with(modifier);
                let text = if longest { &word[1..] } else { &word[..] };
                let value = value.unwrap_or_default();
                let Some(pattern) = Pattern::parse(text) else {
                    return self.bad_pattern(start, text);
                };
                Ok(if modifier == '#' {
                    pattern.without_prefix(&value, longest)
                } else {
                    pattern.without_suffix(&value, longest)
                })
            }
        }
    }

    /// Behind `${name/`.
    fn replacement(&mut self, start: usize, name: &str) -> Result<String, Fault> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let (pattern_text, _) = match self.until(Some('/'), true) {
            Err(_) if self.peek().is_none() => {
                return self.fault(start, "the second `/` is missing", "write `${NAME/old/new}`");
            }
            read => read?,
        };
        let (replacement, _) = self.until(Some('}'), true)?;
        let value = (self.lookup)(name);
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}/{pattern_text}/{replacement}}}"));
        }
        let Some(pattern) = Pattern::parse(&pattern_text) else {
            return self.bad_pattern(start, &pattern_text);
        };
        Ok(pattern.replace(&value.unwrap_or_default(), &replacement, all, self.limit))
    }

    fn bad_pattern<T>(&self, start: usize, text: &str) -> Result<T, Fault> {
        self.fault(
            start,
            format!("`{text}` is not a well-formed pattern"),
            "a `\\` stands only before `*` `?` `\\` `/` `}`",
        )
    }

    fn plain(&mut self, name: &str, written: impl FnOnce() -> String) -> String {
        match (self.lookup)(name) {
            Some(value) => value,
            None if self.mode.keep_unset => written(),
            None => {
                self.unset.push(name.to_owned());
                String::new()
            }
        }
    }

    /// Letters, digits and `_`; digits alone where it begins with one; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let digits = self.peek().is_some_and(char::is_numeric);
        while let Some(c) = self.peek() {
            if digits && !c.is_numeric() {
                break;
            }
            if name.is_empty() && "@*#?-$!".contains(c) {
                self.next();
                return c.to_string();
            }
            if !c.is_alphanumeric() && c != '_' {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }
    fn push_quoted(&mut self, text: &str) {
        self.word.push_str(text);
    }
    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "V" => "value",
            "EMPTY" => "",
            "TWO" => "a b",
            "PATHS" => "/usr/lib/a.tar.gz",
            "X" => "xxyy",
            "STAR" => "a***yy*",
            "CODE" => "()[]{}^$.*?|\\x",
            "NEEDLE" => "\\*/",
            "FILES" => "/foo*/*/*.txt",
            "한" => "한국어",
            "_a1" => "under",
            "1" => "one",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn word(text: &str) -> String {
        match expand(text, '\\', Mode::default(), &lookup) {
            Ok(expansion) => expansion.text,
            Err(fault) => format!("error at {}: {}", fault.at, fault.message),
        }
    }

    #[test]
    fn words_are_expanded_in_every_form() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$V", "value"),
            ("a${V}b", "avalueb"),
            ("$V.x", "value.x"),
            ("$Vx", ""),
            ("$_a1-", "under-"),
            ("$한", "한국어"),
            ("$12", ""),
            ("$1a", "onea"),
            ("a$", "a$"),
            ("a$.b", "a$.b"),
            ("$ V", "$ V"),
            ("$$", ""),
            ("$@$*$#$?$!$-", ""),
            // quotes and escapes
            ("'$V'", "$V"),
            ("\"$V\"", "value"),
            ("\"it's $V\"", "it's value"),
            ("'a\"b'", "a\"b"),
            ("\\$V", "$V"),
            ("\\\\$V", "\\value"),
            ("\"\\$V\"", "$V"),
            ("\"\\a\\\\\\\"\"", "\\a\\\""),
            ("'\\'", "\\"),
            ("a\\ b", "a b"),
            ("a\\", "a"),
            ("\\'", "'"),
            ("a''b\"\"", "ab"),
            // defaults and alternatives
            ("${V:-w}", "value"),
            ("${V-w}", "value"),
            ("${EMPTY:-w}", "w"),
            ("${EMPTY-w}", ""),
            ("${NO:-w}", "w"),
            ("${NO-w}", "w"),
            ("${NO:-}", ""),
            ("${NO:-$V}", "value"),
            ("${NO:-${ALSO:-deep $V}}", "deep value"),
            ("${NO:-\"a}b\"}", "a}b"),
            ("${NO:-a\\}b}", "a}b"),
            ("${V:+w}", "w"),
            ("${V+w}", "w"),
            ("${EMPTY:+w}", ""),
            ("${EMPTY+w}", "w"),
            ("${NO:+w}", ""),
            ("${NO+w}", ""),
            // demands
            ("${V:?no}", "value"),
            ("${V?no}", "value"),
            ("${EMPTY?no}", ""),
            ("${EMPTY:?no $V}", "error at 0: EMPTY: no value"),
            ("x${EMPTY:?}", "error at 1: EMPTY: is empty"),
            ("${NO?}", "error at 0: NO: is not set"),
            ("${NO:?no}", "error at 0: NO: no"),
            // prefixes and suffixes
            ("${PATHS#*/}", "usr/lib/a.tar.gz"),
            ("${PATHS##*/}", "a.tar.gz"),
            ("${PATHS%.*}", "/usr/lib/a.tar"),
            ("${PATHS%%.*}", "/usr/lib/a"),
            ("${PATHS%/*}", "/usr/lib"),
            ("${X#x}", "xyy"),
            ("${X##x*x}", "yy"),
            ("${X#*x*y}", "y"),
            ("${X#*}", "xxyy"),
            ("${X##*}", ""),
            ("${X#}", "xxyy"),
            ("${X##}", "xxyy"),
            ("${X%}", "xxyy"),
            ("${X%?}", "xxy"),
            ("${X%z}", "xxyy"),
            ("${X#\\?}", "xxyy"),
            ("${X#$EMPTY}", "xxyy"),
            ("${STAR%%\\**\\*}", "a"),
            ("${CODE#()[]{\\}^$.\\*\\?|\\\\}", "x"),
            ("${NO#x}", ""),
            ("${X#\\y}", "error at 0: `\\y` is not a well-formed pattern"),
            // replacements
            ("${X/x/1}", "1xyy"),
            ("${X//x/1}", "11yy"),
            ("${X/x*/1}", "1"),
            ("${X/y/}", "xxy"),
            ("${X//z/1}", "xxyy"),
            ("${X/$EMPTY/ww}", "wwxxyy"),
            ("${X//$EMPTY/-}", "-x-x-y-y-"),
            ("${X//x*/-}", "-"),
            ("${X///}", "xxyy"),
            ("${FILES/$NEEDLE/.}", "/foo.*/*.txt"),
            ("${FILES//$NEEDLE/.}", "/foo..*.txt"),
            ("${PATHS//\\//_}", "_usr_lib_a.tar.gz"),
            ("${X/x/$V}", "valuexyy"),
            // faults
            ("${", "error at 0: `}` is missing"),
            ("a${V", "error at 1: `}` is missing"),
            ("${}", "error at 0: a name is missing behind `${`"),
            ("${:-x}", "error at 0: a name is missing behind `${`"),
            ("${{V}", "error at 0: a name is missing behind `${`"),
            ("${V:", "error at 0: `}` is missing"),
            ("${V:-w", "error at 4: `}` is missing"),
            ("${V=w}", "error at 3: `=` is no form of `${V}`"),
            ("${V:=w}", "error at 3: `:=` is no form of `${V}`"),
            ("${V/x}", "error at 0: the second `/` is missing"),
            ("${V/x/y", "error at 5: `}` is missing"),
            ("a'b", "error at 1: the `'` has no partner"),
            ("\"a'", "error at 0: the `\"` has no partner"),
            ("\"a\\", "error at 0: the `\"` has no partner"),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
    }

    /// Found by fuzzing: the place was taken for the byte before, which is none of a longer character's.
    #[test]
    fn a_form_that_stays_as_it_is_may_be_a_long_character() {
        let mode = Mode { keep_unset: true, ..Mode::default() };
        let fault = expand("${N:\u{e4}x", '\\', mode, &|_| None).unwrap_err();
        assert_eq!((fault.at, fault.message.as_str()), (4, "`}` is missing"));
    }

    #[test]
    fn quotes_names_and_forms_stand_next_to_each_other() {
        for (text, expected) in [
            ("'a'b", "ab"),
            ("a'b'\"c\"d", "abcd"),
            ("'a\\'b", "a\\b"),
            ("'a\\\\b'", "a\\\\b"),
            ("a\\\\b", "a\\b"),
            ("a\\\\\\b", "a\\b"),
            ("\\a\\b", "ab"),
            ("\"a\\b\"", "a\\b"),
            ("\"a\\\"b\"", "a\"b"),
            ("\"'a'\"", "'a'"),
            ("'\"a\"'", "\"a\""),
            ("\"a'$V'b\"", "a'value'b"),
            ("'\"'\"$V\"'\"'", "\"value\""),
            ("\"${V}\"x'$V'", "valuex$V"),
            ("\"${NO:-\"in\"}\"", "in"),
            ("\"\\${V}\"", "${V}"),
            ("${V}${V}", "valuevalue"),
            ("$V$V", "valuevalue"),
            ("$V-$V", "value-value"),
            ("$V:$V", "value:value"),
            ("$V/x", "value/x"),
            ("$V_", ""),
            ("${V}_", "value_"),
            ("x$", "x$"),
            ("x$'$'", "x$$"),
            ("$\"V\"", "$V"),
            ("$é", ""),
            ("안녕$한", "안녕한국어"),
            ("\"${한}\"", "한국어"),
            ("${한:-x}", "한국어"),
            ("$1$2", "one"),
            ("${1}2", "one2"),
            ("$0", ""),
            ("${@}", ""),
            ("${#}", ""),
            ("${NO-}", ""),
            ("${NO:-'$V'}", "$V"),
            ("${NO:-\"$V\"}", "value"),
            ("${NO:-\\$V}", "$V"),
            ("${NO:-a b}", "a b"),
            ("${NO:-:-}", ":-"),
            ("${NO:--}", "-"),
            ("${NO--}", "-"),
            ("${V:+${TWO}}", "a b"),
            ("${V:+\\}}", "}"),
            ("${V:+'}'}", "}"),
            ("${NO:+${ALSO?no}}", "error at 6: ALSO: no"),
            ("${V:-${ALSO?no}}", "error at 5: ALSO: no"),
            ("${V?${ALSO:-x}}", "value"),
            ("${EMPTY:?}", "error at 0: EMPTY: is empty"),
            ("${V+}", ""),
            // patterns: shortest and longest, from both ends
            ("${PATHS#/}", "usr/lib/a.tar.gz"),
            ("${PATHS#/*/}", "lib/a.tar.gz"),
            ("${PATHS##/*/}", "a.tar.gz"),
            ("${PATHS%/*/*}", "/usr"),
            ("${PATHS%%/*}", ""),
            ("${PATHS#?usr}", "/lib/a.tar.gz"),
            ("${PATHS%.??}", "/usr/lib/a.tar"),
            ("${STAR#a\\*}", "**yy*"),
            ("${STAR##*\\*}", ""),
            ("${STAR%\\*}", "a***yy"),
            ("${V%$V}", ""),
            ("${V#${V%?}}", "e"),
            ("${V#v*l}", "ue"),
            ("${V##v*u}", "e"),
            ("${V%u*}", "val"),
            ("${V%'e'}", "valu"),
            ("${EMPTY#*}", ""),
            ("${한#한}", "국어"),
            ("${한%?}", "한국"),
            // replacements
            ("${V/a/}", "vlue"),
            ("${V/?/X}", "Xalue"),
            ("${V//?/X}", "XXXXX"),
            ("${V/*/X}", "X"),
            ("${V/a*u/-}", "v-e"),
            ("${V/nothing/x}", "value"),
            ("${V/value/$TWO}", "a b"),
            ("${V/${V%lue}/x}", "xlue"),
            ("${V/a/'b c'}", "vb clue"),
            ("${PATHS/\\/usr/}", "/lib/a.tar.gz"),
            ("${PATHS//[a-z]/x}", "/usr/lib/a.tar.gz"),
            ("${CODE/./X}", "()[]{}^$X*?|\\x"),
            ("${한/국/X}", "한X어"),
            ("${V/a}", "error at 0: the second `/` is missing"),
            ("${V//a/b", "error at 6: `}` is missing"),
            ("${V~x}", "error at 3: `~` is no form of `${V}`"),
            ("${V:x}", "error at 3: `:x` is no form of `${V}`"),
            ("${ V}", "error at 2: ` ` is no form of `${NAME}`"),
            ("${V }", "error at 3: ` ` is no form of `${V}`"),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
    }

    #[test]
    fn the_escape_directive_changes_the_escape_character() {
        let word = |text| expand(text, '`', Mode::default(), &lookup).unwrap().text;
        assert_eq!(word("`$V"), "$V");
        assert_eq!(word("\\$V"), "\\value");
        assert_eq!(word("c:\\dir"), "c:\\dir");
        assert_eq!(word("\"`\"``\""), "\"`");
    }

    #[test]
    fn words_split_at_blanks_that_no_quotes_hold() {
        for (text, expected) in [
            ("a b", &["a", "b"][..]),
            ("  a\tb ", &["a", "b"]),
            ("$TWO", &["a", "b"]),
            ("\"$TWO\"", &["a b"]),
            ("x${TWO}y", &["xa", "by"]),
            ("a\\ b", &["a b"]),
            ("'a b'c", &["a bc"]),
            ("$EMPTY", &[]),
            ("''", &[]),
            ("", &[]),
            (" \u{a0} ", &[]),
            ("a'' ''b", &["a", "b"]),
            ("\"a b\" c", &["a b", "c"]),
            ("a\"b c\"d e", &["ab cd", "e"]),
            ("\" a \"", &[" a "]),
            ("${NO:-x y}", &["x", "y"]),
            ("${NO:-\"x y\"}", &["x", "y"]),
            ("\"${NO:-x y}\"", &["x y"]),
            ("$TWO$TWO", &["a", "ba", "b"]),
            ("$TWO $TWO", &["a", "b", "a", "b"]),
            ("\\ a", &[" a"]),
            ("a\\\nb", &["a\nb"]),
            ("a\nb", &["a", "b"]),
        ] {
            assert_eq!(expand(text, '\\', Mode::default(), &lookup).unwrap().words, expected, "{text}");
        }
    }

    #[test]
    fn only_plain_uses_of_unset_variables_are_told() {
        let unset = |text| expand(text, '\\', Mode::default(), &lookup).unwrap().unset;
        assert_eq!(unset("$A ${B} ${C:-} ${D+x} '$E' $V"), ["A", "B"]);
    }

    #[test]
    fn a_heredoc_body_keeps_its_quotes_and_unset_variables_can_stay() {
        let body = Mode { quotes_mean_nothing: true, ..Mode::default() };
        assert_eq!(expand("it's \"$V\" \\$V", '\\', body, &lookup).unwrap().text, "it's \"value\" $V");
        let keep = Mode { keep_unset: true, ..Mode::default() };
        let text = "$NO ${NO} ${NO:-w} ${NO%x} ${NO/a/b} $V";
        assert_eq!(
            expand(text, '\\', keep, &lookup).unwrap().text,
            "$NO ${NO} ${NO:-w} ${NO%x} ${NO/a/b} value"
        );
    }

    #[test]
    fn deep_nesting_is_refused_and_long_values_stay_fast() {
        assert!(word(&"${A:-".repeat(100_000)).starts_with("error"));
        let long = "a".repeat(3000);
        let lookup = |_: &str| Some(long.clone());
        let text = "${A##*a*a*a*a*b}";
        assert_eq!(expand(text, '\\', Mode::default(), &lookup).unwrap().text, long);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let pieces = [
            "$", "{", "}", "V", ":", "-", "+", "?", "#", "%", "/", "\\", "'", "\"", " ", "*", "é", "NO", "`",
        ];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[usize::try_from(seed >> 33).unwrap() % pieces.len()]);
            }
            for mode in [
                Mode::default(),
                Mode { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Mode::default() },
                Mode { quotes_mean_nothing: true, ..Mode::default() },
            ] {
                if let Err(fault) = expand(&text, '\\', mode, &lookup) {
                    assert!(fault.at <= text.len(), "{text}");
                }
            }
        }
    }
}
