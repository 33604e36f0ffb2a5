//! `system check --rebuild-index`: images, their parents, and where they came from.

use std::collections::{HashMap, HashSet};

use super::blobs::Found;
use super::stacks::Stacks;
use super::{Rebuilt, Work};
use crate::db::{Db, NewImage, Origin, TagMove};
use crate::error::Result;
use crate::image::{Document, ImageConfig, ImageId};
use crate::job::Job;

/// Every config is an image. Its parent is the one that its last instruction was added to.
pub(super) fn add_images(
    db: &Db,
    found: &Found,
    moves: &[TagMove],
    mut stacks: Option<&mut Stacks<'_>>,
    rebuilt: &mut Rebuilt,
    job: &Job,
) -> Result<HashSet<ImageId>> {
    let work = Work::start(job, "reading the layers", found.configs.len());
    let mut configs: Vec<(&ImageId, &ImageConfig)> = found.configs.iter().collect();
    configs.sort_by_key(|(id, config)| (config.history.len(), **id));
    let mut images = HashSet::new();
    let mut by_content: HashMap<Vec<u8>, ImageId> = HashMap::new();
    for (id, config) in configs {
        job.check()?;
        let stands = match &mut stacks {
            Some(stacks) => stacks.stand(config)?,
            None => config.rootfs.diff_ids.is_empty(),
        };
        work.step();
        if !stands {
            rebuilt.lost.push(format!("image {}: one of its layers is not there, or not whole", id.short()));
            continue;
        }
        let layers = config.rootfs.diff_ids.len();
        let parent = match config.history.split_last() {
            Some((last, rest)) => {
                let before = layers.checked_sub(usize::from(!last.empty_layer));
                before.and_then(|before| by_content.get(&content(config, rest.len(), before)).copied())
            }
            None => None,
        };
        let new = NewImage {
            id: *id,
            parent,
            chain: config.chain(),
            platform: config.platform().to_string(),
            created: config.created.clone(),
            created_by: config.history.last().and_then(|last| last.created_by.clone()),
            origin: origin(id, parent, found, moves),
            build: None,
        };
        db.write(|writer| writer.insert_image(&new))?;
        by_content.entry(content(config, config.history.len(), layers)).or_insert(*id);
        images.insert(*id);
    }
    rebuilt.images = images.len();
    Ok(images)
}

/// What an image and the ones made from it have in common.
fn content(config: &ImageConfig, entries: usize, layers: usize) -> Vec<u8> {
    let said = (&config.history[..entries], &config.rootfs.diff_ids[..layers], config.platform().to_string());
    serde_json::to_vec(&said).expect("configs are plain data")
}

/// As the log of its first name says; else by what refers to it.
fn origin(id: &ImageId, parent: Option<ImageId>, found: &Found, moves: &[TagMove]) -> Origin {
    let named = moves.iter().filter(|entry| entry.to == Some(*id)).find_map(|entry| match &*entry.verb {
        "build" => Some(Origin::Built),
        "pull" => Some(Origin::Pulled),
        "commit" => Some(Origin::Committed),
        "import" => Some(Origin::Imported),
        "load" => Some(Origin::Loaded),
        "bootstrap" => Some(Origin::Bootstrapped),
        _ => None,
    });
    let has = |document: &Document| match document {
        Document::Image(manifest) => manifest.config.digest == *id.digest(),
        Document::Index(_) => false,
    };
    named.unwrap_or_else(|| match parent {
        None if found.documents.iter().any(|(_, document)| has(document)) => Origin::Pulled,
        None => Origin::Imported,
        Some(_) => Origin::Built,
    })
}
