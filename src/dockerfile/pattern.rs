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
    /// Stops once the result has more than `limit` bytes.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool, limit: usize) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut last_end = None;
        while at <= chars.len() && out.len() <= limit {
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

/// The lengths that the pattern matches from the first character on, in order.
fn ends(tokens: &[Token], chars: &[char]) -> Vec<usize> {
    let mut live = vec![0];
    for token in tokens {
        let mut next: Vec<usize> = Vec::new();
        for at in live {
            match (token, chars.get(at)) {
                (Token::Char(c), Some(d)) if c == d => next.push(at + 1),
                (Token::One, Some(c)) if *c != '\n' => next.push(at + 1),
                (Token::Run, _) if next.last().is_none_or(|last| *last < at) => {
                    let length = chars[at..].iter().position(|c| *c == '\n').unwrap_or(chars.len() - at);
                    next.extend(at..=at + length);
                }
                _ => {}
            }
        }
        live = next;
    }
    live
}

fn pick(ends: &[usize], longest: bool) -> Option<usize> {
    if longest { ends.last().copied() } else { ends.first().copied() }
}
