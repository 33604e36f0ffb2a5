//! A stack of layers as the index knows it.

use crate::db::{LayerNumber, LayerRow};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{ChainId, ContentId, DiffId};
use crate::snapshot::View;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub number: LayerNumber,
    pub diff_id: DiffId,
    pub content_id: ContentId,
    /// Sum of its files' sizes, in bytes.
    pub size: u64,
}

impl From<&LayerRow> for Layer {
    fn from(row: &LayerRow) -> Self {
        Layer { number: row.number, diff_id: row.diff_id, content_id: row.content_id, size: row.size }
    }
}

/// Bottom first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    layers: Vec<Layer>,
    chain: Option<ChainId>,
}

impl Stack {
    pub fn load(engine: &Engine, chain: Option<&ChainId>) -> Result<Stack> {
        let rows = engine.db.read(|index| index.stack(chain))?;
        Ok(Stack { layers: rows.iter().map(Layer::from).collect(), chain: chain.copied() })
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// `None`: no layers.
    pub fn chain(&self) -> Option<&ChainId> {
        self.chain.as_ref()
    }

    pub fn content_ids(&self) -> Vec<ContentId> {
        self.layers.iter().map(|layer| layer.content_id).collect()
    }

    #[must_use]
    pub fn with(&self, layer: Layer) -> Stack {
        let chain = ChainId::on(self.chain.as_ref(), &layer.diff_id);
        let mut layers = self.layers.clone();
        layers.push(layer);
        Stack { layers, chain: Some(chain) }
    }

    /// The layer with this digest, if it is here and can stand on this stack as it is.
    pub fn find(&self, engine: &Engine, diff_id: &DiffId) -> Result<Option<Layer>> {
        let found = engine.db.read(|index| index.find_layer(diff_id, self.chain()))?;
        let Some(layer) = found.as_ref().map(Layer::from) else { return Ok(None) };
        Ok(self.stands(engine, &layer)?.then_some(layer))
    }

    /// Puts a layer that is here on this stack; false: its tree is not one that can stand there.
    pub fn stands(&self, engine: &Engine, layer: &Layer) -> Result<bool> {
        let (chain, first) =
            engine.db.write(|index| engine.snapshots.stand(index, self.chain(), layer.number))?;
        let Some(snapshot) = engine.snapshots.find(&chain)? else { return Ok(false) };
        if first {
            super::note(engine, &layer.diff_id, snapshot, chain)?;
        }
        Ok(true)
    }

    /// Its files, merged, mounted for this process alone.
    pub fn view(&self, engine: &Engine) -> Result<View> {
        engine.snapshots.open_view(self.chain.as_ref())
    }
}
