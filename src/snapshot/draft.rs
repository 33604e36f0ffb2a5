//! A tree in the making. Dropped, it is gone, row and directory; of a killed process, the next sweep removes
//! it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::driver::{Mount, Shape, SnapshotId, Tree};
use super::{Compared, Snapshots};
use crate::db::{Keyed, LayerNumber, Lease, Reader, Sealed, Writer};
use crate::error::{Context, Error, Result};
use crate::image::ChainId;
use crate::layer::Form;
use crate::sys;

/// What a draft is to become; decides what fsync(2) inside means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A layer: nothing in it counts before it is sealed and the barrier has synced it, so fsync inside does
    /// nothing.
    Layer,
    /// A container's writable layer: fsync inside does what programs believe.
    Container,
}

pub struct Draft<'s> {
    snapshots: &'s Snapshots,
    id: SnapshotId,
    /// Nearest first, as the driver wants them.
    parents: Vec<SnapshotId>,
    purpose: Purpose,
    /// It has become something, which keeps it from now on.
    kept: bool,
    /// Its row hangs on this.
    lease: Lease,
}

/// A draft put aside, for [`Snapshots::take_up`]. Dropped, it is the next sweep's.
pub struct Parked {
    id: SnapshotId,
    parents: Vec<SnapshotId>,
    lease: Lease,
}

/// A draft's mount that nobody else sees; it ends here. While it lives the draft cannot be committed: it does
/// not compile.
pub struct Mounted<'d> {
    draft: &'d Draft<'d>,
    root: OwnedFd,
}

impl AsFd for Mounted<'_> {
    /// Its root directory, an O_PATH descriptor (`sys::mount::detached`).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.draft.snapshots.driver.release(self.draft.id) {
            tracing::warn!(id = self.draft.id.0, %error, "what a mount needed is released by the next sweep");
        }
    }
}

/// Where an archive is applied to: a directory, in the form to write.
pub enum Place<'d> {
    Tree(OwnedFd, Form),
    Mounted(Mounted<'d>),
}

impl Place<'_> {
    pub fn form(&self) -> Form {
        match self {
            Place::Tree(_, form) => *form,
            Place::Mounted(_) => Form::Whole,
        }
    }
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Place::Tree(dir, _) => dir.as_fd(),
            Place::Mounted(mounted) => mounted.as_fd(),
        }
    }
}

impl<'s> Draft<'s> {
    /// The row; the tree does not stand yet.
    pub(super) fn reserve(
        snapshots: &'s Snapshots,
        purpose: Purpose,
        parents: impl FnOnce(&Reader<'_>) -> Result<Vec<SnapshotId>>,
    ) -> Result<Self> {
        let lease = snapshots.db.lease()?;
        let (id, parents) = snapshots.db.write(|writer| {
            let parents = parents(writer)?;
            let id = writer.new_snapshot(snapshots.driver.name(), &parents, &lease)?;
            Ok((id, parents))
        })?;
        Ok(Draft { snapshots, id, parents, purpose, kept: false, lease })
    }

    /// The tree stands.
    pub(super) fn made(self) -> Result<Self> {
        self.snapshots.db.write(|writer| writer.snapshot_made(self.id))?;
        Ok(self)
    }

    pub fn id(&self) -> SnapshotId {
        self.id
    }

    pub(super) fn parents(&self) -> &[SnapshotId] {
        &self.parents
    }

    /// How to mount it, for a process that will hold the mount. One mount at a time; it is gone before
    /// `commit`.
    pub fn mount(&self) -> Result<Mount> {
        let mut mount = self.snapshots.driver.mount(self.id, &self.parents)?;
        if let (Mount::Overlay { volatile, .. }, Purpose::Layer) = (&mut mount, self.purpose) {
            *volatile = true;
        }
        Ok(mount)
    }

    /// Who holds this keeps the draft from being swept away when this process is killed: for whoever works in its mount.
    pub fn shadow(&self) -> Result<OwnedFd> {
        self.lease.shadow()
    }

    /// Mounted for this process alone: COPY works under it.
    pub fn mounted(&self) -> Result<Mounted<'_>> {
        let mount = self.mount()?;
        let root = sys::mount::detached(&mount).context(|| format!("mounting snapshot {}", self.id))?;
        Ok(Mounted { draft: self, root })
    }

    /// Its own tree (`Driver::tree`).
    pub fn tree(&self) -> Result<Tree> {
        self.snapshots.driver.tree(self.id)
    }

