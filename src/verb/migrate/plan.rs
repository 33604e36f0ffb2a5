//! What a migration has to make: which trees of the other driver are missing, out of what each comes, and what room it takes.

use std::collections::{HashMap, HashSet};

use crate::container::{self, Config};
use crate::db::{
    ChainRow, ContainerRow, ContainerState, Keyed, LayerNumber, LayerRow, Moved, Reader, SnapshotId,
};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::ChainId;
use crate::job::Job;
use crate::rootfs::{Layer, NewTree};
use crate::snapshot::Snapshots;
use crate::snapshot::driver::Shape;

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In an order in which each finds what it is made on.
    pub(super) trees: Vec<Tree>,
    /// Whose writable layers are to be moved.
    pub(super) containers: Vec<ContainerRow>,
    /// Layers that the build cache alone keeps, and that have no place with the other driver.
    pub(super) left: usize,
    /// What all of it takes, about, in bytes.
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) new: NewTree,
    /// Bytes of the layer's archive.
    pub(super) archive: u64,
    /// Places in the plan of those that it is made on; they stand before it.
    pub(super) needs: Vec<usize>,
}

/// What a file or a directory takes besides its bytes: the half of a block that is not full, on average.
const EACH: u64 = 2048;

impl Plan {
    pub(super) fn make(engine: &Engine, to: &Snapshots, job: &Job) -> Result<Plan> {
        // At one moment: a container's image is among the trees.
        let (mut plan, containers, moved) = engine.db.read(|index| {
            let plan = Sources::read(engine, index)?.plan(index, to)?;
            Ok((plan, index.containers()?, index.moved()?))
        })?;
        let shares = to.driver().shares()?;
        for row in containers {
            if row.state == ContainerState::Removing || is_moved(&moved, &row) {
                continue;
            }
            plan.bytes += match container::changed_bytes(engine, &row, job) {
                // It runs by now.
                Err(_) if super::still(engine, &row)?.is_none() => 0,
                bytes => bytes?,
            };
            if !shares {
                plan.bytes +=
                    engine.db.read(|index| Ok(index.image(&row.image)?.map_or(0, |image| image.size)))?;
            }
            plan.containers.push(row);
        }
        for tree in &plan.trees {
            plan.bytes += engine.db.read(|index| takes(index, tree, to.driver().shape(), shares))?;
        }
        plan.bytes += to.driver().overhead()? * (plan.trees.len() + plan.containers.len()) as u64;
        Ok(plan)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trees.is_empty() && self.containers.is_empty()
    }
}

/// Its copy is what it is now.
fn is_moved(moved: &[Moved], row: &ContainerRow) -> bool {
    moved.iter().any(|moved| moved.container == row.id && moved.started_at == row.started_at)
}

/// A container's limit, if it has one.
pub(super) fn limit_of(row: &ContainerRow) -> Result<Option<u64>> {
    Ok(Config::of(row)?.storage_size)
}

fn takes(index: &Reader<'_>, tree: &Tree, shape: Shape, shares: bool) -> Result<u64> {
    let of = |layer: &LayerRow| layer.size + layer.row_count * EACH;
    match (shape, tree.new.chain) {
        (Shape::Stacked, Some(chain)) if !shares => Ok(index.stack(Some(&chain))?.iter().map(of).sum()),
        _ => Ok(index.layer(tree.new.layer.number)?.as_ref().map_or(0, of)),
    }
}

/// Which tree of the store's driver has which layer on top.
struct Sources {
    layers: HashMap<LayerNumber, LayerRow>,
    /// The lowest first.
    chains: Vec<ChainRow>,
    of_chain: HashMap<ChainId, SnapshotId>,
    of_layer: HashMap<LayerNumber, SnapshotId>,
}

