//! `.dockerignore` against a plain reading of the same rules: rules, NUL, paths separated by NULs.

use outcrop::context::ignore::{Ignore, clean};

pub fn check(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let rules = parts.next().unwrap_or_default();
    let Ok(ignore) = Ignore::parse(rules) else { return };
    let windows =
        Ignore::parse(rules.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]).as_slice());
    let slow = std::str::from_utf8(rules).ok().and_then(slow_rules);
    for path in parts.take(8) {
        let path = clean(path);
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        if path.is_empty() || path == b"." || path.starts_with(b"..") || path.len() > 80 {
            continue;
        }
        let excluded = ignore.excluded(path, false);
        if let Ok(windows) = &windows {
            assert_eq!(windows.excluded(path, false), excluded, "line ends mean something");
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if ignore.may_skip_dir(&path[..at]) {
                assert!(excluded, "a directory is skipped that holds something");
            }
        }
        if let (Some(slow), Ok(path)) = (&slow, std::str::from_utf8(path)) {
            assert_eq!(slow_excluded(slow, path), excluded, "{path}");
        }
    }
}

/// Keeps, and the pattern. `None` where the plain reading cannot read it: classes and backslashes.
fn slow_rules(text: &str) -> Option<Vec<(bool, Vec<char>)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > 60
        || text.contains(['[', ']', '\\', '^', '\n', '\r']) && text.contains(['[', ']', '\\', '^'])
    {
        return None;
    }
    let mut rules = Vec::new();
    for line in text.split('\n') {
        let line = if line.starts_with('#') { "" } else { line.trim() };
        if line.is_empty() {
            continue;
        }
        let (keeps, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
        let mut pattern = match pattern.is_empty() {
            true => String::new(),
            false => String::from_utf8(clean(pattern.as_bytes())).ok()?,
        };
        if pattern.len() > 1 && pattern.starts_with('/') {
            pattern.remove(0);
        }
        // A `!` that comes to light behind a `./` is for the parser's own tests.
        let written = format!("{}{pattern}", if keeps { "!" } else { "" });
        if clean(written.as_bytes()) != written.as_bytes() || (!keeps && pattern.starts_with('!')) {
            return None;
        }
        rules.push((keeps, pattern.chars().collect()));
    }
    Some(rules)
}

fn slow_excluded(rules: &[(bool, Vec<char>)], path: &str) -> bool {
    let parents: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]).collect();
    let mut before = vec![false; rules.len()];
    let mut excluded = false;
    for path in parents {
        excluded = false;
        for (n, (keeps, pattern)) in rules.iter().enumerate() {
            if !before[n] && *keeps == excluded {
                before[n] = slow_matches(pattern, path);
            }
            if before[n] {
                excluded = !keeps;
            }
        }
    }
    excluded
}

/// The shortcuts that moby takes, which are part of what its patterns mean; else the expression it makes.
fn slow_matches(pattern: &[char], path: &str) -> bool {
    let special = |text: &[char]| text.iter().any(|c| matches!(c, '*' | '?'));
    let text = |chars: &[char]| chars.iter().collect::<String>();
    if !special(pattern) {
        return text(pattern) == path;
    }
    if let Some(rest) = pattern.strip_prefix(&['*', '*'][..])
        && !special(rest)
    {
        let rest = text(rest);
        return path.ends_with(&rest) || rest.strip_prefix('/') == Some(path);
    }
    if let Some(start) = pattern.strip_suffix(&['*', '*'][..])
        && !special(start)
    {
        return path.starts_with(&text(start));
    }
    expression(pattern, &path.chars().collect::<Vec<_>>())
}

fn expression(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/'][..]).unwrap_or(rest);
            if rest.is_empty() {
                return !path.contains(&'\n');
            }
            // `(.*/)?`
            expression(rest, path)
                || (0..path.len())
                    .take_while(|at| path[*at] != '\n')
                    .any(|at| path[at] == '/' && expression(rest, &path[at + 1..]))
        }
        ['*', rest @ ..] => {
            let longest = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=longest).any(|length| expression(rest, &path[length..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|c| *c != '/') && expression(rest, &path[1..]),
        [c, rest @ ..] => path.first() == Some(c) && expression(rest, &path[1..]),
    }
}
