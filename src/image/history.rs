//! Which history entry made which layer (image-spec config.md, "history").

use super::{ChainId, DiffId, History, ImageConfig};

/// One instruction of an image, oldest first: its entry, and its layer where it made one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step<'a> {
    /// `None` for a layer that the history does not mention.
    pub history: Option<&'a History>,
    /// `None` for an instruction that changed no file.
    pub layer: Option<&'a DiffId>,
    /// The stack after this step; `None` while there is no layer yet.
    pub chain: Option<ChainId>,
}

impl ImageConfig {
    /// Entries that made layers take them bottom first. Where the two disagree in number, nothing is dropped: entries
    /// too many have no layer, layers too many come last without an entry.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let mut layers = self.rootfs.diff_ids.iter();
        let mut chain = None;
        let mut stack = |layer: Option<&DiffId>| {
            if let Some(layer) = layer {
                chain = Some(ChainId::on(chain.as_ref(), layer));
            }
            chain
        };
        let mut steps = Vec::with_capacity(self.history.len().max(layers.len()));
        for entry in &self.history {
            let layer = if entry.empty_layer { None } else { layers.next() };
            steps.push(Step { history: Some(entry), layer, chain: stack(layer) });
        }
        for layer in layers {
            steps.push(Step { history: None, layer: Some(layer), chain: stack(Some(layer)) });
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    fn config(history: &[bool], layers: u8) -> ImageConfig {
        let history = history.iter().map(|&empty_layer| History { empty_layer, ..Default::default() });
        let mut config = ImageConfig { history: history.collect(), ..Default::default() };
        config.rootfs.diff_ids = (0..layers).map(|n| DiffId(Digest::of(&[n]))).collect();
        config
    }

    /// For each step: has an entry, its layer's number.
    fn shape(config: &ImageConfig) -> Vec<(bool, Option<usize>)> {
        let number = |layer| config.rootfs.diff_ids.iter().position(|id| id == layer).unwrap();
        config.steps().iter().map(|step| (step.history.is_some(), step.layer.map(number))).collect()
    }

    #[test]
    fn entries_that_made_layers_take_them_in_order() {
        let image = config(&[false, true, false, true], 2);
        assert_eq!(shape(&image), [(true, Some(0)), (true, None), (true, Some(1)), (true, None)]);
        let ids = &image.rootfs.diff_ids;
        let chains: Vec<_> = image.steps().iter().map(|step| step.chain).collect();
        let (one, two) = (ChainId::of(&ids[..1]), ChainId::of(ids));
        assert_eq!(chains, [one, one, two, two]);
    }

    #[test]
    fn where_history_and_layers_disagree_nothing_is_dropped() {
        assert_eq!(shape(&config(&[], 2)), [(false, Some(0)), (false, Some(1))]);
        assert_eq!(shape(&config(&[true, false, false], 1)), [(true, None), (true, Some(0)), (true, None)]);
        assert_eq!(shape(&config(&[false], 2)), [(true, Some(0)), (false, Some(1))]);
        assert_eq!(config(&[true], 0).steps()[0].chain, None);
    }
}
