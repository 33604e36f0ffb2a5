//! Which language a file says it is written in: `# syntax=`, `// syntax=`, or `{"syntax": ".."}` (BuildKit).

use super::lines::directive;

/// What the file names, whole; a `#!` line before it means nothing.
pub(super) fn detect(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = match text.strip_prefix("#!") {
        Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest),
        None => text,
    };
    ["#", "//"].iter().find_map(|comment| in_comments(text, comment)).or_else(|| in_json(text))
}

/// Of the directives that stand first; whatever is none ends them.
fn in_comments(text: &str, comment: &str) -> Option<String> {
    let mut seen = Vec::new();
    for line in text.lines() {
        let (name, value) = directive(line, comment)?;
        let name = name.to_ascii_lowercase();
        if name == "syntax" {
            return Some(value.to_owned());
        }
        if !["escape", "check"].contains(&name.as_str()) || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    None
}

fn in_json(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(value.get("syntax")?.as_str()?.to_owned())
}

/// Docker's own frontend, whatever its version.
pub(super) fn is_known(syntax: &str) -> bool {
    let image = syntax.split([' ', '@']).next().unwrap_or_default();
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = image.split(':').next().unwrap_or_default();
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_its_language_in_three_ways() {
        for (text, expected) in [
            ("# syntax=a/b:1\nFROM x", Some("a/b:1")),
            ("#syntax = a/b --flag \r\nFROM x", Some("a/b --flag")),
            ("\u{feff}# SYNTAX=a", Some("a")),
            ("#!/usr/bin/env x\n# syntax=a", Some("a")),
            ("# escape=`\n# check=skip=all\n# syntax=a", Some("a")),
            ("// syntax=a\n{}", Some("a")),
            ("{\"syntax\": \"a\", \"more\": 1}", Some("a")),
            ("#!/x\n{\"syntax\": \"a\"}", Some("a")),
            ("# a comment\n# syntax=a", None),
            ("\n# syntax=a", None),
            ("FROM x\n# syntax=a", None),
            ("# syntax=\n", None),
            ("# other=1\n# syntax=a", None),
            ("{\"syntax\": 1}", None),
            ("[\"syntax\"]", None),
            ("#!/x", None),
            ("", None),
        ] {
            assert_eq!(detect(text).as_deref(), expected, "{text}");
        }
    }
}
