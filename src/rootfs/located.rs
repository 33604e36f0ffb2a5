//! Where the trees of a layer are, written beside its recipe: `layers/DIFFID.at`. Nothing decides by it; whoever makes the
//! index again looks here first, and proves what it finds.
//!
//! One line for each tree: driver, number, and the stack that it was made for.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::db::SnapshotId;
use crate::error::{Context as _, Result};
use crate::image::{ChainId, DiffId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub driver: String,
    pub snapshot: SnapshotId,
    pub chain: ChainId,
}

fn path(root: &Path, diff_id: &DiffId) -> PathBuf {
    root.join("layers").join(format!("{}.at", diff_id.hex()))
}

/// Once the layer has its row: then its removal takes this away.
pub(super) fn note(root: &Path, diff_id: &DiffId, at: &Located) -> Result<()> {
    let path = path(root, diff_id);
    let line = format!("{} {} {}\n", at.driver, at.snapshot, at.chain);
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        // One write: another process may append, too.
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .context(|| format!("writing {}", path.display()))
}

/// The latest first; lines that say nothing are passed over.
pub fn located(root: &Path, diff_id: &DiffId) -> Result<Vec<Located>> {
    let path = path(root, diff_id);
    let text = match std::fs::read(&path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.context(|| format!("reading {}", path.display()))?,
    };
    let mut all: Vec<Located> = String::from_utf8_lossy(&text).lines().filter_map(parse).collect();
    all.reverse();
    Ok(all)
}

fn parse(line: &str) -> Option<Located> {
    let mut words = line.split(' ');
    let (driver, number, chain) = (words.next()?, words.next()?, words.next()?);
    let chain = chain.parse().ok().map(ChainId)?;
    Some(Located { driver: driver.into(), snapshot: SnapshotId(number.parse().ok()?), chain })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn a_line_says_where_and_for_what() {
        let chain = ChainId(Digest::of(b"x"));
        let line = format!("overlay2 7 {chain}");
        let located = Located { driver: "overlay2".into(), snapshot: SnapshotId(7), chain };
        assert_eq!(parse(&line), Some(located));
        for bad in ["", "overlay2", "overlay2 7", "overlay2 7 sha256:12", "overlay2 x sha256:12"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
