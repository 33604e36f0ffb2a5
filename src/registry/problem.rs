//! A registry's refusals as errors (distribution-spec, "Error Codes").

use serde::Deserialize;

use crate::error::{Error, Kind};

/// What the body of an answer that is no success says: `{"errors":[{"code":..,"message":..}]}`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) message: String,
}

impl Problem {
    /// The first error of the list; nothing for a body in another form, as proxies send.
    pub(super) fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct List {
            errors: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            #[serde(default)]
            code: Option<String>,
            #[serde(default)]
            message: Option<String>,
        }
        let Ok(list) = serde_json::from_slice::<List>(body) else { return Problem::default() };
        let Some(first) = list.errors.into_iter().next() else { return Problem::default() };
        Problem {
            code: plain(&first.code.unwrap_or_default(), 64),
            message: plain(&first.message.unwrap_or_default(), 300),
        }
    }

    fn text(&self, status: u16) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => format!("HTTP status {status}"),
            (code, "") => format!("{code} (HTTP status {status})"),
            ("", message) => format!("{message} (HTTP status {status})"),
            (code, message) => format!("{code}: {message} (HTTP status {status})"),
        }
    }
}

/// A server's words go to a terminal: no control characters, no novels.
fn plain(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// What was asked of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Give,
    Take,
}

/// `what` was asked of `host`, as in "the manifest of `debian:12`".
pub(super) fn refusal(status: u16, problem: &Problem, host: &str, what: &str, deed: Deed) -> Error {
    match deed {
        Deed::Give => refusal_to_give(status, problem, host, what),
        Deed::Take => refusal_to_take(status, problem, host, what),
    }
}

fn refusal_to_take(status: u16, problem: &Problem, host: &str, what: &str) -> Error {
    let cause = Error::new(Kind::Unavailable, problem.text(status));
    let (kind, message, hint) = match (status, problem.code.as_str()) {
        (401 | 403, _) | (_, "UNAUTHORIZED" | "DENIED") => (
            Kind::Denied,
            format!("{host} refuses {what}"),
            "`outcrop login` gives it credentials; is the name one that you may push to?",
        ),
        (404, "NAME_UNKNOWN") | (_, "NAME_INVALID") => (
            Kind::NotFound,
            format!("{host} has no place for {what}"),
            "some registries want the repository to be made first; check the spelling",
        ),
        (405, _) | (_, "UNSUPPORTED") => (
            Kind::Unsupported,
            format!("{host} takes nothing: it does not take {what}"),
            "is it a mirror? Push to the registry itself",
        ),
        (413, _) => {
            (Kind::Unavailable, format!("{what} is too large for {host}"), "something before it limits sizes")
        }
        (429, _) | (_, "TOOMANYREQUESTS") => (
            Kind::Unavailable,
            format!("{host} takes {what} from nobody who asks so often"),
            "wait a while and push again; what has arrived is not sent again",
        ),
        (500..=599, _) => (
            Kind::Unavailable,
            format!("{host} failed to take {what}"),
            "the fault is the registry's; push again: what has arrived is not sent again",
        ),
        _ => {
            (Kind::Unavailable, format!("{host} did not take {what}"), "what the registry says is its reason")
        }
    };
    Error::new(kind, message).hint(hint).because(cause)
}

fn refusal_to_give(status: u16, problem: &Problem, host: &str, what: &str) -> Error {
    let cause = Error::new(Kind::Unavailable, problem.text(status));
    let (kind, message, hint) = match (status, problem.code.as_str()) {
        (401 | 403, _) | (_, "UNAUTHORIZED" | "DENIED") => (
            Kind::Denied,
            format!("{host} refuses {what}"),
            "the repository does not exist, or it is private and needs credentials (`outcrop login`); check the spelling first",
        ),
        (404, "NAME_UNKNOWN" | "NAME_INVALID") => (
            Kind::NotFound,
            format!("{host} does not have {what}"),
            "there is no such repository; a name without a registry is looked up at docker.io, \
             for another write REGISTRY/NAME",
        ),
        (404, "MANIFEST_UNKNOWN") => (
            Kind::NotFound,
            format!("{host} does not have {what}"),
            "no such tag or digest there; check the part after `:` or `@`",
        ),
        (404, _) => (Kind::NotFound, format!("{host} does not have {what}"), "check the name and the tag"),
        (429, _) | (_, "TOOMANYREQUESTS") => (
            Kind::Unavailable,
            format!("{host} gives {what} to nobody who asks so often"),
            "wait a while, or use credentials: registries allow more to users they know",
        ),
        (500..=599, _) => (
            Kind::Unavailable,
            format!("{host} failed to give {what}"),
            "the fault is the registry's; try again",
        ),
        _ => (
            Kind::Unavailable,
            format!("{host} did not give {what}"),
            "is it a registry? It should speak the OCI distribution API",
        ),
    };
    Error::new(kind, message).hint(hint).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_whatever_they_are() {
        let read = |body: &str| Problem::parse(body.as_bytes());
        assert_eq!(
            read(
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest \u001b[31munknown","detail":{"a":1}}]}"#
            ),
            Problem { code: "MANIFEST_UNKNOWN".into(), message: "manifest [31munknown".into() }
        );
        for other in ["", "<html>", "{}", r#"{"errors":[]}"#, r#"{"errors":"x"}"#, "null"] {
            assert_eq!(read(other), Problem::default(), "{other}");
        }
    }

    #[test]
    fn kinds_follow_the_status_and_the_code() {
        for (status, code, kind) in [
            (401, "UNAUTHORIZED", Kind::Denied),
            (403, "DENIED", Kind::Denied),
            (404, "MANIFEST_UNKNOWN", Kind::NotFound),
            (404, "NAME_UNKNOWN", Kind::NotFound),
            (404, "", Kind::NotFound),
            (429, "TOOMANYREQUESTS", Kind::Unavailable),
            (503, "", Kind::Unavailable),
            (418, "", Kind::Unavailable),
        ] {
            let problem = Problem { code: code.into(), message: String::new() };
            let error = refusal(status, &problem, "registry.test", "`a:b`", Deed::Give);
            assert_eq!(error.kind(), kind, "{status} {code}");
            assert!(error.message().contains("registry.test") && error.hint_text().is_some());
        }
    }
}
