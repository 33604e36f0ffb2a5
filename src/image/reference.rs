//! Names of images as people write them (the grammar of Docker's `reference` package):
//!
//! ```text
//! reference = [host "/"] path [":" tag] ["@" digest]
//! ```
//!
//! The first part is a host when it holds a `.`, a `:` or an upper-case letter, or is `localhost`. Without a host the
//! name means docker.io, there without a slash `library/`, without tag and digest `:latest`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;
use crate::error::{Error, Result};

const DEFAULT_HOST: &str = "docker.io";
const LEGACY_HOST: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const LATEST: &str = "latest";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// Always complete: a host, a path, and a tag or a digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// With its port, as in `localhost:5000`; `docker.io` where none was written.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The repository on its host, as in `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// `None` where only a digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
    /// What the registry is asked for: the digest where there is one, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => LATEST.to_owned(),
        }
    }
    /// `docker.io/library/debian`: host and path, the key of everything kept per repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }
    /// `debian`: the shortest text that reads back as the same repository; what lists show.
    pub fn familiar_name(&self) -> String {
        if self.host != DEFAULT_HOST {
            return self.name();
        }
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => self.path.as_str(),
        };
        match split_host(short) {
            // A first part like `example.com` would read as a host.
            Some(_) => self.name(),
            None => short.to_owned(),
        }
    }
    /// `debian:bookworm`: the familiar name with tag and digest.
    pub fn familiar(&self) -> String {
        self.with_selectors(self.familiar_name())
    }

    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
    /// The same repository under another tag, without a digest.
    pub fn with_tag(mut self, tag: &str) -> Result<Self> {
        check_tag(tag, tag)?;
        self.tag = Some(tag.to_owned());
        self.digest = None;
        Ok(self)
    }

    /// The repository alone, as in `images NAME` and `pull --all-tags NAME`: whether a tag or digest was written is
    /// kept, as the second value.
    pub fn parse_loose(text: &str) -> Result<(Self, bool)> {
        let mut reference = parse(text)?;
        let selected = reference.tag.is_some() || reference.digest.is_some();
        if !selected {
            reference.tag = Some(LATEST.to_owned());
        }
        Ok((reference, selected))
    }

    fn with_selectors(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}

impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse_loose(text).map(|(reference, _)| reference)
    }
}

/// The full form: `docker.io/library/debian:bookworm`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_selectors(self.name()))
    }
}
impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// As written: neither tag nor digest is made up.
fn parse(text: &str) -> Result<Reference> {
    if text.is_empty() {
        return Err(invalid(text, "the name is empty"));
    }
    if let Some((scheme @ ("http" | "https" | "docker" | "oci"), rest)) = text.split_once("://") {
        return Err(invalid(text, "a name has no scheme").hint(format!("leave `{scheme}://` out: `{rest}`")));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(invalid(text, &format!("it holds the character {odd:?}")));
    }
    if text.len() == 64 && Digest::from_hex(text).is_some() {
        return Err(invalid(text, "64 hex digits are an image id and cannot be a name"));
    }

    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    let (host, rest) = match split_host(rest) {
        Some((host, rest)) => (Some(host), rest),
        None => (None, rest),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };

    let host = match host {
        None | Some(DEFAULT_HOST | LEGACY_HOST) => DEFAULT_HOST,
        Some(host) => host,
    };
    check_host(host, text)?;
    let path = if host == DEFAULT_HOST && !path.contains('/') && !path.is_empty() {
        format!("{OFFICIAL}{path}")
    } else {
        path.to_owned()
    };
    check_path(&path, text)?;
    if let Some(tag) = tag {
        check_tag(tag, text)?;
    }
    Ok(Reference { host: host.to_owned(), path, tag: tag.map(str::to_owned), digest })
}

/// Host and rest, where the first part is a host.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once('/')?;
    let is_host = first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|byte| byte.is_ascii_uppercase());
    is_host.then_some((first, rest))
}

