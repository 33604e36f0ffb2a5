//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` any run, `?` one character, neither a line end.

pub(super) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Char(char),
    One,
    Run,
}

impl Pattern {
    /// `None` where a backslash quotes what needs no quoting.
    pub(super) fn parse(text: &str) -> Option<Pattern> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Run,
                '?' => Token::One,
                '\\' => Token::Char(chars.next().filter(|c| "*?\\/}".contains(*c))?),
                c => Token::Char(c),
            });
        }
        Some(Pattern(tokens))
    }

    pub(super) fn without_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = pick(&ends(&self.0, &chars), longest).unwrap_or(0);
        chars[end..].iter().collect()
    }

    pub(super) fn without_suffix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let end = pick(&ends(&tokens, &chars), longest).unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    /// The leftmost longest match, or all of them one after the other.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut last_end = None;
        while at <= chars.len() {
            match pick(&ends(&self.0, &chars[at..]), true).map(|length| at + length) {
                // An empty match right behind a match is none (Go's regexp).
                Some(end) if !(end == at && last_end == Some(at)) => {
                    out.push_str(replacement);
                    last_end = Some(end);
                    if !all {
                        out.extend(&chars[end..]);
                        return out;
                    }
                    if end == at {
                        out.extend(chars.get(at));
                        at += 1;
                    } else {
                        at = end;
                    }
                }
                _ => {
                    out.extend(chars.get(at));
                    at += 1;
                }
            }
        }
        out
    }
}

/// For every length, whether the pattern matches that many characters from the first.
fn ends(tokens: &[Token], chars: &[char]) -> Vec<bool> {
    let mut live = vec![false; chars.len() + 1];
    live[0] = true;
    for token in tokens {
        let mut next = vec![false; chars.len() + 1];
        for (at, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            match (token, chars.get(at)) {
                (Token::Char(c), Some(d)) if c == d => next[at + 1] = true,
                (Token::One, Some(c)) if *c != '\n' => next[at + 1] = true,
                (Token::Run, _) => next[at] = true,
                _ => {}
            }
        }
        if *token == Token::Run {
            for at in 0..chars.len() {
                next[at + 1] |= next[at] && chars[at] != '\n';
            }
        }
        live = next;
    }
    live
}

fn pick(ends: &[bool], longest: bool) -> Option<usize> {
    if longest { ends.iter().rposition(|end| *end) } else { ends.iter().position(|end| *end) }
}