impl Sources {
    fn read(engine: &Engine, index: &Reader<'_>) -> Result<Sources> {
        let driver = engine.snapshots.driver();
        let layers: HashMap<LayerNumber, LayerRow> =
            index.layers()?.into_iter().map(|layer| (layer.number, layer)).collect();
        let (mut of_chain, mut of_layer) = (HashMap::new(), HashMap::new());
        if driver.shape() == Shape::Layered {
            for layer in layers.keys() {
                if let Some(tree) = index.snapshot_of(driver.name(), Keyed::Layer(*layer))? {
                    of_layer.insert(*layer, tree);
                }
            }
        }
        let mut chains = Vec::new();
        for chain in index.chains()? {
            if index.find_chain(&chain.id)?.is_none() || !layers.contains_key(&chain.layer) {
                continue;
            }
            if driver.shape() == Shape::Stacked
                && let Some(tree) = index.snapshot_of(driver.name(), Keyed::Chain(chain.id))?
            {
                of_chain.insert(chain.id, tree);
                of_layer.entry(chain.layer).or_insert(tree);
            }
            chains.push(chain);
        }
        Ok(Sources { layers, chains, of_chain, of_layer })
    }

    fn plan(&self, index: &Reader<'_>, to: &Snapshots) -> Result<Plan> {
        let mut plan = Plan::default();
        let shape = to.driver().shape();
        let stands = |keyed| Ok::<_, Error>(index.snapshot_of(to.driver().name(), keyed)?.is_some());
        let mut seen = HashSet::new();
        for chain in &self.chains {
            seen.insert(chain.layer);
            let layer = &self.layers[&chain.layer];
            let (keyed, parent) = match shape {
                Shape::Stacked => (Keyed::Chain(chain.id), chain.parent),
                Shape::Layered => (Keyed::Layer(chain.layer), layer.base.filter(|_| layer.leans)),
            };
            if plan.trees.iter().any(|tree| tree.new.keyed == keyed) || stands(keyed)? {
                continue;
            }
            let from = self.of_chain.get(&chain.id).or_else(|| self.of_layer.get(&chain.layer));
            let from = *from.ok_or_else(|| missing(layer))?;
            plan.add(layer, Some(chain.id), parent, from, keyed);
        }
        for layer in self.layers.values().filter(|layer| !seen.contains(&layer.number)) {
            let base_stands = match layer.base {
                Some(base) => self.chains.iter().any(|chain| chain.id == base),
                None => true,
            };
            let keyed = Keyed::Layer(layer.number);
            match (shape, self.of_layer.get(&layer.number)) {
                (Shape::Layered, _) if stands(keyed)? => {}
                (Shape::Layered, Some(from)) if base_stands => {
                    plan.add(layer, None, layer.base.filter(|_| layer.leans), *from, keyed);
                }
                _ => plan.left += 1,
            }
        }
        plan.find_needs(index, shape)?;
        Ok(plan)
    }
}

impl Plan {
    fn add(
        &mut self,
        layer: &LayerRow,
        chain: Option<ChainId>,
        parent: Option<ChainId>,
        from: SnapshotId,
        keyed: Keyed,
    ) {
        let new = NewTree { layer: Layer::from(layer), chain, parent, from, keyed };
        self.trees.push(Tree { new, archive: layer.tar_size, needs: Vec::new() });
    }

    fn find_needs(&mut self, index: &Reader<'_>, shape: Shape) -> Result<()> {
        let places: HashMap<Keyed, usize> =
            self.trees.iter().enumerate().map(|(place, tree)| (tree.new.keyed, place)).collect();
        for (place, tree) in self.trees.iter_mut().enumerate() {
            let Some(parent) = tree.new.parent else { continue };
            let needed = match shape {
                Shape::Stacked => vec![Keyed::Chain(parent)],
                Shape::Layered => {
                    let stack = index.stack(Some(&parent))?;
                    stack.iter().map(|layer| Keyed::Layer(layer.number)).collect()
                }
            };
            // What is not in the plan stands.
            let needed = needed.iter().filter_map(|keyed| places.get(keyed));
            tree.needs = needed.copied().filter(|needed| *needed < place).collect();
        }
        Ok(())
    }
}

fn missing(layer: &LayerRow) -> Error {
    Error::not_found(format!("layer {} has no tree that it could be made again from", layer.diff_id.short()))
        .hint("`outcrop system check` says what is wrong with the store")
}
