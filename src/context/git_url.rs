//! What names a git repository, as BuildKit reads it: `https://host/x.git#ref:dir`, `git@host:path`, `ssh://`,
//! `git://`, and the same with a query: `?ref=&tag=&branch=&commit=&checksum=&subdir=&keep-git-dir=&submodules=`.

use super::ignore;
use crate::error::{Error, Result};
use crate::plan::GitSource;
use crate::registry::{percent_decoded, without_password};

/// `None`: it names no repository. Over HTTP only what ends with `.git` does.
pub fn parse(text: &str) -> Result<Option<GitSource>> {
    parse_as(text, false)
}

/// `is_git`: it is said elsewhere that an address over HTTP is a repository's.
pub fn parse_as(text: &str, is_git: bool) -> Result<Option<GitSource>> {
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(None);
    }
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let Some(scheme) = scheme(before) else {
        return if is_scp(before) { read(before, "", fragment, text).map(Some) } else { Ok(None) };
    };
    let (address, query) = before.split_once('?').unwrap_or((before, ""));
    let path =
        address.split_once("://").map_or("", |(_, rest)| rest).split_once('/').map_or("", |(_, path)| path);
    match scheme.as_str() {
        "git" | "ssh" => {}
        "http" | "https" if is_git || path.ends_with(".git") => {}
        _ => return Ok(None),
    }
    read(address, query, fragment, text).map(Some)
}

/// The same for a build context, which also may be `github.com/user/repository` or a repository of this machine.
pub fn parse_context(text: &str) -> Result<Option<GitSource>> {
    if let Some(rest) = text.strip_prefix("github.com/") {
        let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (address, query) = before.split_once('?').unwrap_or((before, ""));
        return read(&format!("https://github.com/{address}"), query, fragment, text).map(Some);
    }
    if text.starts_with("file://") {
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = before.split_once('?').unwrap_or((before, ""));
        return read(address, query, fragment, text).map(Some);
    }
    parse(text)
}

/// A whole commit id, of SHA-1 or SHA-256.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The beginning of a commit id, as `--checksum` takes it.
pub fn is_commit_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let good = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    good.then(|| scheme.to_ascii_lowercase())
}

/// `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let word = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let Some((host, path)) = rest.split_once(':') else { return false };
    word(user) && word(host) && !path.is_empty()
}

fn read(remote: &str, query: &str, fragment: &str, text: &str) -> Result<GitSource> {
    let bad = |what: String| {
        Error::invalid(format!("`{}`: {what}", without_password(text)))
            .hint("write URL#REF:DIRECTORY, or URL?ref=REF&subdir=DIRECTORY")
    };
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut found = Found { reference: decoded(reference), subdir: decoded(subdir), ..Found::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        found.query(&decoded(name), decoded(&value.replace('+', " "))).map_err(bad)?;
    }
    found.finish(remote).map_err(bad)
}

#[derive(Default)]
struct Found {
    reference: String,
    subdir: String,
    tag: String,
    branch: String,
    checksum: String,
    keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    seen: Vec<String>,
}

impl Found {
    fn query(&mut self, name: &str, value: String) -> Result<(), String> {
        if self.seen.iter().any(|seen| seen == name) {
            return Err(format!("`{name}` stands twice in the query"));
        }
        self.seen.push(name.to_owned());
        if value.is_empty() && !matches!(name, "submodules" | "keep-git-dir") {
            return Err(format!("`{name}` has no value in the query"));
        }
        let switch = |value: &str| match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!("`{name}={value}` is neither true nor false")),
        };
        match name {
            "ref" => set(&mut self.reference, value, "the reference"),
            "subdir" => set(&mut self.subdir, value, "the directory"),
            "tag" => set(&mut self.tag, value, "the tag"),
            "branch" => set(&mut self.branch, value, "the branch"),
            "commit" | "checksum" => set(&mut self.checksum, value, "the commit"),
            "keep-git-dir" => switch(&value).map(|value| self.keep_git_dir = value),
            "submodules" => switch(&value).map(|value| self.submodules = value),
            _ => Err(format!("`{name}` means nothing in the query of a git repository")),
        }
    }

    fn finish(mut self, remote: &str) -> Result<GitSource, String> {
        if !self.tag.is_empty() && !self.branch.is_empty() {
            return Err("it names a tag and a branch".into());
        }
        for (name, prefix) in [(&self.tag, "refs/tags/"), (&self.branch, "refs/heads/")] {
            if !name.is_empty() {
                let whole = format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
                set(&mut self.reference, whole, "the reference")?;
            }
        }
        if !self.checksum.is_empty() && !is_commit_prefix(&self.checksum) {
            return Err(format!("`{}` is no commit id", self.checksum));
        }
        if self.reference.is_empty() {
            self.reference.clone_from(&self.checksum);
        }
        let subdir = ignore::clean(format!("/{}", self.subdir).as_bytes());
        let subdir = String::from_utf8_lossy(&subdir).trim_matches('/').to_owned();
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(GitSource {
            remote: remote.to_owned(),
            reference: some(self.reference),
            subdir,
            keep_git_dir: self.keep_git_dir.unwrap_or(false),
            submodules: self.submodules.unwrap_or(true),
            checksum: some(self.checksum),
        })
    }
}

