//! Wildcards in COPY's sources: Go's `path/filepath.Match`, whose `*` and `?` never cross a `/`.
//!
//! Matching walks a small automaton over the path once, so no pattern is slow on any path. Characters are code
//! points; a byte that is not UTF-8 is a character of its own, equal to itself alone.

use crate::error::{Error, Result};

/// A pattern made ready; see [`matches`] for single use.
#[derive(Clone, Debug)]
pub struct Pattern {
    program: Program,
}

/// Has the text a character that makes it a pattern? A backslash alone quotes; it does not.
pub fn is_pattern(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// Both relative or both absolute, with single slashes. An error for a malformed pattern.
pub fn matches(pattern: &[u8], path: &[u8]) -> Result<bool> {
    Ok(Pattern::parse(pattern)?.matches(path))
}

impl Pattern {
    /// `*` any run without `/`, `?` one character but `/`, `[a-z]` and `[^a-z]`, `\` quotes.
    pub fn parse(pattern: &[u8]) -> Result<Pattern> {
        let text = decode(pattern);
        let mut ops = Vec::new();
        let mut at = 0;
        while let Some(&c) = text.get(at) {
            at += 1;
            match ascii(c) {
                b'*' => ops.push(Op::Loop(Set::not_slash())),
                b'?' => ops.push(Op::One(Set::not_slash())),
                b'[' => {
                    let (set, next) = class(&text, at).ok_or_else(|| malformed(pattern))?;
                    ops.push(Op::One(set));
                    at = next;
                }
                b'\\' => {
                    let quoted = *text.get(at).ok_or_else(|| malformed(pattern))?;
                    ops.push(Op::One(Set::only(quoted)));
                    at += 1;
                }
                _ => ops.push(Op::One(Set::only(c))),
            }
        }
        Ok(Pattern { program: Program::new(ops) })
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        self.program.matches(path)
    }

    /// Could anything below the directory match? Lets a walk leave out whole trees.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.program.alive_below(dir)
    }
}

fn malformed(pattern: &[u8]) -> Error {
    Error::invalid(format!("`{}` is not a well-formed pattern", String::from_utf8_lossy(pattern)))
        .hint("a `[` needs its `]` and a range needs both ends; write `\\[` for the character itself")
}

/// Go's grammar of a class, from behind its `[`; gives the set and what comes after `]`.
fn class(text: &[u32], mut at: usize) -> Option<(Set, usize)> {
    let negated = text.get(at) == Some(&u32::from(b'^'));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        if text.get(at) == Some(&u32::from(b']')) && !ranges.is_empty() {
            return Some((Set { negated, ranges }, at + 1));
        }
        let (low, next) = class_end(text, at)?;
        at = next;
        let mut high = low;
        if text.get(at) == Some(&u32::from(b'-')) {
            (high, at) = class_end(text, at + 1)?;
        }
        ranges.push((low, high));
    }
}

/// One end of a range, which something must follow.
fn class_end(text: &[u32], mut at: usize) -> Option<(u32, usize)> {
    match ascii(*text.get(at)?) {
        b'-' | b']' => return None,
        b'\\' => at += 1,
        _ => {}
    }
    let c = *text.get(at)?;
    (c < NOT_UTF8 && at + 1 < text.len()).then_some((c, at + 1))
}

/// A linear program: every state is a place in it, several may be live at once.
#[derive(Clone, Debug)]
pub(super) struct Program {
    ops: Vec<Op>,
    /// What every match begins and ends with; most paths fail here.
    head: Vec<u8>,
    tail: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Takes one character.
    One(Set),
    /// Takes any number of characters.
    Loop(Set),
    /// Goes on, or over this many of the following ops.
    Skip(usize),
    /// Goes on at the beginning of the path alone.
    Start,
}

#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) negated: bool,
    /// Inclusive.
    pub(super) ranges: Vec<(u32, u32)>,
}

impl Set {
    pub(super) fn only(c: u32) -> Set {
        Set { negated: false, ranges: vec![(c, c)] }
    }
    pub(super) fn not_slash() -> Set {
        Set { negated: true, ranges: vec![(u32::from(b'/'), u32::from(b'/'))] }
    }
    fn single(&self) -> Option<u32> {
        match self.ranges[..] {
            [(low, high)] if low == high && !self.negated => Some(low),
            _ => None,
        }
    }
    fn has(&self, c: u32) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }
}

/// Live places of a program; the one behind its last op is acceptance.
struct States {
    live: Vec<bool>,
    next: Vec<bool>,
}

