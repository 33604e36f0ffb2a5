//! `system check`: whether the rows of the index agree with each other, with tags.log and with what the images say.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OpenFlags};

use super::check::{Cure, Finding, Index, database, familiar};
use crate::db::{ContainerState, LogState, SnapshotId};
use crate::engine::Engine;
use crate::error::{Context as _, Kind, Result};
use crate::image::{ChainId, Digest, ImageConfig, ImageId, MAX_CONFIG};
use crate::job::Job;

/// SQLite's own proof of both files, and that their views can be read.
pub(super) fn databases(engine: &Engine, findings: &mut Vec<Finding>) -> Result<()> {
    for (file, views) in
        [("outcrop.db", &["imagedb", "layerdb", "layer_cache", "image_layer"][..]), ("files.db", &["files"])]
    {
        match database_flaws(engine, file, views) {
            Ok(flaws) => findings.extend(flaws.into_iter().map(|flaw| database(file, flaw))),
            Err(cause) => findings.push(database(file, cause.to_string())),
        }
    }
    Ok(())
}

fn database_flaws(engine: &Engine, file: &str, views: &[&str]) -> rusqlite::Result<Vec<String>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(engine.root.join(file), flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    let mut flaws: Vec<String> = connection
        .prepare("pragma integrity_check")?
        .query_map((), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    flaws.retain(|flaw| flaw != "ok");
    let mut orphans = connection.prepare("pragma foreign_key_check")?;
    let orphans = orphans.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?)))?;
    for orphan in orphans {
        let (from, to) = orphan?;
        flaws.push(format!("a row of `{from}` refers to a row of `{to}` that is not there"));
    }
    for view in views {
        if let Err(cause) = connection.prepare(&format!("select * from {view} limit 1"))?.query(())?.next() {
            flaws.push(format!("the view `{view}` cannot be read: {cause}"));
        }
    }
    Ok(flaws)
}

pub(super) fn check(
    engine: &Engine,
    index: &Index,
    trees: &[SnapshotId],
    findings: &mut Vec<Finding>,
    job: &Job,
) -> Result<()> {
    tags(engine, index, findings)?;
    for image in &index.images {
        job.check()?;
        self::image(engine, index, &image.id, findings)?;
    }
    chains(index, findings);
    containers(engine, index, trees, findings)?;
    for record in &index.cache {
        if Digest::of(record.key_text.as_bytes()) != *record.key.digest() {
            findings.push(Finding {
                object: format!("cache record {} of `{}`", record.id, record.instruction),
                file: "outcrop.db".into(),
                what: "its key is not the digest of its text".into(),
                cure: Cure::ForgetCache,
            });
        }
    }
    Ok(())
}

/// Tags, their log in the index, and tags.log tell the same.
fn tags(engine: &Engine, index: &Index, findings: &mut Vec<Finding>) -> Result<()> {
    let images: HashSet<ImageId> = index.images.iter().map(|image| image.id).collect();
    let mut last = HashMap::new();
    for entry in engine.db.read(|reader| reader.tag_log(None))? {
        last.insert(entry.name.clone(), entry);
    }
    let mut finding = |name: &str, what: String| {
        findings.push(Finding {
            object: format!("tag {}", familiar(name)),
            file: "outcrop.db".into(),
            what,
            cure: Cure::MoveTag,
        });
    };
    for tag in &index.tags {
        let moved = last.remove(&tag.name);
        if !images.contains(&tag.image) {
            finding(&tag.name, format!("it points at {}, which is not there", tag.image));
        }
        match moved {
            None => finding(&tag.name, "its log has no entry".into()),
            Some(moved) if moved.to != Some(tag.image) || moved.target != tag.target => {
                let to = moved.to.map_or("nowhere".to_owned(), |image| image.to_string());
                finding(&tag.name, format!("it points at {}, and its log says {to}", tag.image));
            }
            Some(_) => {}
        }
        if let Some(target) = tag.target.filter(|target| !index.blobs.contains_key(target)) {
            finding(&tag.name, format!("its manifest {target} is not among the blobs"));
        }
    }
    for (name, moved) in last {
        if let Some(image) = moved.to {
            finding(&name, format!("its log says that it points at {image}, and there is no such tag"));
        }
    }
    for known in &index.repo_digests {
        if !index.blobs.contains_key(&known.digest) {
            let what = format!("the manifest {} is not among the blobs", known.digest);
            finding(&format!("{}@{}", known.repository, known.digest), what);
        }
    }
    // A process that was killed between the two is no damage.
    if let LogState::Differs(seq) = engine.db.tags_log_state()? {
        findings.push(Finding {
            object: "tags".into(),
            file: "tags.log".into(),
            what: format!("it does not tell what the index tells of move {seq}"),
            cure: Cure::RebuildIndex,
        });
    }
    Ok(())
}