fn set(field: &mut String, value: String, what: &str) -> Result<(), String> {
    if !field.is_empty() && *field != value {
        return Err(format!("{what} is `{field}` in one place and `{value}` in another"));
    }
    *field = value;
    Ok(())
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent_decoded(text)).into_owned()
}

/// For people: without a password, with what is wanted of it.
pub fn shown(source: &GitSource) -> String {
    let remote = without_password(&source.remote);
    match (source.reference.as_deref().unwrap_or_default(), source.subdir.as_str()) {
        ("", "") => remote,
        (reference, "") => format!("{remote}#{reference}"),
        (reference, subdir) => format!("{remote}#{reference}:{subdir}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(remote: &str, reference: &str, subdir: &str) -> GitSource {
        GitSource {
            remote: remote.into(),
            reference: Some(reference.to_owned()).filter(|text| !text.is_empty()),
            subdir: subdir.into(),
            keep_git_dir: false,
            submodules: true,
            checksum: None,
        }
    }

    #[test]
    fn what_names_a_repository_and_what_does_not() {
        for (text, expected) in [
            ("https://host/foo.git", Some(("https://host/foo.git", "", ""))),
            ("https://host/foo.git#v1", Some(("https://host/foo.git", "v1", ""))),
            ("https://host/foo.git#a/b:c/d", Some(("https://host/foo.git", "a/b", "c/d"))),
            ("https://host/foo.git#:dir", Some(("https://host/foo.git", "", "dir"))),
            ("https://u:p@host/foo.git", Some(("https://u:p@host/foo.git", "", ""))),
            ("git://host/foo", Some(("git://host/foo", "", ""))),
            ("ssh://git@host:22/foo", Some(("ssh://git@host:22/foo", "", ""))),
            ("git@host:a/b", Some(("git@host:a/b", "", ""))),
            ("git@host:a/b.git#x:/y/", Some(("git@host:a/b.git", "x", "y"))),
            ("user_1@host.test:b", Some(("user_1@host.test:b", "", ""))),
            ("https://host/foo.git?ref=v1&subdir=/s", Some(("https://host/foo.git", "v1", "s"))),
            ("https://host/foo.git?tag=v1", Some(("https://host/foo.git", "refs/tags/v1", ""))),
            ("https://host/foo.git?branch=b%2Fc", Some(("https://host/foo.git", "refs/heads/b/c", ""))),
            ("https://host/foo.git#:../../etc", Some(("https://host/foo.git", "", "etc"))),
            ("https://host/", None),
            ("https://host/foo", None),
            ("https://host/foo.git/", None),
            ("https://host/foo.git.bar", None),
            ("http://host/foo.git:#branch", None),
            ("file:///foo.git", None),
            ("host/foo.git", None),
            ("github.com/a/b", None),
            ("./.git", None),
            (".git", None),
            ("dir/x@y:z", None),
            ("-o@host:x", None),
        ] {
            let expected = expected.map(|(remote, reference, subdir)| source(remote, reference, subdir));
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        assert_eq!(
            parse_context("github.com/a/b#c:d").unwrap(),
            Some(source("https://github.com/a/b", "c", "d"))
        );
    }

    #[test]
    fn a_query_says_more() {
        let text = "https://h/x.git?ref=v1&commit=abc123&keep-git-dir&submodules=false";
        let expected = GitSource {
            keep_git_dir: true,
            submodules: false,
            checksum: Some("abc123".into()),
            ..source("https://h/x.git", "v1", "")
        };
        assert_eq!(parse(text).unwrap(), Some(expected));
        for (query, complaint) in [
            ("?what=1", "means nothing"),
            ("?ref=", "no value"),
            ("?ref=a#b", "in one place"),
            ("?ref=a&ref=a", "twice"),
            ("?tag=a&branch=b", "a tag and a branch"),
            ("?submodules=perhaps", "neither true nor false"),
            ("?commit=main", "no commit id"),
        ] {
            let error = parse(&format!("https://h/x.git{query}")).unwrap_err();
            assert!(error.message().contains(complaint), "{query}: {error}");
        }
    }
}
