//! Patterns of names, as Go's `path.Match` reads them.

/// `*` and `?` match no slash; `[a-z]` and `[^a-z]` are classes; `\` takes the next character as it is. A pattern that
/// is wrong matches nothing.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    here(&pattern, &text)
}

fn here(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['*', rest @ ..], _) => {
            let end = text.iter().position(|c| *c == '/').unwrap_or(text.len());
            (0..=end).any(|taken| here(rest, &text[taken..]))
        }
        (['?', rest @ ..], [c, after @ ..]) => *c != '/' && here(rest, after),
        (['[', rest @ ..], [c, after @ ..]) => match class(rest, *c) {
            Some((true, rest)) => *c != '/' && here(rest, after),
            _ => false,
        },
        (['\\', wanted, rest @ ..], [c, after @ ..]) => wanted == c && here(rest, after),
        ([wanted, rest @ ..], [c, after @ ..]) => *wanted != '\\' && wanted == c && here(rest, after),
        (_, []) => false,
    }
}

/// Whether the character is in it, and what follows it; `None` where it is not closed.
fn class(mut pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let negated = pattern.first() == Some(&'^');
    if negated {
        pattern = &pattern[1..];
    }
    let mut found = false;
    let mut first = true;
    loop {
        match pattern {
            [']', rest @ ..] if !first => return Some((found != negated, rest)),
            [low, '-', high, rest @ ..] if *high != ']' => {
                found |= (*low..=*high).contains(&c);
                pattern = rest;
            }
            ['\\', one, rest @ ..] | [one, rest @ ..] => {
                found |= *one == c;
                pattern = rest;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, expected) in [
            ("debian", "debian", true),
            ("deb*", "debian", true),
            ("*", "user/app", false),
            ("*/*", "user/app:1", true),
            ("debian:1?", "debian:12", true),
            ("debian:[0-9]*", "debian:12", true),
            ("debian:[^0-9]*", "debian:12", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("[a", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
