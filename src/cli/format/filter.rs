//! `--filter key=value`, repeated: values of one key are alternatives, keys must all match.

use outcrop::error::{Error, Result};

/// The raw flag; flatten it into a verb's `Args`.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Filters {
    /// Show only what matches; repeated keys are alternatives
    #[arg(long = "filter", short = 'f', value_name = "KEY=VALUE")]
    given: Vec<String>,
}

impl Filters {
    /// Says which keys there are when one is given that is not among them.
    pub(crate) fn check(&self, known: &[&str]) -> Result<()> {
        for given in &self.given {
            let hint = format!("known filters are {}", known.join(", "));
            let Some((key, _)) = given.split_once('=') else {
                return Err(
                    Error::invalid(format!("`{given}` is no filter: it must be KEY=VALUE")).hint(hint)
                );
            };
            if !known.contains(&key.trim().to_lowercase().as_str()) {
                return Err(Error::invalid(format!("there is no filter `{key}` here")).hint(hint));
            }
        }
        Ok(())
    }

    /// What was given for a key, in order.
    pub(crate) fn values<'f>(&'f self, key: &'f str) -> impl Iterator<Item = &'f str> + Clone {
        self.given.iter().filter_map(move |given| {
            let (name, value) = given.split_once('=')?;
            (name.trim().to_lowercase() == key).then_some(value.trim())
        })
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

    fn filters(given: &[&str]) -> Filters {
        Filters { given: given.iter().map(|&text| text.to_owned()).collect() }
    }

    #[test]
    fn an_unknown_filter_names_the_known_ones() {
        let error = filters(&["nmae=x"]).check(&["name", "label"]).unwrap_err();
        assert_eq!(error.message(), "there is no filter `nmae` here");
        assert_eq!(error.hint_text(), Some("known filters are name, label"));
        assert!(filters(&["name"]).check(&["name"]).unwrap_err().message().contains("KEY=VALUE"));
    }

    #[test]
    fn values_of_one_key_are_alternatives_and_labels_are_not() {
        let given = filters(&["name=a", "name=b", "label=x", "label=y=1"]);
        assert!(given.any("name", |name| name == "b"));
        assert!(!given.any("name", |name| name == "c"));
        assert!(given.any("status", |_| false));
        assert!(given.labels(|key| Some(if key == "x" { "anything" } else { "1" })));
        assert!(!given.labels(|key| (key == "x").then_some("")));
    }

    #[test]
    fn a_truth_is_checked() {
        assert_eq!(filters(&["dangling=true"]).truth("dangling").unwrap(), Some(true));
        assert_eq!(filters(&[]).truth("dangling").unwrap(), None);
        assert!(filters(&["dangling=maybe"]).truth("dangling").is_err());
    }
}
