//! Mounts as values, and the new mount API that makes them.

use std::path::PathBuf;

/// How to bring a stack to a mount point: a value, so that it can be handed to the process that will hold it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mount {
    /// overlayfs. Lowers nearest first. No upper: read-only.
    Overlay { lowers: Vec<PathBuf>, upper: Option<PathBuf>, work: Option<PathBuf>, volatile: bool },
    /// A directory as it is.
    Bind { source: PathBuf, read_only: bool },
}
