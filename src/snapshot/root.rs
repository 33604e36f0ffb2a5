//! `/` of a stack of layers that are kept apart.
//!
//! A union shows the root of its uppermost tree. What should show is what the nearest layer says that says anything of `/`; most
//! say nothing, and such a layer's tree serves stacks with different roots. Its own root is right in the first stack that it
//! stood in ([`Snapshots::inherit_root`]); elsewhere an empty directory with the right attributes lies on top.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::Snapshots;
use super::driver::{Mount, SnapshotId};
use crate::db::{LayerNumber, Reader, Scratch};
use crate::error::{Context as _, Result};
use crate::image::{ChainId, Digest};
use crate::sys;
use crate::sys::tree::Attributes;

/// What a layer says of `/`.
#[derive(Clone, Copy)]
pub(super) struct Root {
    /// It hides all that lies below.
    pub(super) opaque: bool,
    /// It has owner, mode and times of its own for it.
    pub(super) described: bool,
}

/// Whose root a stack shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Uppermost,
    Of(SnapshotId),
    /// No layer that shows says anything of it.
    Nobodys,
}

impl Snapshots {
    /// By the layers of a stack, nearest first, with the trees that they are in.
    pub(super) fn shown(
        &self,
        layers: impl IntoIterator<Item = LayerNumber>,
        tree: impl FnOnce(LayerNumber) -> Result<Option<SnapshotId>>,
    ) -> Result<Shown> {
        for (n, layer) in layers.into_iter().enumerate() {
            let root = self.root_of(layer)?;
            if root.described {
                return Ok(match n {
                    0 => Shown::Uppermost,
                    _ => tree(layer)?.map_or(Shown::Uppermost, Shown::Of),
                });
            }
            if root.opaque {
                break;
            }
        }
        Ok(Shown::Nobodys)
    }

    /// What a draft that stands on `stack` begins with.
    pub(super) fn begin_root(&self, draft: SnapshotId, stack: &[SnapshotId], shown: Shown) -> Result<()> {
        let Some(wanted) = self.other_root(stack, shown)? else { return Ok(()) };
        wanted
            .give(self.driver.tree(draft)?.dir.as_fd())
            .context(|| format!("making the root of snapshot {draft}"))
    }

    /// A stack to be read.
    pub(super) fn view_of(&self, stack: &[SnapshotId], shown: Shown) -> Result<Mount> {
        let mut mount = self.driver.view(stack)?;
        if let Mount::Overlay { lowers, .. } = &mut mount
            && let Some(wanted) = self.other_root(stack, shown)?
        {
            lowers.insert(0, self.root_like(&wanted)?);
        }
        Ok(mount)
    }

    /// The root to show, where it is not the one of the uppermost tree.
    fn other_root(&self, stack: &[SnapshotId], shown: Shown) -> Result<Option<Attributes>> {
        let (Some(top), true) = (stack.first(), shown != Shown::Uppermost) else { return Ok(None) };
        let wanted = self.root(*top, shown)?;
        Ok(if self.root_in(*top)? == wanted { None } else { Some(wanted) })
    }

    /// Of a stack with `top` uppermost.
    fn root(&self, top: SnapshotId, shown: Shown) -> Result<Attributes> {
        match shown {
            Shown::Uppermost => self.root_in(top),
            Shown::Of(id) => self.root_in(id),
            Shown::Nobodys => Ok(Attributes::default()),
        }
    }

    fn root_in(&self, id: SnapshotId) -> Result<Attributes> {
        let tree = self.driver.tree(id)?;
        Attributes::of(tree.dir.as_fd()).context(|| format!("reading the root of snapshot {id}"))
    }

    /// An empty directory, made when it is first wanted.
    fn root_like(&self, wanted: &Attributes) -> Result<PathBuf> {
        let roots = self.db.root().join(self.driver.name()).join("roots");
        let name = Digest::of(format!("{wanted:?}").as_bytes()).hex();
        let place = roots.join(&name[..32]);
        let doing = || format!("making the directory {}", place.display());
        if let Ok(dir) = sys::dir::open_path(&place)
            && Attributes::of(dir.as_fd()).context(doing)? == *wanted
        {
            return Ok(place);
        }
        std::fs::create_dir_all(&roots).context(doing)?;
        let scratch = Scratch::new(self.db.root(), "root")?;
        wanted.give(scratch.lock.as_fd()).context(doing)?;
        match rustix::fs::renameat_with(CWD, &scratch.path, CWD, &place, RenameFlags::NOREPLACE) {
            // Another process has made it, or a power cut has left it with other attributes.
            Err(Errno::EXIST) => {
                wanted.give(sys::dir::open_path(&place).context(doing)?.as_fd()).context(doing)?;
            }
            renamed => renamed.context(doing)?,
        }
        Ok(place)
    }

    /// A layer's tree was made alone, and its archive says nothing of `/`: in a stack its root is what shows,
    /// so it gets what shows below.
    pub(super) fn inherit_root(
        &self,
        reader: &Reader<'_>,
        id: SnapshotId,
        layer: LayerNumber,
        below: &ChainId,
    ) -> Result<()> {
        let own = self.root_of(layer)?;
        if own.described || own.opaque {
            return Ok(());
        }
        let (stack, shown) = self.stack_of(reader, Some(below))?;
        let Some(top) = stack.first() else { return Ok(()) };
        let root = self.root(*top, shown)?;
        root.give(self.driver.tree(id)?.dir.as_fd()).context(|| format!("making the root of snapshot {id}"))
    }
}
