//! What a token is to allow (Docker's token specification, "Requesting a Token"): `repository:NAME:pull,push`.

/// Resources with what may be done to them, in the order asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    parts: Vec<(String, Vec<String>)>,
}

impl Scope {
    pub(super) fn pull(path: &str) -> Self {
        Scope { parts: vec![(format!("repository:{path}"), vec!["pull".into()])] }
    }

    pub(super) fn push(path: &str) -> Self {
        Scope { parts: vec![(format!("repository:{path}"), vec!["pull".into(), "push".into()])] }
    }

    /// Both: nothing is asked for twice.
    #[must_use]
    pub(super) fn and(mut self, other: &Scope) -> Self {
        for (resource, actions) in &other.parts {
            let known = match self.parts.iter().position(|(known, _)| known == resource) {
                Some(at) => &mut self.parts[at].1,
                None => {
                    self.parts.push((resource.clone(), Vec::new()));
                    &mut self.parts.last_mut().expect("just pushed").1
                }
            };
            for action in actions {
                if !known.contains(action) {
                    known.push(action.clone());
                }
            }
        }
        self
    }

    /// As a challenge has it: several with blanks between. A word in another form stands as it is.
    pub(super) fn parse(text: &str) -> Self {
        let words = text.split_ascii_whitespace();
        words.fold(Scope::default(), |all, word| {
            let (resource, actions) = match word.rsplit_once(':') {
                Some((resource, actions)) if resource.contains(':') => (resource, actions),
                _ => (word, ""),
            };
            let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
            all.and(&Scope { parts: vec![(resource.to_owned(), actions)] })
        })
    }

    /// One text for each resource.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.parts.iter().map(|(resource, actions)| match actions.as_slice() {
            [] => resource.clone(),
            actions => format!("{resource}:{}", actions.join(",")),
        })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_merged_and_nothing_is_asked_for_twice() {
        for (one, other, both) in [
            ("repository:a/b:pull", "repository:a/b:pull,push", "repository:a/b:pull,push"),
            (
                "repository:a:push",
                "repository:b:pull repository:a:pull",
                "repository:a:push,pull repository:b:pull",
            ),
            ("registry:catalog:*", "", "registry:catalog:*"),
            ("", "odd", "odd"),
            ("repository:host:5000/a:pull", "repository:host:5000/a:pull", "repository:host:5000/a:pull"),
        ] {
            assert_eq!(Scope::parse(one).and(&Scope::parse(other)).to_string(), both, "{one} and {other}");
        }
    }
}
