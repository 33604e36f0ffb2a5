//! Which language, and which version of it, a file says it is written in: `# syntax=`, `// syntax=`, or
//! `{"syntax": ".."}` (BuildKit).

use super::PlanOptions;
use super::lines::directive;

/// The newest version of the frontend whose stable language is read here: 1.26.
const NEWEST: (u32, u32) = (1, 26);

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
    tag(syntax).is_some()
}

/// What is to be said where this is not that language. A build argument goes before the directive. An older version
/// says nothing: whatever it can do, this can.
pub(super) fn warning(file: &str, directive: Option<&str>, options: &PlanOptions) -> Option<String> {
    let given = options.build_args.get("BUILDKIT_SYNTAX").filter(|given| !given.is_empty());
    let (syntax, shown) = match given {
        Some(given) => (given.as_str(), format!("the build argument `BUILDKIT_SYNTAX={given}`")),
        None => (directive?, format!("`# syntax={}`", directive?)),
    };
    let Some(tag) = tag(syntax) else {
        return Some(format!("{file}: {shown} names another language; this is read as a Dockerfile"));
    };
    let newer = version(tag).is_some_and(|version| version > NEWEST);
    newer.then(|| {
        format!("{file}: {shown} is newer than the language here; it is read as {}.{}", NEWEST.0, NEWEST.1)
    })
}

/// The tag of Docker's own frontend, empty where there is none; `None` for another image.
fn tag(syntax: &str) -> Option<&str> {
    let image = syntax.split([' ', '@']).next().unwrap_or_default();
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let (name, tag) = image.split_once(':').unwrap_or((image, ""));
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream").then_some(tag)
}

/// `1`, `1.7`, `1.7.1`, each with `-labs` or not; other tags (`master`, `latest`) have no version.
fn version(tag: &str) -> Option<(u32, u32)> {
    let numbers = tag.split('-').next().unwrap_or_default();
    let mut parts = numbers.split('.');
    let major = parts.next()?.parse().ok()?;
    // Without a minor one it is the newest of its major version.
    let minor = parts.next().map_or(Some(0), |minor| minor.parse().ok())?;
    Some((major, minor))
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

    #[test]
    fn only_other_languages_and_newer_versions_are_told() {
        let told = |syntax: &str| warning("D", Some(syntax), &PlanOptions::default());
        for syntax in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1-labs",
            "docker/dockerfile:1.0.0-experimental",
            "docker/dockerfile:1.26",
            "docker/dockerfile:1.26.3-labs",
            "docker/dockerfile:latest",
            "docker.io/docker/dockerfile:1.7@sha256:00",
            "docker/dockerfile-upstream:master",
        ] {
            assert_eq!(told(syntax), None, "{syntax}");
        }
        for syntax in ["docker/dockerfile:1.27", "docker/dockerfile:1.100-labs", "docker/dockerfile:2"] {
            assert_eq!(
                told(syntax).unwrap(),
                format!("D: `# syntax={syntax}` is newer than the language here; it is read as 1.26")
            );
        }
        assert_eq!(
            told("example/lang").unwrap(),
            "D: `# syntax=example/lang` names another language; this is read as a Dockerfile"
        );
    }

    #[test]
    fn a_build_argument_goes_before_the_directive() {
        let options = |syntax: &str| PlanOptions {
            build_args: [("BUILDKIT_SYNTAX".to_owned(), syntax.to_owned())].into(),
            ..PlanOptions::default()
        };
        assert_eq!(warning("D", Some("example/lang"), &options("docker/dockerfile:1")), None);
        assert_eq!(
            warning("D", None, &options("example/lang")).unwrap(),
            "D: the build argument `BUILDKIT_SYNTAX=example/lang` names another language; this is read as a Dockerfile"
        );
    }
}
