//! What `# check=skip=A,B;error=true;experimental=C` asks for.

use super::TABLE;
use crate::dockerfile::nearest::did_you_mean;
use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::dockerfile) struct Asked {
    pub(super) skip: Names,
    pub(super) experimental: Names,
    /// Findings fail the build before anything runs.
    pub(super) error: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Names {
    All,
    Some(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Names::Some(Vec::new())
    }
}

impl Names {
    fn parse(text: &str) -> Names {
        match text.trim() {
            "all" => Names::All,
            names => Names::Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::Some(names) => names.iter().any(|known| known == name),
        }
    }

    fn named(&self) -> &[String] {
        match self {
            Names::All => &[],
            Names::Some(names) => names,
        }
    }
}

impl Asked {
    pub(in crate::dockerfile) fn parse(text: &str) -> Result<Asked> {
        const FORM: &str =
            "write `skip=NAME,NAME`, `skip=all`, `experimental=NAME` or `error=true`, with `;` between";
        let mut asked = Asked::default();
        if text.trim().is_empty() {
            return Ok(asked);
        }
        for option in text.split(';') {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| Error::invalid(format!("`{}` has no `=`", option.trim())).hint(FORM))?;
            match name.trim() {
                "skip" => asked.skip = Names::parse(value),
                "experimental" => asked.experimental = Names::parse(value),
                "error" => {
                    // Go's ParseBool.
                    asked.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        other => {
                            return Err(Error::invalid(format!(
                                "`error` is `true` or `false`, not `{other}`"
                            ))
                            .hint(FORM));
                        }
                    }
                }
                other => {
                    let hint = did_you_mean(other, ["skip", "experimental", "error"]);
                    return Err(Error::invalid(format!("`{other}` is nothing that checks can be asked"))
                        .hint(hint.unwrap_or_else(|| FORM.to_owned())));
                }
            }
        }
        Ok(asked)
    }

    /// What the comments right above an instruction ask for it alone: the first `# check=` counts, and one that
    /// cannot be read is a comment.
    pub(super) fn above(comments: &[String]) -> Asked {
        let check = comments.iter().find_map(|comment| {
            let (name, value) = comment.split_once('=')?;
            name.trim().eq_ignore_ascii_case("check").then_some(value)
        });
        check.and_then(|value| Asked::parse(value).ok()).unwrap_or_default()
    }

    /// Names that no check has, with what was meant.
    pub(in crate::dockerfile) fn unknown(&self) -> Vec<String> {
        let named = self.skip.named().iter().chain(self.experimental.named());
        named
            .filter(|name| !name.is_empty() && TABLE.iter().all(|check| check.name != *name))
            .map(|name| {
                let meant = did_you_mean(name, TABLE.iter().map(|check| check.name));
                format!("`{name}` is no check{}", meant.map_or(String::new(), |meant| format!("; {meant}")))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_all_their_forms() {
        let some = |names: &[&str]| Names::Some(names.iter().map(|name| (*name).to_owned()).collect());
        let asked = |skip, experimental, error| Asked { skip, experimental, error };
        for (text, expected) in [
            ("", Asked::default()),
            ("skip=all", asked(Names::All, some(&[]), false)),
            ("skip=A,B", asked(some(&["A", "B"]), some(&[]), false)),
            (" skip = A , B ; error = 1 ", asked(some(&["A", "B"]), some(&[]), true)),
            ("error=false", Asked::default()),
            ("skip=A;experimental=all;error=true", asked(some(&["A"]), Names::All, true)),
            ("experimental=X", asked(some(&[]), some(&["X"]), false)),
        ] {
            assert_eq!(Asked::parse(text).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            ("skip", "`skip` has no `=`"),
            ("skip=A;", "`` has no `=`"),
            ("error=yes", "`error` is `true` or `false`, not `yes`"),
            ("skp=A", "`skp` is nothing that checks can be asked"),
        ] {
            assert_eq!(Asked::parse(text).unwrap_err().message(), expected);
        }
    }

    #[test]
    fn comments_ask_for_the_instruction_below_them() {
        let above =
            |lines: &[&str]| Asked::above(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert!(above(&["about it", "check=skip=A"]).skip.holds("A"));
        assert!(above(&["Check = skip=all"]).skip.holds("A"));
        assert_eq!(above(&["check=nonsense", "check=skip=A"]), Asked::default());
        assert_eq!(above(&["unchecked=skip=A"]), Asked::default());
    }
}
