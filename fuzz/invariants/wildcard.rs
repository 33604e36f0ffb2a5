//! Wildcards against a plain backtracking reading of Go's `filepath.Match`: pattern, NUL, path.

use outcrop::context::wildcard::{Pattern, is_pattern};

enum Token {
    Star,
    Any,
    One(char),
    Class(bool, Vec<(char, char)>),
}

pub fn check(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (pattern, path) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let ours = Pattern::parse(pattern).map(|pattern| pattern.matches(path));
    if let Ok(parsed) = Pattern::parse(pattern)
        && parsed.matches(path)
    {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            assert!(at + 1 == path.len() || parsed.may_match_below(&path[..at]));
        }
    }
    if !is_pattern(pattern) && !pattern.contains(&b'\\') {
        assert_eq!(ours.as_ref().ok(), Some(&(pattern == path)));
    }
    let (Ok(pattern), Ok(path)) = (std::str::from_utf8(pattern), std::str::from_utf8(path)) else { return };
    // Backtracking takes as long as it likes.
    if pattern.len() > 40 || path.len() > 60 {
        return;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let path: Vec<char> = path.chars().collect();
    let slow = tokens(&pattern).map(|tokens| matches(&tokens, &path));
    assert_eq!(ours.ok(), slow);
}

fn matches(tokens: &[Token], path: &[char]) -> bool {
    let Some((token, rest)) = tokens.split_first() else { return path.is_empty() };
    match (token, path.split_first()) {
        (Token::Star, _) => {
            let longest = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=longest).any(|length| matches(rest, &path[length..]))
        }
        (_, None) => false,
        (Token::Any, Some((c, path))) => *c != '/' && matches(rest, path),
        (Token::One(wanted), Some((c, path))) => c == wanted && matches(rest, path),
        (Token::Class(negated, ranges), Some((c, path))) => {
            ranges.iter().any(|(low, high)| low <= c && c <= high) != *negated && matches(rest, path)
        }
    }
}

/// `None` for a malformed pattern.
fn tokens(mut pattern: &[char]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some((c, rest)) = pattern.split_first() {
        pattern = rest;
        match c {
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            '\\' => {
                let (quoted, rest) = pattern.split_first()?;
                tokens.push(Token::One(*quoted));
                pattern = rest;
            }
            '[' => {
                let negated = pattern.first() == Some(&'^');
                pattern = &pattern[usize::from(negated)..];
                let mut ranges = Vec::new();
                while pattern.first() != Some(&']') || ranges.is_empty() {
                    let low = class_end(&mut pattern)?;
                    let mut high = low;
                    if pattern.first() == Some(&'-') {
                        pattern = &pattern[1..];
                        high = class_end(&mut pattern)?;
                    }
                    ranges.push((low, high));
                }
                pattern = &pattern[1..];
                tokens.push(Token::Class(negated, ranges));
            }
            c => tokens.push(Token::One(*c)),
        }
    }
    Some(tokens)
}

fn class_end(pattern: &mut &[char]) -> Option<char> {
    if matches!(pattern.first()?, '-' | ']') {
        return None;
    }
    if pattern[0] == '\\' {
        *pattern = &pattern[1..];
    }
    let (c, rest) = pattern.split_first()?;
    *pattern = rest;
    (!rest.is_empty()).then_some(*c)
}
