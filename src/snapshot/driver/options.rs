//! `--storage-opt`: what the user says to a storage driver.

use std::collections::BTreeMap;

use super::{Entry, TABLE};
use crate::error::{Context as _, Error, Result};
use crate::size;

/// By name, each with the value said last. Names are Docker's: `dm.basesize`, `btrfs.min_space`, `zfs.fsname`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// From `NAME=VALUE` each. An error names what is no such pair.
    pub fn parse<S: AsRef<str>>(said: &[S]) -> Result<Options> {
        let pair = |text: &str| match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            }
            _ => Err(Error::invalid(format!("`--storage-opt {text}` is no NAME=VALUE"))
                .hint("for example `--storage-opt size=10G`")),
        };
        said.iter().map(|text| pair(text.as_ref())).collect::<Result<_>>().map(Options)
    }

    /// These, and what was said before of which they say nothing.
    #[must_use]
    pub fn over(&self, before: &Options) -> Options {
        let mut all = before.clone();
        all.0.extend(self.0.clone());
        all
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Options {
        self.0.remove(name);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As `NAME=VALUE` each.
    pub fn pairs(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A size in bytes, as `10G`.
    pub fn bytes(&self, name: &str, default: u64) -> Result<u64> {
        self.read(name, default, size::parse)
    }

    /// `10%`
    pub fn percent(&self, name: &str, default: u8) -> Result<u8> {
        self.read(name, default, |text| {
            let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
            number.filter(|number| *number <= 100).ok_or_else(|| Error::invalid("it is no percentage: 10%"))
        })
    }

    /// `true` or `false`
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        self.read(name, default, |text| match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(Error::invalid("it is neither `true` nor `false`")),
        })
    }

    fn read<T>(&self, name: &str, default: T, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => parse(text).context(|| format!("reading `--storage-opt {name}={text}`")),
        }
    }

    /// `Invalid` where this driver does not know one.
    pub(super) fn check(&self, entry: &Entry) -> Result<()> {
        let Some(name) = self.0.keys().find(|name| !entry.options.contains(&name.as_str())) else {
            return Ok(());
        };
        let error = Error::invalid(format!(
            "the storage driver `{}` has no option `{name}` (--storage-opt)",
            entry.name
        ));
        let owner = TABLE.iter().find(|other| other.options.contains(&name.as_str()));
        Err(match (owner, entry.options) {
            (Some(owner), _) => error.hint(format!("it is one of `{}`", owner.name)),
            (None, _) if name == "size" => error.hint("`size` is for `run` and `create`"),
            (None, []) => error.hint("it has none"),
            (None, known) => error.hint(format!("it has: {}", known.join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts_and_units_are_read() {
        let options = Options::parse(&["dm.basesize=1g", "DM.BaseSize = 2G", "a.b=7%", "c=no"]).unwrap();
        assert_eq!(options.bytes("dm.basesize", 0).unwrap(), 2 << 30);
        assert_eq!(options.bytes("absent", 7).unwrap(), 7);
        assert_eq!(options.percent("a.b", 1).unwrap(), 7);
        assert!(!options.flag("c", true).unwrap());
        for (name, text) in [("bytes", "x"), ("percent", "101%"), ("flag", "maybe")] {
            let wrong = Options::parse(&[format!("{name}={text}")]).unwrap();
            let failed = match name {
                "bytes" => wrong.bytes(name, 0).err(),
                "percent" => wrong.percent(name, 0).err(),
                _ => wrong.flag(name, true).err(),
            };
            let message = failed.expect(name).to_string();
            assert_eq!(message, format!("reading `--storage-opt {name}={text}`"));
        }
    }

    #[test]
    fn what_is_said_now_goes_over_what_was_said_before() {
        let before = Options::parse(&["a=1", "b=2"]).unwrap();
        let now = Options::parse(&["b=3"]).unwrap();
        assert_eq!(now.over(&before).pairs(), ["a=1", "b=3"]);
        assert!(Options::parse(&["size"]).is_err());
        assert!(Options::parse(&["=1"]).is_err());
    }
}
