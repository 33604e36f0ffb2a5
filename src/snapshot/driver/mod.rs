//! Storage drivers: what keeps numbered trees and stacks them. One file each; `TABLE` lists them.

use std::path::PathBuf;

use crate::error::Result;
use crate::layer::Form;
pub use crate::sys::mount::Mount;

/// A tree's number; never used twice in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

/// What a snapshot is keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One snapshot holds one layer, whatever stands below: keyed by DiffId.
    Layered,
    /// One snapshot holds a whole stack: keyed by ChainId.
    Stacked,
}

/// Where a snapshot's changes lie, for drivers that keep them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub dir: PathBuf,
    pub form: Form,
}

/// Keeps trees by number. Knows nothing of names, images or leases.
///
/// Life of a snapshot: `create` (empty change on its parents) -> `mount`ed and changed, or written through
/// `tree` -> `seal` -> stands below others -> `remove`. All but `create` are idempotent: being done already is
/// `Ok`. `parents` are nearest first, all sealed; a Stacked driver is given one at most.
pub trait Driver: Send + Sync {
    fn name(&self) -> &'static str;
    fn shape(&self) -> Shape;
    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()>;
    /// How to mount it, writable while it is not sealed.
    fn mount(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<Mount>;
    /// How to mount a stack of sealed snapshots for reading; nearest first, at least one.
    fn view(&self, stack: &[SnapshotId]) -> Result<Mount>;
    /// The directory with the snapshot's own tree (Layered: the layer alone; Stacked: the whole), in the form it has.
    fn tree(&self, id: SnapshotId) -> Result<(PathBuf, Form)>;
    /// Undoes what `mount` activated.
    fn release(&self, _id: SnapshotId) -> Result<()> {
        Ok(())
    }
    fn remove(&self, id: SnapshotId) -> Result<()>;
    /// Read-only from now on; not yet durable.
    fn seal(&self, _id: SnapshotId) -> Result<()> {
        Ok(())
    }
    /// All that was written into these is on disk when it returns: one syncfs for each filesystem concerned.
    fn sync(&self, ids: &[SnapshotId]) -> Result<()>;
    /// Where the changes of this snapshot lie; `None` where only a comparison with the parent tells.
    fn delta(&self, id: SnapshotId) -> Option<Delta>;
}
