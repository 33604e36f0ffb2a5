//! The modes that `--chmod` gives: a number, or changes to what a file has (chmod(1), POSIX "chmod", without a umask).

use crate::error::{Error, Result};

/// What a mode becomes. Kept as it was written too: that is what a key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chmod {
    text: String,
    changes: Changes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Changes {
    Exactly(u32),
    Each(Vec<Change>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// The bits that may change.
    who: u32,
    how: How,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// `executable`: `X`, for directories and what somebody may execute already.
    Bits { bits: u32, executable: bool },
    /// The permissions of the user, the group or the others: shifted by that much.
    Like(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl Chmod {
    /// `755`, `u=rwX,go=rX`, `a+x,g=u`.
    pub fn parse(text: &str) -> Result<Chmod> {
        let hint = "write it in octal, as in `755`, or as changes, as in `u=rwX,go=rX`";
        let wrong = || Error::invalid(format!("`{text}` is no mode")).hint(hint);
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            let mode = mode.ok_or_else(|| {
                Error::invalid(format!("`{text}` is no mode between 0 and 07777")).hint(hint)
            })?;
            return Ok(Chmod { text: text.to_owned(), changes: Changes::Exactly(mode) });
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            clause_of(clause, &mut changes).ok_or_else(wrong)?;
        }
        Ok(Chmod { text: text.to_owned(), changes: Changes::Each(changes) })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The permission bits that come of `mode`.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match &self.changes {
            Changes::Exactly(mode) => *mode,
            Changes::Each(changes) => changes.iter().fold(mode & 0o7777, |mode, change| {
                let bits = change.who & change.what.bits(mode, directory);
                match change.how {
                    How::Add => mode | bits,
                    How::Remove => mode & !bits,
                    How::Set => mode & !change.who | bits,
                }
            }),
        }
    }
}

impl What {
    fn bits(&self, mode: u32, directory: bool) -> u32 {
        match self {
            What::Bits { bits, executable } => {
                let execute = *executable && (directory || mode & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
            What::Like(shift) => (mode >> shift & 7) * 0o111,
        }
    }
}

/// `[ugoa]*` and then one or more of `[-+=]` with permissions; `None` where it is none.
fn clause_of(text: &str, changes: &mut Vec<Change>) -> Option<()> {
    let start = text.find(['-', '+', '='])?;
    let mut who = 0;
    for c in text[..start].chars() {
        who |= match c {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHERS,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let who = if who == 0 { 0o7777 } else { who };
    let mut rest = &text[start..];
    while let Some(c) = rest.chars().next() {
        let how = match c {
            '+' => How::Add,
            '-' => How::Remove,
            '=' => How::Set,
            _ => return None,
        };
        let end = rest[1..].find(['-', '+', '=']).map_or(rest.len(), |at| at + 1);
        changes.push(Change { who, how, what: what(&rest[1..end])? });
        rest = &rest[end..];
    }
    Some(())
}

fn what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Like(6)),
        "g" => return Some(What::Like(3)),
        "o" => return Some(What::Like(0)),
        _ => {}
    }
    let (mut bits, mut executable) = (0, false);
    for c in text.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => executable = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, executable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_come_out_as_chmod_makes_them() {
        for (text, mode, directory, expected) in [
            ("755", 0o4600, false, 0o755),
            ("04755", 0, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("g=u", 0o640, false, 0o660),
            ("o=g,u-w", 0o740, false, 0o544),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("+t", 0o777, true, 0o1777),
            ("u=", 0o777, false, 0o077),
            ("u+r-w", 0o300, false, 0o500),
            ("a=", 0o7777, false, 0),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            let got = chmod.apply(mode, directory);
            assert_eq!(got, expected, "{text} of {mode:o}: {got:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "888", "77777", "rwx", "u", "z+x", "u+q", "u=rw,", ",u=r", "755,u+x", "u+x go-w"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
