//! `--filter key=value`, repeated: values of one key are alternatives, keys must all match.

use outcrop::error::{Error, Result};

/// What a verb's `--filter` flags say (`-f` too, where it does not mean `--force`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Filters {
    /// Says which keys there are when one is given that is not among them.
    pub(crate) fn parse(given: &[String], known: &[&str]) -> Result<Self> {
        let hint = || format!("known filters are {}", known.join(", "));
        let parse = |given: &String| {
            let Some((key, value)) = given.split_once('=') else {
                let error = Error::invalid(format!("`{given}` is no filter: it must be KEY=VALUE"));
                return Err(error.hint(hint()));
            };
            let key = key.trim().to_lowercase();
            if !known.contains(&key.as_str()) {
                return Err(Error::invalid(format!("there is no filter `{key}` here")).hint(hint()));
            }
            Ok((key, value.trim().to_owned()))
        };
        Ok(Filters(given.iter().map(parse).collect::<Result<_>>()?))
    }

    /// What was given for a key, in order.
    pub(crate) fn values<'f>(&'f self, key: &'f str) -> impl Iterator<Item = &'f str> + Clone {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether any value of this key matches; true where none is given.
    pub(crate) fn any(&self, key: &str, matches: impl FnMut(&str) -> bool) -> bool {
        self.values(key).next().is_none() || self.values(key).any(matches)
    }

    /// `dangling=true`: `None` where the key is not given.
    pub(crate) fn truth(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.values(key).last() else { return Ok(None) };
        match value {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(Error::invalid(format!("the filter `{key}` takes true or false, not `{value}`"))),
        }
    }

    /// `label=key` and `label=key=value`: all of them must match.
    pub(crate) fn labels<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.values("label").all(|label| match label.split_once('=') {
            Some((key, value)) => get(key) == Some(value),
            None => get(label).is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["name", "label", "dangling"];

    fn filters(given: &[&str]) -> Result<Filters> {
        Filters::parse(&given.iter().map(|&text| text.to_owned()).collect::<Vec<_>>(), KNOWN)
    }

    #[test]
    fn an_unknown_filter_names_the_known_ones() {
        let error = filters(&["nmae=x"]).unwrap_err();
        assert_eq!(error.message(), "there is no filter `nmae` here");
        assert_eq!(error.hint_text(), Some("known filters are name, label, dangling"));
        assert!(filters(&["name"]).unwrap_err().message().contains("KEY=VALUE"));
    }

    #[test]
    fn values_of_one_key_are_alternatives_and_labels_are_not() {
        let given = filters(&["name=a", "name=b", "label=x", "label=y=1"]).unwrap();
        assert!(given.any("name", |name| name == "b"));
        assert!(!given.any("name", |name| name == "c"));
        assert!(given.any("dangling", |_| false));
        assert!(given.labels(|key| Some(if key == "x" { "anything" } else { "1" })));
        assert!(!given.labels(|key| (key == "x").then_some("")));
    }

    #[test]
    fn a_truth_is_checked() {
        assert_eq!(filters(&["dangling=true"]).unwrap().truth("dangling").unwrap(), Some(true));
        assert_eq!(filters(&[]).unwrap().truth("dangling").unwrap(), None);
        assert!(filters(&["dangling=maybe"]).unwrap().truth("dangling").is_err());
    }
}