    /// No more than this many bytes go into it; it is not mounted yet.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        self.snapshots.driver.limit(self.id, bytes)
    }

    /// Where to write an archive so that it changes what lies below: straight into the tree where that means
    /// the same.
    pub fn place(&self) -> Result<Place<'_>> {
        let Tree { dir, form } = self.tree()?;
        match form {
            Form::Whole => Ok(Place::Tree(dir, form)),
            _ if self.parents.is_empty() => Ok(Place::Tree(dir, form)),
            _ => self.mounted().map(Place::Mounted),
        }
    }

    /// What to compare for what was changed. The draft is not mounted for writing any more.
    pub fn compare(&self) -> Result<Compared> {
        self.snapshots.compared(self.id, &self.parents)
    }

    /// Seals it as the top of a stack. `publish` runs in the same transaction: it makes the layer and the
    /// chain stand (`publish_layer`, `add_chain`) and names the chain, so that there is no layer without a
    /// tree. Where another process has sealed the same before, that one is returned and this one is gone.
    pub fn commit(self, publish: impl FnOnce(&Writer<'_>) -> Result<ChainId>) -> Result<SnapshotId> {
        let snapshots = self.snapshots;
        let (id, alone) = (self.id, self.parents.is_empty() && snapshots.driver.shape() == Shape::Layered);
        self.seal(|writer| {
            let chain = publish(writer)?;
            let row = writer
                .chain(&chain)?
                .ok_or_else(|| Error::internal(format!("no stack {chain} to seal a snapshot for")))?;
            if let (true, Some(below)) = (alone, &row.parent) {
                snapshots.inherit_root(writer, id, row.layer, below)?;
            }
            Ok(snapshots.keyed(&chain, row.layer))
        })
    }

    /// The same for a layer that stands in no stack yet ([`Snapshots::stand`]), of a Layered driver; `publish` names it.
    pub fn commit_alone(
        self,
        publish: impl FnOnce(&Writer<'_>) -> Result<LayerNumber>,
    ) -> Result<SnapshotId> {
        self.seal(|writer| publish(writer).map(Keyed::Layer))
    }

    /// Seals it as what holds `keyed`, which stands already: a tree made again, for another driver. Where it was sealed
    /// before, that one is returned and this one is gone.
    pub fn commit_as(self, keyed: Keyed) -> Result<SnapshotId> {
        self.seal(|_| Ok(keyed))
    }

    fn seal(mut self, publish: impl FnOnce(&Writer<'_>) -> Result<Keyed>) -> Result<SnapshotId> {
        self.snapshots.driver.seal(self.id)?;
        let sealed = self.snapshots.db.write(|writer| writer.seal_snapshot(self.id, publish(writer)?));
        match sealed.context(|| format!("sealing snapshot {}", self.id))? {
            Sealed::Now => {
                self.kept = true;
                Ok(self.id)
            }
            Sealed::Already(other) => Ok(other),
        }
    }

    /// Hands it to a row that keeps it: a container's, which `claim` inserts.
    pub fn keep<T>(mut self, claim: impl FnOnce(&Writer<'_>, SnapshotId) -> Result<T>) -> Result<T> {
        let claimed = self.snapshots.db.write(|writer| claim(writer, self.id))?;
        self.kept = true;
        Ok(claimed)
    }

    /// A layer's draft, to become a container's later: it can be mounted as one from now on, and is not mounted now.
    pub fn park(self) -> Result<Parked> {
        self.snapshots.driver.reopen(self.id)?;
        self.snapshots.write_out(&[self.id])?;
        let (lease, mut draft) = (self.snapshots.db.lease()?, self);
        let (id, parents) = (draft.id, std::mem::take(&mut draft.parents));
        let lease = std::mem::replace(&mut draft.lease, lease);
        draft.kept = true;
        Ok(Parked { id, parents, lease })
    }

    pub(super) fn of(snapshots: &'s Snapshots, parked: Parked) -> Self {
        let Parked { id, parents, lease } = parked;
        Draft { snapshots, id, parents, purpose: Purpose::Container, kept: false, lease }
    }

    fn discard(&self) -> Result<()> {
        let (db, driver) = (&self.snapshots.db, &self.snapshots.driver);
        // The tree first: on a full disk the index may have no room before it is gone.
        driver.release(self.id)?;
        driver.remove(self.id)?;
        db.write(|writer| {
            writer.remove_snapshot(self.id)?;
            writer.forget_snapshot(self.id)
        })
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.discard() {
            tracing::warn!(id = self.id.0, %error, "a draft is left to the next sweep");
        }
    }
}
