//! The one error of the library: what kind, doing what, because of what, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What programs decide by. Maps to an exit code and to an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// The input is wrong: a flag, a Dockerfile, a name.
    Invalid,
    /// What was named is not there.
    NotFound,
    /// It is there already, or in use.
    Conflict,
    /// Right input that this host or this version cannot serve.
    Unsupported,
    /// Permission.
    Denied,
    /// A resource that may come back: a registry, disk space, a lock.
    Unavailable,
    /// Stored bytes are not what their digest says.
    Corrupt,
    /// The user stopped it.
    Cancelled,
    /// A bug or an unexpected answer of the system.
    Internal,
}

/// `message` says what we were doing, to what; `source` says why it failed; `hint` what the user can do.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error and its causes on one line, each said once.
    pub fn one_line(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        text
    }

    /// The hint nearest to the top of the chain.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| {
            let source = self.source.as_deref()?;
            let carried = source.downcast_ref::<io::Error>().and_then(|cause| cause.get_ref());
            carried.map_or(source.downcast_ref::<Error>(), |carried| carried.downcast_ref())?.hint_text()
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::AlreadyExists => Kind::Conflict,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Unavailable,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Kind::Invalid,
        // A reader or writer of ours that carries one of our own errors.
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => inner.kind,
            None => Kind::Internal,
        },
    }
}

const DATABASE_IS_DAMAGED: &str = "`outcrop system check` says what is wrong, `outcrop system check --rebuild-index` makes \
                                   the store's databases again";
const FREE_SOME_SPACE: &str = "free some space: `outcrop system prune` removes what nothing uses";

/// Adds what we were doing to a cause. The closure runs only on failure.
pub trait Context<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|cause| {
            let error = Error::new(kind_of(&cause), message());
            let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let error = if full { error.hint(FREE_SOME_SPACE) } else { error };
            error.because(cause)
        })
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(io::Error::from).context(message)
    }
}

impl<T> Context<T> for Result<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|cause| Error::new(cause.kind, message()).because(cause))
    }
}

impl<T> Context<T> for serde_json::Result<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|cause| Error::new(Kind::Invalid, message()).because(cause))
    }
}

impl<T> Context<T> for rusqlite::Result<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|cause| {
            let code = match &cause {
                // What SQLite says when it prepares a statement.
                rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
                other => other.sqlite_error_code(),
            };
            let kind = match code {
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                    Kind::Corrupt
                }
                Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::DatabaseBusy) => Kind::Unavailable,
                Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen) => Kind::Denied,
                _ => Kind::Internal,
            };
            let error = Error::new(kind, message());
            let error = match code {
                Some(rusqlite::ErrorCode::DiskFull) => error.hint(FREE_SOME_SPACE),
                Some(rusqlite::ErrorCode::DatabaseBusy) => error.hint("try again when less is at work"),
                _ if kind == Kind::Corrupt => error.hint(DATABASE_IS_DAMAGED),
                _ => error,
            };
            // Its own source says the same again, with a number.
            error.because(cause.to_string())
        })
    }
}

/// Lets our errors travel through `Read` and `Write`; `Context` takes the kind out again.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// The candidate with the fewest edits, case apart, if few enough that it may have been meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (edits(&word, &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_hint_survive_a_trip_through_io() {
        let inner = Error::corrupt("layer is not what its digest says").hint("pull it again");
        let outer = Err::<(), _>(io::Error::from(inner)).context(|| "unpacking").unwrap_err();
        assert_eq!(outer.kind(), Kind::Corrupt);
        assert_eq!(outer.message(), "unpacking");
        assert_eq!(outer.hint_text(), Some("pull it again"));
    }

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let words = ["RUN", "FROM", "COPY", "ENTRYPOINT"];
        assert_eq!(nearest("RUNN", words), Some("RUN"));
        assert_eq!(nearest("form", words), Some("FROM"));
        assert_eq!(nearest("ENTRYPIONT", words), Some("ENTRYPOINT"));
        assert_eq!(nearest("INCLUDE", words), None);
        assert_eq!(nearest("", words), None);
    }
}
