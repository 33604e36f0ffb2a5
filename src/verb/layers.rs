//! `layers`: the stack an image is made of, and the tree that all stacks form.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::db::{Changes, ImageRow, LayerNumber};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{ChainId, DiffId, ImageId};
use crate::verb::history;
use crate::verb::images::{self, Listed};

#[derive(Clone, Debug)]
pub struct Layer {
    /// The instruction's number in the image's history, counted from 1: what `rollback --to` takes.
    pub n: usize,
    pub id: DiffId,
    /// The stack up to here.
    pub chain: ChainId,
    /// The layer below.
    pub parent: Option<DiffId>,
    /// Sum of the sizes of its files, in bytes.
    pub size: u64,
    pub changes: Changes,
    pub created: Option<String>,
    pub created_by: String,
    /// The image after the instruction.
    pub image: ImageId,
    /// Other images that have this layer: by their names, or by id where they have none. Those an image was made from
    /// by one instruction after another are itself, not others.
    pub shared_with: Vec<String>,
}

/// Bottom first.
pub fn layers(engine: &Engine, image: &ImageRow) -> Result<Vec<Layer>> {
    let chains = engine.db.read(|index| index.chain_ids(image.chain.as_ref()))?;
    let entries = history::entries(engine, &image.id)?;
    let sharing = Sharing::of(engine, &image.id)?;
    let mut below: Vec<LayerNumber> = Vec::new();
    let mut layers: Vec<Layer> = Vec::new();
    let with_layer = entries.into_iter().filter_map(|entry| Some((entry.layer?, entry.layer_number?, entry)));
    for ((id, number, entry), chain) in with_layer.zip(chains) {
        layers.push(Layer {
            n: entry.n,
            id,
            chain,
            parent: layers.last().map(|layer| layer.id),
            size: entry.size,
            changes: engine.db.changes(number, &below)?,
            created: entry.created,
            created_by: entry.created_by,
            image: entry.id,
            shared_with: sharing.names(number),
        });
        below.insert(0, number);
    }
    Ok(layers)
}

/// Which images have which layers.
struct Sharing {
    /// The layers and the names of every other image that people may know.
    others: Vec<(HashSet<LayerNumber>, Vec<String>)>,
}

impl Sharing {
    fn of(engine: &Engine, image: &ImageId) -> Result<Sharing> {
        let listed = images::list(engine)?;
        let (chains, line) = engine.db.read(|index| Ok((index.chains()?, index.ancestry(image)?)))?;
        let line: HashSet<ImageId> = line.into_iter().map(|row| row.id).collect();
        let chains: HashMap<ChainId, _> =
            chains.into_iter().map(|chain| (chain.id, (chain.parent, chain.layer))).collect();
        let layers_of = |top: Option<ChainId>| {
            let below = std::iter::successors(top, |id| chains.get(id).and_then(|(parent, _)| *parent));
            below.filter_map(|id| chains.get(&id).map(|(_, layer)| *layer)).collect()
        };
        let known = |other: &&Listed| {
            let has_name = !other.tags.is_empty();
            other.row.id != *image && !other.intermediate && (has_name || !line.contains(&other.row.id))
        };
        let others =
            listed.iter().filter(known).map(|other| (layers_of(other.row.chain), names_of(other))).collect();
        Ok(Sharing { others })
    }

    fn names(&self, layer: LayerNumber) -> Vec<String> {
        let having = self.others.iter().filter(|(layers, _)| layers.contains(&layer));
        let mut names: Vec<String> = having.flat_map(|(_, names)| names.iter().cloned()).collect();
        names.sort();
        names
    }
}

fn names_of(image: &Listed) -> Vec<String> {
    match image.tags.is_empty() {
        true => vec![image.row.id.short()],
        false => image.tags.iter().map(crate::image::Reference::familiar).collect(),
    }
}

/// A layer in the tree of all stacks.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: DiffId,
    pub chain: ChainId,
    pub size: u64,
    /// The instruction that made it, where it was made here or an image says so.
    pub created_by: Option<String>,
    /// Images whose top it is: their names, or their ids where they have none.
    pub images: Vec<String>,
    /// What stands on it.
    pub above: Vec<Node>,
}

/// All layers that images have, from those that stand on nothing.
pub fn tree(engine: &Engine) -> Result<Vec<Node>> {
    let listed = images::list(engine)?;
    let (chains, layers) = engine.db.read(|index| Ok((index.chains()?, index.layers()?)))?;
    let chains: HashMap<ChainId, _> = chains.into_iter().map(|chain| (chain.id, chain)).collect();
    let layers: HashMap<LayerNumber, _> = layers.into_iter().map(|layer| (layer.number, layer)).collect();
    let mut wood = Wood::default();
    let mut said: HashMap<ChainId, String> = HashMap::new();
    for image in &listed {
        if !image.intermediate
            && let Some(chain) = image.row.chain
        {
            wood.images.entry(chain).or_default().extend(names_of(image));
        }
        let mut next = image.row.chain;
        while let Some(id) = next.filter(|id| !wood.seen.contains(id)) {
            let Some(chain) = chains.get(&id) else { break };
            wood.seen.insert(id);
            wood.above.entry(chain.parent).or_default().push(id);
            next = chain.parent;
        }
    }
    // What made a layer that came from elsewhere, only the config of an image tells.
    for image in listed.iter().filter(|image| !image.intermediate) {
        for step in images::config(engine, &image.row.id)?.0.steps() {
            if let (Some(_), Some(chain), Some(entry)) = (step.layer, step.chain, step.history)
                && let Some(created_by) = &entry.created_by
            {
                said.entry(chain).or_insert_with(|| created_by.clone());
            }
        }
    }
    let node = |id: &ChainId| {
        let chain = chains.get(id)?;
        let layer = layers.get(&chain.layer)?;
        Some(Node {
            id: layer.diff_id,
            chain: *id,
            size: layer.size,
            created_by: said.get(id).cloned().or_else(|| layer.made_by.clone()),
            images: Vec::new(),
            above: Vec::new(),
        })
    };
    Ok(wood.grow(None, &node))
}

#[derive(Default)]
struct Wood {
    seen: HashSet<ChainId>,
    above: HashMap<Option<ChainId>, Vec<ChainId>>,
    images: BTreeMap<ChainId, Vec<String>>,
}

impl Wood {
    fn grow(&mut self, below: Option<ChainId>, node: &dyn Fn(&ChainId) -> Option<Node>) -> Vec<Node> {
        let mut ids = self.above.remove(&below).unwrap_or_default();
        ids.sort_unstable();
        let mut nodes: Vec<Node> = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(mut node_here) = node(&id) else { continue };
            node_here.images = self.images.remove(&id).unwrap_or_default();
            node_here.images.sort();
            node_here.above = self.grow(Some(id), node);
            nodes.push(node_here);
        }
        nodes
    }
}
