//! SecretsUsedInArgOrEnv: names that look like secrets, which images and their history tell to everybody.

use super::{Check, Look, Notes, StepSeen};

pub(super) static CHECK: Check = Check {
    name: "SecretsUsedInArgOrEnv",
    description: "Secrets do not belong into ARG or ENV, which everybody reads in the image",
    experimental: false,
    look: Look::Step(look),
};

/// Words of a name, cut at underscores, that speak for a secret (BuildKit's).
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Words that speak against it.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn look(seen: &StepSeen<'_>, notes: &mut Notes) {
    let names: Vec<String> = match seen.statement.keyword.as_str() {
        "ARG" => {
            let words = seen.statement.quoted_words().into_iter();
            words.map(|word| word.text.split('=').next().unwrap_or_default().to_owned()).collect()
        }
        "ENV" => {
            let pairs = seen.statement.pairs().unwrap_or_default().into_iter();
            pairs.map(|pair| seen.state.peek(&pair.key).unwrap_or(pair.key)).collect()
        }
        _ => return,
    };
    for name in names.iter().filter(|name| has(name, &SECRET) && !has(name, &HARMLESS)) {
        let message = format!(
            "{} `{name}` sounds like a secret, which the image would tell everybody; use `RUN --mount=type=secret`",
            seen.statement.keyword
        );
        notes.note(&CHECK, seen.place, message);
    }
}

fn has(name: &str, words: &[&str]) -> bool {
    name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
}