/// A domain name, an IPv4 address or an IPv6 address in brackets; a port may follow.
fn check_host(host: &str, text: &str) -> Result<()> {
    let bad = || invalid(text, &format!("`{host}` is not a registry's address"));
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(bad)?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(bad());
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return Err(bad()),
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if let Some(name) = name {
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !name.split('.').all(label) {
            return Err(bad());
        }
    }
    match port {
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() => {
            Err(invalid(text, &format!("`{port}` is not a port")))
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str, text: &str) -> Result<()> {
    if path.len() > MAX_PATH {
        return Err(invalid(text, &format!("a repository's name has at most {MAX_PATH} characters")));
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let written = path.strip_prefix(OFFICIAL).unwrap_or(path);
        return Err(invalid(text, "a repository's name is in lower case")
            .hint(format!("did you mean `{}`?", text.replace(written, &written.to_ascii_lowercase()))));
    }
    match path.split('/').find(|part| !is_path_component(part)) {
        None => Ok(()),
        Some("") => Err(invalid(text, "a part of the name is empty")),
        Some(part) => Err(invalid(text, &format!("`{part}` cannot be part of a repository's name")).hint(
            "parts are lower-case letters and digits, with `.`, `_`, `__` or dashes between them, never at an end",
        )),
    }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = part.as_bytes();
    loop {
        let letters = rest.iter().take_while(|byte| word(**byte)).count();
        if letters == 0 {
            return false;
        }
        rest = &rest[letters..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|byte| !word(**byte)).count();
        let joins = match &rest[..separator] {
            b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|byte| *byte == b'-'),
        };
        if !joins {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn check_tag(tag: &str, text: &str) -> Result<()> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let first = bytes.next();
    if tag.len() > MAX_TAG {
        Err(invalid(text, &format!("a tag has at most {MAX_TAG} characters")))
    } else if first.is_some_and(word) && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-') {
        Ok(())
    } else {
        Err(invalid(text, &format!("`{tag}` is not a tag"))
            .hint("a tag is letters, digits, `_`, `.` and `-`, and starts with none of the last two"))
    }
}

fn invalid(text: &str, why: &str) -> Error {
    Error::invalid(format!("`{text}` is not an image name: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_read_as_docker_reads_them() {
        let digest = format!("sha256:{HEX}");
        let at = |name: &str| format!("{name}@{digest}");
        // written, full form, familiar form
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
            ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/library/debian:12", "docker.io/library/debian:12", "debian:12"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("user/app:1.0_rc-1", "docker.io/user/app:1.0_rc-1", "user/app:1.0_rc-1"),
            ("a/b/c:d", "docker.io/a/b/c:d", "a/b/c:d"),
            ("debian:5000", "docker.io/library/debian:5000", "debian:5000"),
            ("example.com", "docker.io/library/example.com:latest", "example.com:latest"),
            ("example.com/app", "example.com/app:latest", "example.com/app:latest"),
            ("example.com:5000/app:v1", "example.com:5000/app:v1", "example.com:5000/app:v1"),
            ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/app:x", "[::1]:5000/app:x", "[::1]:5000/app:x"),
            ("[fe80::1]/app", "[fe80::1]/app:latest", "[fe80::1]/app:latest"),
            ("HOST/app", "HOST/app:latest", "HOST/app:latest"),
            ("Foo/bar", "Foo/bar:latest", "Foo/bar:latest"),
            ("host:1/app", "host:1/app:latest", "host:1/app:latest"),
            (
                "docker.io/example.com/app",
                "docker.io/example.com/app:latest",
                "docker.io/example.com/app:latest",
            ),
            ("a__b/c.d/e--f", "docker.io/a__b/c.d/e--f:latest", "a__b/c.d/e--f:latest"),
            (&at("debian"), &at("docker.io/library/debian"), &at("debian")),
            (&at("debian:12"), &at("docker.io/library/debian:12"), &at("debian:12")),
            (&at("example.com:80/x"), &at("example.com:80/x"), &at("example.com:80/x")),
            (
                &HEX[..63],
                &format!("docker.io/library/{}:latest", &HEX[..63]),
                &format!("{}:latest", &HEX[..63]),
            ),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            // Both forms read back as the same.
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "{text}");
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_name_are_there() {
        let reference: Reference = format!("localhost:5000/a/b:c@sha256:{HEX}").parse().unwrap();
        assert_eq!(reference.host(), "localhost:5000");
        assert_eq!(reference.path(), "a/b");
        assert_eq!(reference.tag(), Some("c"));
        assert_eq!(reference.digest().unwrap().hex(), HEX);
        assert_eq!(reference.name(), "localhost:5000/a/b");
        assert_eq!(reference.selector(), format!("sha256:{HEX}"));
        let other = reference.with_tag("d").unwrap();
        assert_eq!(other.to_string(), "localhost:5000/a/b:d");
        assert_eq!(other.selector(), "d");
    }

    #[test]
    fn a_digest_alone_makes_no_tag_up() {
        let reference: Reference = format!("debian@sha256:{HEX}").parse().unwrap();
        assert_eq!(reference.tag(), None);
        assert!(Reference::parse_loose(&format!("debian@sha256:{HEX}")).unwrap().1);
        assert!(Reference::parse_loose("debian:12").unwrap().1);
        assert!(!Reference::parse_loose("debian").unwrap().1);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_path = "a".repeat(256);
        let long_tag = format!("x:{}", "a".repeat(129));
        for text in [
            "",
            " ",
            "/",
            ":",
            "@",
            "a/",
            "/a",
            "a//b",
            "a b",
            "a\tb",
            "ä",
            "a:b:c",
            "a:",
            "debian@",
            "Debian",
            "user/App",
            "-a",
            "a-",
            "_a",
            "a_",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a._b",
            "a-_b",
            "a:-x",
            "a:.x",
            "a:x/y",
            "a:b/c",
            "host:port/app",
            "host:70000/app",
            "host:/app",
            "-x.com/app",
            "x-.com/app",
            "x..com/app",
            "[::1/app",
            "[::1]x/app",
            "[::g]/app",
            "[]/app",
            "::1/app",
            "localhost:5000/",
            "example.com/",
            "https://example.com/app",
            "debian@sha256:abc",
            "debian@md5:00",
            "a@b@c",
            "../x",
            "a/../b",
            "x:$TAG",
            "docker.io/",
            "docker.io//x",
            HEX,
            &long_path,
            &long_tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} reads as {:?}", text.parse::<Reference>());
        }
    }

    #[test]
    fn hints_say_what_was_meant() {
        let hint = |text: &str| text.parse::<Reference>().unwrap_err().hint_text().map(str::to_owned);
        assert_eq!(hint("Debian:12").as_deref(), Some("did you mean `debian:12`?"));
        assert_eq!(hint("user/App").as_deref(), Some("did you mean `user/app`?"));
        assert_eq!(hint("https://example.com/x").as_deref(), Some("leave `https://` out: `example.com/x`"));
    }

    #[test]
    fn lengths_are_bounded_where_docker_bounds_them() {
        let path = "a".repeat(255 - "library/".len());
        assert!(path.parse::<Reference>().is_ok());
        assert!(format!("x:{}", "t".repeat(128)).parse::<Reference>().is_ok());
    }

    #[test]
    fn a_reference_is_its_full_form_in_json() {
        let reference: Reference = "debian:12".parse().unwrap();
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(json, "\"docker.io/library/debian:12\"");
        assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
    }
}
