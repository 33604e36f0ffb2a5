//! `system check --rebuild-index`: layers, and the stacks that they stand in.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Rebuilt;
use crate::db::{Db, Keyed, LayerNumber, Lease, NewLayer, SnapshotId};
use crate::error::Result;
use crate::image::{ChainId, DiffId, ImageConfig};
use crate::job::Job;
use crate::rootfs::{self, Reread};
use crate::snapshot::Snapshots;
use crate::snapshot::driver::Shape;

/// Layers and the stacks they stand in, found again one after the other, the lowest first.
pub(super) struct Stacks<'r> {
    db: &'r Db,
    snapshots: &'r Snapshots,
    lease: &'r Lease,
    job: &'r Job,
    /// On disk, and nobody's yet.
    pub(super) trees: BTreeSet<SnapshotId>,
    /// Those that may stand on anything, of a Layered driver.
    free: HashMap<DiffId, LayerNumber>,
    known: HashMap<ChainId, bool>,
    layers: HashSet<LayerNumber>,
    highest: u64,
}

impl<'r> Stacks<'r> {
    pub(super) fn new(db: &'r Db, snapshots: &'r Snapshots, lease: &'r Lease, job: &'r Job) -> Result<Self> {
        let trees: BTreeSet<SnapshotId> = snapshots.driver().list()?.into_iter().collect();
        let highest = trees.last().map_or(0, |last| last.0);
        Ok(Stacks {
            db,
            snapshots,
            lease,
            job,
            trees,
            free: HashMap::new(),
            known: HashMap::new(),
            layers: HashSet::new(),
            highest,
        })
    }

    /// All of an image's layers; false where one is lost.
    pub(super) fn stand(&mut self, config: &ImageConfig) -> Result<bool> {
        let mut instructions = config.history.iter().filter(|entry| !entry.empty_layer);
        let mut below = None;
        for diff_id in &config.rootfs.diff_ids {
            let made_by = instructions.next().and_then(|entry| entry.created_by.clone());
            let chain = ChainId::on(below.as_ref(), diff_id);
            let stands = match self.known.get(&chain) {
                Some(stands) => *stands,
                None => self.find(below.as_ref(), diff_id, made_by)?,
            };
            self.known.insert(chain, stands);
            if !stands {
                return Ok(false);
            }
            below = Some(chain);
        }
        Ok(true)
    }

    fn find(&mut self, below: Option<&ChainId>, diff_id: &DiffId, made_by: Option<String>) -> Result<bool> {
        let shape = self.snapshots.driver().shape();
        if let Some(number) = self.free.get(diff_id) {
            self.db.write(|writer| writer.add_chain(below, *number))?;
            return Ok(true);
        }
        let chain = ChainId::on(below, diff_id);
        let mut said: Vec<(SnapshotId, bool)> = Vec::new();
        for at in rootfs::located(self.db.root(), diff_id)? {
            // For another stack it will do where one tree serves all of them.
            let same = at.chain == chain;
            if at.driver == self.snapshots.driver().name() && (same || shape == Shape::Layered) {
                said.push((at.snapshot, same));
            }
        }
        said.sort_by_key(|(_, same)| !same);
        for (tree, same) in said {
            if self.trees.contains(&tree) && self.take(tree, below, diff_id, &made_by, same)? {
                return Ok(true);
            }
        }
        // Nobody has written down where it is: each tree that is left is looked at.
        for tree in self.trees.clone() {
            if self.take(tree, below, diff_id, &made_by, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this tree holds the layer; it does then. `said`: it was written down that it does, on this stack.
    fn take(
        &mut self,
        tree: SnapshotId,
        below: Option<&ChainId>,
        diff_id: &DiffId,
        made_by: &Option<String>,
        said: bool,
    ) -> Result<bool> {
        let driver = self.snapshots.driver();
        let read = |view| rootfs::reread(self.db, diff_id, driver, tree, view, self.lease, self.job);
        let Some(mut found) = read(None)? else { return Ok(false) };
        let leans = found.scanned.leans;
        if leans && below.is_some() {
            drop(found);
            let view = self.snapshots.open_view(below)?;
            match read(Some(std::os::fd::AsFd::as_fd(&view)))? {
                Some(again) => found = again,
                None => return Ok(false),
            }
        }
        let Reread { slot, scanned, content_id, row_count } = found;
        if !said {
            let mut stack = match driver.shape() {
                Shape::Layered => Vec::new(),
                Shape::Stacked => {
                    self.db.read(|reader| reader.stack(below))?.iter().map(|row| row.number).collect()
                }
            };
            stack.push(slot.number());
            if !rootfs::shows(self.db, driver, tree, &stack, self.job)? {
                return Ok(false);
            }
        }
        let new = NewLayer {
            number: slot.number(),
            diff_id: *diff_id,
            base: below.copied().filter(|_| leans),
            leans,
            content_id,
            size: scanned.bytes,
            tar_size: scanned.size,
            row_count,
            made_by: made_by.clone(),
            build: None,
        };
        let number = self.db.write(|writer| {
            let published = writer.publish_layer(&new)?;
            let chain = writer.add_chain(below, published.number)?;
            let keyed = match driver.shape() {
                Shape::Layered => Keyed::Layer(published.number),
                Shape::Stacked => Keyed::Chain(chain),
            };
            writer.adopt_snapshot(tree, driver.name(), Some(keyed), &[])?;
            Ok(published.number)
        })?;
        drop(slot);
        self.trees.remove(&tree);
        self.layers.insert(number);
        if driver.shape() == Shape::Layered && !leans {
            self.free.insert(*diff_id, number);
        }
        Ok(true)
    }

    /// Numbers go on beyond all that are in use; trees that nobody claimed are named.
    pub(super) fn finish(&self, rebuilt: &mut Rebuilt) -> Result<()> {
        rebuilt.layers = self.layers.len();
        let next = SnapshotId(self.highest + 1);
        self.db.write(|writer| writer.number_from(LayerNumber(1), next))?;
        let name = self.snapshots.driver().name();
        for tree in &self.trees {
            let what =
                format!("{name}/{tree}: no image and no container has this tree; it stays where it is");
            rebuilt.lost.push(what);
        }
        Ok(())
    }
}