impl Program {
    pub(super) fn new(ops: Vec<Op>) -> Program {
        let literal = |op: &Op| match op {
            Op::One(set) => set.single(),
            Op::Loop(_) | Op::Skip(_) | Op::Start => None,
        };
        let head = encode(ops.iter().map_while(literal));
        // What can be jumped over is not in every match.
        let jumped = ops.iter().enumerate().filter_map(|(place, op)| match op {
            Op::Skip(count) => Some(place + 1 + count),
            _ => None,
        });
        let fixed = jumped.max().unwrap_or(0);
        let mut tail: Vec<u32> = ops[fixed..].iter().rev().map_while(literal).collect();
        tail.reverse();
        Program { head, tail: encode(tail.into_iter()), ops }
    }

    /// The whole path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        if !path.starts_with(&self.head) || !path.ends_with(&self.tail) {
            return false;
        }
        let mut states = self.start();
        for c in decode(path) {
            self.step(&mut states, c);
        }
        states.live[self.ops.len()]
    }

    fn start(&self) -> States {
        let mut states =
            States { live: vec![false; self.ops.len() + 1], next: vec![false; self.ops.len() + 1] };
        self.reach(&mut states.live, 0, true);
        states
    }

    /// Marks a place and all that is reached from it without taking a character.
    fn reach(&self, live: &mut [bool], place: usize, at_start: bool) {
        let mut open = vec![place];
        while let Some(place) = open.pop() {
            if std::mem::replace(&mut live[place], true) {
                continue;
            }
            match self.ops.get(place) {
                Some(Op::Loop(_)) => open.push(place + 1),
                Some(Op::Skip(count)) => open.extend([place + 1, place + 1 + count]),
                Some(Op::Start) if at_start => open.push(place + 1),
                Some(Op::One(_) | Op::Start) | None => {}
            }
        }
    }

    fn step(&self, states: &mut States, c: u32) {
        states.next.fill(false);
        for (place, op) in self.ops.iter().enumerate() {
            if !states.live[place] {
                continue;
            }
            match op {
                Op::One(set) if set.has(c) => self.reach(&mut states.next, place + 1, false),
                Op::Loop(set) if set.has(c) => self.reach(&mut states.next, place, false),
                Op::One(_) | Op::Loop(_) | Op::Skip(_) | Op::Start => {}
            }
        }
        std::mem::swap(&mut states.live, &mut states.next);
    }

    /// Is some place live once `dir` and a slash are read, that can still take a character?
    pub(super) fn alive_below(&self, dir: &[u8]) -> bool {
        let mut states = self.start();
        for c in decode(dir).into_iter().chain([u32::from(b'/')]) {
            self.step(&mut states, c);
        }
        self.ops.iter().zip(&states.live).any(|(op, live)| *live && matches!(op, Op::One(_) | Op::Loop(_)))
    }
}

const NOT_UTF8: u32 = 0x11_0000;

/// Code points; a byte that is not UTF-8 becomes a number above all code points.
pub(super) fn decode(bytes: &[u8]) -> Vec<u32> {
    let mut text = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().map(u32::from));
        text.extend(chunk.invalid().iter().map(|byte| NOT_UTF8 + u32::from(*byte)));
    }
    text
}

fn encode(text: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for c in text {
        match char::from_u32(c) {
            Some(c) => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => bytes.extend(u8::try_from(c - NOT_UTF8)),
        }
    }
    bytes
}

/// The character where it is ASCII; 0 otherwise, which no pattern can hold (a path has no NUL).
pub(super) fn ascii(c: u32) -> u8 {
    u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_go_s_filepath_match_does() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("[a/]", "/", true),
            ("*.txt", ".txt", true),
            ("?", ".", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()).unwrap(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_wherever_the_fault_stands() {
        for pattern in
            ["[", "[^", "[^bc", "a[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "\\", "zzz/*/[", "[\\"]
        {
            assert!(matches(pattern.as_bytes(), b"a").is_err(), "{pattern}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_characters() {
        assert!(matches(b"a?b", b"a\xffb").unwrap());
        assert!(matches(b"a\xffb", b"a\xffb").unwrap());
        assert!(!matches(b"a\xffb", b"a\xfeb").unwrap());
    }

    #[test]
    fn only_wildcards_make_a_pattern() {
        assert!(is_pattern(b"a*") && is_pattern(b"a?") && is_pattern(b"[a]"));
        assert!(!is_pattern(b"a\\*b") && !is_pattern(b"a]b"));
    }

    #[test]
    fn a_pattern_tells_where_it_cannot_match() {
        let pattern = Pattern::parse(b"src/*/main.c").unwrap();
        assert!(pattern.may_match_below(b"src") && pattern.may_match_below(b"src/a"));
        assert!(!pattern.may_match_below(b"doc") && !pattern.may_match_below(b"src/a/b"));
    }

    #[test]
    fn many_stars_stay_fast() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()).unwrap());
    }
}
