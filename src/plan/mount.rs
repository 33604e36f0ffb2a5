//! What a command is given beside the tree it stands on.

use super::CopyFrom;

/// Targets are absolute and clean, and never `/`. Closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    Bind(Bind),
    Cache(Cache),
    Tmpfs(Tmpfs),
    Secret(Secret),
    Ssh(Ssh),
}

/// Files from elsewhere, as an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// `None`: an empty directory.
    pub from: Option<CopyFrom>,
    /// A path below `from`, as written and expanded; no pattern. Empty for all of it.
    pub source: String,
    pub target: String,
    /// If not, what is written is lost.
    pub read_only: bool,
}

/// A directory that outlives the build; what is in it is no input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Its namespace and a slash are in it.
    pub id: String,
    /// What a new one begins with; `None`: nothing.
    pub from: Option<CopyFrom>,
    pub source: String,
    pub target: String,
    pub sharing: Sharing,
    pub read_only: bool,
    /// Of a new one without a source: permission bits, user and group.
    pub mode: u32,
    pub owner: (u32, u32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Several may use it at once.
    #[default]
    Shared,
    /// Another one where it is in use.
    Private,
    /// Waits until it is not in use.
    Locked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    pub target: String,
    /// Bytes; `None`: the kernel's half of the memory.
    pub size: Option<u64>,
    pub read_only: bool,
}

/// Bytes that the caller has under this name; never remembered. One that was not given is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub id: String,
    /// As a file. At least one of this and `env`.
    pub target: Option<String>,
    /// As a variable.
    pub env: Option<String>,
    pub mode: u32,
    pub owner: (u32, u32),
}

/// A socket behind which an ssh agent of the caller answers. One that was not given is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    pub id: String,
    pub target: String,
    pub mode: u32,
    pub owner: (u32, u32),
}

impl Mount {
    /// Where its files come from, if from somewhere.
    pub fn from(&self) -> Option<&CopyFrom> {
        match self {
            Mount::Bind(bind) => bind.from.as_ref(),
            Mount::Cache(cache) => cache.from.as_ref(),
            Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) => None,
        }
    }
}
