//! What a registry wants before it answers: `WWW-Authenticate` and tokens
//! (distribution-spec, "Authentication"; Docker's token specification).

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer};

use super::scope::Scope;

/// Never shown.
#[derive(Clone)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What `WWW-Authenticate` asks for, of what is spoken here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Of all headers of that name; Bearer before Basic.
    pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let challenges: Vec<_> = headers.flat_map(challenges).collect();
        let bearer = challenges.iter().filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        for (_, parameters) in bearer {
            let get = |name: &str| parameters.get(name).filter(|value| !value.is_empty()).cloned();
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        }
        challenges.iter().any(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).then_some(Challenge::Basic)
    }
}

/// `scheme name=value, name="quoted, \"value\"", scheme ..` (RFC 9110, 11.6.1). Names in lower case.
fn challenges(header: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = token(rest);
        if word.is_empty() {
            return found;
        }
        let after = rest[word.len()..].trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = after;
            }
            None => {
                found.push((word.to_owned(), HashMap::new()));
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_graphic() || "\"(),/:;<=>?@[\\]{}".contains(c));
    &text[..end.unwrap_or(text.len())]
}

/// A quoted string or a token, and what follows. Values out of quotes are taken up to a comma or a blank, as not all
/// servers quote URLs.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            plain => value.push(plain),
        }
    }
    (value, "")
}

/// What is asked of a token server: `realm?service=..&scope=..&scope=..`.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &Scope) -> String {
    let scopes = scope.texts().map(|text| ("scope", text));
    let pairs = service.map(|service| ("service", service.to_owned())).into_iter().chain(scopes);
    let query = form(pairs);
    match (query.is_empty(), realm.contains('?')) {
        (true, _) => realm.to_owned(),
        (false, true) => format!("{realm}&{query}"),
        (false, false) => format!("{realm}?{query}"),
    }
}

/// `name=value&..`, as a query or a body.
pub(super) fn form<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", escape(&value))).collect();
    pairs.join("&")
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// What a token server answers.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    /// OAuth's name for the same.
    #[serde(default)]
    access_token: Option<String>,
    /// Seconds.
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
}

/// A number, and what some write in place of one: text, fractions.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let said = serde_json::Value::deserialize(from)?.to_string();
    Ok(said.trim_matches('"').split('.').next().and_then(|whole| whole.parse().ok()))
}

/// An `Authorization` header and how long it serves.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) header: String,
    until: Option<Instant>,
}

impl Grant {
    /// For as long as the registry takes it.
    pub(super) fn basic(credentials: &Credentials) -> Self {
        Grant { header: credentials.basic(), until: None }
    }
    /// A token that somebody else got.
    pub(super) fn given(token: &str) -> Self {
        Grant { header: format!("Bearer {token}"), until: None }
    }
    /// `None` when the answer holds no token that can stand in a header.
    pub(super) fn bearer(answer: TokenAnswer, asked: Instant) -> Option<Self> {
        let token = answer.token.or(answer.access_token)?;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        // 60 seconds is the specification's default; some servers say 0 or nothing.
        let life = answer.expires_in.unwrap_or(60).clamp(60, 24 * 3600);
        Some(Grant { header: format!("Bearer {token}"), until: Some(asked + Duration::from_secs(life - 10)) })
    }
    pub(super) fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_read_as_servers_write_them() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                ),
            ),
            (
                r#"bearer  Realm = "https://x/t" , service="a \"b\" \\c""#,
                bearer("https://x/t", Some(r#"a "b" \c"#), None),
            ),
            (
                r#"Basic realm="x", Bearer realm="https://x/t",service="s""#,
                bearer("https://x/t", Some("s"), None),
            ),
            (r#"Bearer realm="https://x/t", Basic realm="y""#, bearer("https://x/t", None, None)),
            (r#"Bearer realm=https://x/t?a=b,service=s"#, bearer("https://x/t?a=b", Some("s"), None)),
            (r#"Bearer realm="https://x/t",scope="""#, bearer("https://x/t", None, None)),
            (r#"Basic realm="Registry, one""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            ("Negotiate", None),
            (r#"Bearer service="s""#, None),
            (r#"Bearer realm="https://x/t"#, bearer("https://x/t", None, None)),
            ("", None),
            ("=,=\"", None),
        ] {
            assert_eq!(Challenge::parse([header].into_iter()), expected, "{header}");
        }
        let two = ["Negotiate", r#"Basic realm="x""#];
        assert_eq!(Challenge::parse(two.into_iter()), Some(Challenge::Basic));
    }

    #[test]
    fn a_token_url_escapes_what_it_carries() {
        assert_eq!(
            token_url("https://x/t", Some("my service&x=1"), &Scope::pull("a/b")),
            "https://x/t?service=my%20service%26x%3D1&scope=repository:a/b:pull"
        );
        assert_eq!(
            token_url("https://x/t?k=v", None, &Scope::parse("s t")),
            "https://x/t?k=v&scope=s&scope=t"
        );
    }

    #[test]
    fn tokens_come_under_either_name_and_are_checked() {
        let grant = |text: &str| Grant::bearer(serde_json::from_str(text).unwrap(), Instant::now());
        assert_eq!(grant(r#"{"token":"a"}"#).unwrap().header, "Bearer a");
        assert_eq!(grant(r#"{"access_token":"b","expires_in":0}"#).unwrap().header, "Bearer b");
        for odd in ["\"300\"", "300.5", "-1", "null", "\"soon\""] {
            assert!(grant(&format!(r#"{{"token":"a","expires_in":{odd}}}"#)).is_some(), "{odd}");
        }
        assert!(grant(r#"{"token":"a"}"#).unwrap().is_fresh());
        for bad in ["{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#, r#"{"token":null}"#] {
            assert!(grant(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let credentials = Credentials { user: "me".into(), password: "secret".into() };
        assert_eq!(format!("{credentials:?}"), r#"Credentials { user: "me", .. }"#);
        assert_eq!(credentials.basic(), "Basic bWU6c2VjcmV0");
    }
}
