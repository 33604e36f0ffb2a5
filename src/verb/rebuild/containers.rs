//! `system check --rebuild-index`: containers and volumes, out of their directories.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use super::Rebuilt;
use super::stacks::Stacks;
use crate::container::Record;
use crate::db::{ContainerId, Db, NewContainer};
use crate::error::{Context as _, Kind, Result};
use crate::image::{Digest, ImageId};
use crate::snapshot::Snapshots;
use crate::sys::dir::text_names;

pub(super) fn add_volumes(db: &Db, rebuilt: &mut Rebuilt) -> Result<()> {
    for name in names(&db.root().join("volumes"))? {
        if db.root().join("volumes").join(&name).join("_data").is_dir() {
            let anonymous = Digest::from_hex(&name).is_some();
            db.write(|writer| writer.insert_volume(&name, &BTreeMap::new(), anonymous))?;
            rebuilt.volumes += 1;
        }
    }
    Ok(())
}

/// Containers whose image and writable layer are there. None of them runs: the store is ours alone.
pub(super) fn add_containers(
    db: &Db,
    snapshots: &Snapshots,
    stacks: &mut Stacks<'_>,
    images: &HashSet<ImageId>,
    rebuilt: &mut Rebuilt,
) -> Result<()> {
    for name in names(&db.root().join("containers"))? {
        let Ok(id) = name.parse::<ContainerId>() else { continue };
        let mut lost = |why: &str| rebuilt.lost.push(format!("container {}: {why}", id.short()));
        let Some(record) = Record::read(db.root(), &id)? else {
            lost("what it was made of is not written down");
            continue;
        };
        if !images.contains(&record.image) {
            lost("its image is not there");
            continue;
        }
        let tree = [Some(record.snapshot), record.moved].into_iter().flatten();
        let Some(tree) = tree.into_iter().find(|tree| stacks.trees.contains(tree)) else {
            lost("its writable layer is not there");
            continue;
        };
        let chain = db.read(|reader| reader.image(&record.image))?.and_then(|image| image.chain);
        let parents = snapshots.stack(chain.as_ref())?;
        let inserted = db.write(|writer| {
            writer.adopt_snapshot(tree, snapshots.driver().name(), None, &parents)?;
            writer.insert_container(&NewContainer {
                id: id.clone(),
                name: record.name.clone(),
                image: record.image,
                snapshot: tree,
                auto_remove: record.auto_remove,
                config: record.config.clone(),
            })?;
            writer.container_created_at(&id, record.created_at())?;
            for (volume, destination) in &record.volumes {
                writer.insert_volume(volume, &BTreeMap::new(), Digest::from_hex(volume).is_some())?;
                writer.use_volume(&id, volume, destination)?;
            }
            Ok(())
        });
        match inserted {
            Ok(()) => {
                stacks.trees.remove(&tree);
                rebuilt.containers += 1;
            }
            Err(error) if error.kind() == Kind::Conflict => lost(error.message()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// In order; none where there is no such directory.
fn names(dir: &Path) -> Result<Vec<String>> {
    match text_names(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.context(|| format!("listing {}", dir.display())),
    }
}