/// The row says what the config says, and the layers are there.
fn image(engine: &Engine, index: &Index, id: &ImageId, findings: &mut Vec<Finding>) -> Result<()> {
    let row = index.images.iter().find(|row| row.id == *id).expect("one of these rows");
    let mut finding = |file: String, what: String, cure| {
        findings.push(Finding { object: index.image_name(id), file, what, cure });
    };
    let config_file = format!("blobs/sha256/{}", id.hex());
    if !index.blobs.contains_key(id.digest()) {
        finding(config_file, "its config is not among the blobs".into(), Cure::GetAgain);
        return Ok(());
    }
    let bytes = match engine.blobs.read_all(id.digest(), MAX_CONFIG) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        // Said of the blob.
        Err(_) => return Ok(()),
    };
    let config = match ImageConfig::parse(&bytes) {
        Ok(config) => config,
        Err(error) => {
            finding(config_file, error.one_line(), Cure::GetAgain);
            return Ok(());
        }
    };
    let mut differs = |what: &str| finding("outcrop.db".into(), what.into(), Cure::RebuildIndex);
    if config.chain() != row.chain {
        differs("its layers are not those of its config");
    }
    if config.platform().to_string() != row.platform {
        differs("its platform is not that of its config");
    }
    if config.created != row.created {
        differs("its time is not that of its config");
    }
    let size = row.chain.as_ref().and_then(|chain| index.chains.get(chain)).map_or(0, |chain| chain.size);
    if size != row.size {
        differs("its size is not that of its layers");
    }
    if let Some(chain) = &row.chain
        && index.stack(chain).is_none()
    {
        differs("not all of its layers are there");
    }
    Ok(())
}

/// Each stack has the name, the depth and the size that come of what it is made of.
fn chains(index: &Index, findings: &mut Vec<Finding>) {
    for chain in index.chains.values() {
        let parent = chain.parent.as_ref().map(|parent| index.chains.get(parent));
        // Of a layer that is going there is no more to say.
        let Some(layer) = index.layers.get(&chain.layer) else { continue };
        let (depth, size) = match parent {
            Some(None) => continue,
            Some(Some(parent)) => (parent.depth, parent.size),
            None => (0, 0),
        };
        let what = if ChainId::on(chain.parent.as_ref(), &layer.diff_id) != chain.id {
            "its name does not come of its layers"
        } else if (depth + 1, size + layer.size) != (chain.depth, chain.size) {
            "its depth or size does not come of its layers"
        } else {
            continue;
        };
        findings.push(Finding {
            object: format!("stack {}", chain.id.short()),
            file: "outcrop.db".into(),
            what: what.into(),
            cure: Cure::RebuildIndex,
        });
    }
}

/// Containers stand on images that are there and have their own trees; volumes have their directories.
fn containers(
    engine: &Engine,
    index: &Index,
    trees: &[SnapshotId],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let driver = engine.snapshots.driver().name();
    let images: HashSet<ImageId> = index.images.iter().map(|image| image.id).collect();
    for container in &index.containers {
        let now = engine.db.read(|reader| reader.container(&container.id))?;
        if now.is_none_or(|now| now.state == ContainerState::Removing) {
            continue;
        }
        let mut finding = |file: String, what: String| {
            findings.push(Finding {
                object: format!("container {} ({})", container.id.short(), container.name),
                file,
                what,
                cure: Cure::RemoveContainer,
            });
        };
        if !images.contains(&container.image) {
            finding("outcrop.db".into(), format!("its image {} is not there", container.image));
        }
        let snapshot = index.snapshots.iter().find(|row| row.id == container.snapshot);
        if !snapshot.is_some_and(|row| row.driver != driver || trees.contains(&row.id)) {
            finding(format!("{driver}/{}", container.snapshot), "its writable layer is missing".into());
        }
    }
    for volume in &index.volumes {
        let file = format!("volumes/{}", volume.name);
        let there = engine.root.join(&file).try_exists().context(|| format!("looking at {file}"))?;
        if !there && engine.db.read(|reader| reader.volume(&volume.name))?.is_some() {
            findings.push(Finding {
                object: format!("volume {}", volume.name),
                file,
                what: "its directory is missing".into(),
                cure: Cure::RemoveContainer,
            });
        }
    }
    Ok(())
}
