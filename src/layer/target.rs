//! Where the members of an archive go, as who interprets them sees it.

use super::{Kind, Row};
use crate::error::Result;

/// What the tree held before the layer.
pub(super) enum Below {
    Nothing,
    Dir,
    Symlink(Vec<u8>),
    Other,
}

/// Where members go. Paths are canonical: their directories exist and none is a symbolic link.
pub(super) trait Target {
    /// What stands at a path that the archive has not touched.
    fn below(&mut self, path: &[u8]) -> Result<Below>;
    /// The same as a row, digest and all, for a hard link to it. `None` where nothing stands.
    fn below_row(&mut self, path: &[u8]) -> Result<Option<Row>>;
    /// A hard link whose target is nowhere.
    fn dangling(&mut self, path: &[u8], target: &[u8]) -> Result<()>;
    /// Makes a directory, or changes one the archive `came_before` to. Implied ones are made where none is.
    fn dir(&mut self, row: &Row, came_before: bool) -> Result<()>;
    /// A symbolic link, device or fifo.
    fn node(&mut self, row: &Row) -> Result<()>;
    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()>;
    fn whiteout(&mut self, path: &[u8]) -> Result<()>;
    /// Hides what stands in a directory from below; `ours` tells what is of this layer.
    fn opaque(&mut self, path: &[u8], ours: &dyn Fn(&[u8]) -> bool) -> Result<()>;
    /// Removes what this archive put there. `save` gets the data of every file before.
    fn remove(&mut self, path: &[u8], kind: Kind, save: &mut dyn Saver) -> Result<()>;
    fn create(&mut self, row: &Row) -> Result<()>;
    /// Of the file created last; in ascending order, zeros where nothing is written.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
    fn close(&mut self, row: &Row) -> Result<()>;
    /// Accounts for bytes kept until the end is up to `Seen::hold`.
    fn finish(&mut self) -> Result<()>;
}

pub(super) trait Saver {
    /// Whether this file's data is needed.
    fn wants(&mut self, path: &[u8]) -> bool;
    /// Of the file asked about last.
    fn save(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}
