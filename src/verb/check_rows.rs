//! `system check`: whether the rows of the index agree with each other, with tags.log and with what the images say.

use std::collections::HashSet;

use super::check::{Cure, Finding, Index, database, familiar};
use crate::db::{ContainerState, Fault, Origin};
use crate::engine::Engine;
use crate::error::{Context as _, Kind, Result};
use crate::image::{Digest, ImageConfig, ImageId, MAX_CONFIG};
use crate::job::Job;

/// What the databases say of themselves.
pub(super) fn databases(engine: &Engine, findings: &mut Vec<Finding>) -> Result<()> {
    for (file, faults) in [("outcrop.db", engine.db.check_index()), ("files.db", engine.db.check_files())] {
        match faults {
            Ok(faults) => findings.extend(faults.into_iter().map(|fault| of_database(file, fault))),
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => findings.push(database(file, error.one_line())),
        }
    }
    Ok(())
}

fn of_database(file: &str, fault: Fault) -> Finding {
    let Fault { what, problem } = fault;
    match what.strip_prefix("tag ") {
        Some(name) => Finding {
            object: format!("tag {}", familiar(name)),
            file: file.into(),
            what: problem,
            cure: Cure::MoveTag,
        },
        None if what == file => database(file, problem),
        None if what == "tags.log" => Finding { object: "tags".into(), ..database("tags.log", problem) },
        None => Finding { object: what, ..database(file, problem) },
    }
}

pub(super) fn check(engine: &Engine, index: &Index, findings: &mut Vec<Finding>, job: &Job) -> Result<()> {
    names(index, findings);
    for image in &index.images {
        job.check()?;
        self::image(engine, index, &image.id, findings)?;
    }
    containers(engine, index, findings)?;
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

/// What tags and repositories name is there.
fn names(index: &Index, findings: &mut Vec<Finding>) {
    let images: HashSet<ImageId> = index.images.iter().map(|image| image.id).collect();
    let mut finding = |name: &str, what: String| {
        findings.push(Finding {
            object: format!("tag {}", familiar(name)),
            file: "outcrop.db".into(),
            what,
            cure: Cure::MoveTag,
        });
    };
    for tag in &index.tags {
        if !images.contains(&tag.image) {
            finding(&tag.name, format!("it points at {}, which is not there", tag.image));
        }
        if let Some(target) = tag.target.filter(|target| !index.blobs.contains_key(target)) {
            finding(&tag.name, format!("its manifest {target} is not among the blobs"));
        }
    }
    // Those that came out of an engine that keeps no manifests are names and nothing more.
    let loaded: HashSet<ImageId> =
        index.images.iter().filter(|image| image.origin == Origin::Loaded).map(|image| image.id).collect();
    for known in index.repo_digests.iter().filter(|known| !loaded.contains(&known.image)) {
        if !index.blobs.contains_key(&known.digest) {
            let what = format!("the manifest {} is not among the blobs", known.digest);
            finding(&format!("{}@{}", known.repository, known.digest), what);
        }
    }
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
    if let Some(chain) = &row.chain
        && index.stack(chain).is_none()
    {
        differs("not all of its layers are there");
    }
    Ok(())
}

/// Containers stand on images that are there and have their own trees; volumes have their directories.
fn containers(engine: &Engine, index: &Index, findings: &mut Vec<Finding>) -> Result<()> {
    let driver = engine.snapshots.driver();
    let images: HashSet<ImageId> = index.images.iter().map(|image| image.id).collect();
    for container in &index.containers {
        let mut wrong = Vec::new();
        if !images.contains(&container.image) {
            wrong.push(("outcrop.db".to_owned(), format!("its image {} is not there", container.image)));
        }
        let snapshot = index.snapshots.iter().find(|row| row.id == container.snapshot);
        let gone = || match driver.tree(container.snapshot) {
            Err(error) if error.kind() == Kind::NotFound => Ok(true),
            tree => tree.map(|_| false),
        };
        if snapshot.is_none_or(|row| row.driver == driver.name()) && (snapshot.is_none() || gone()?) {
            let file = format!("{}/{}", driver.name(), container.snapshot);
            wrong.push((file, "its writable layer is missing".into()));
        }
        // It may be going meanwhile.
        let now = engine.db.read(|reader| reader.container(&container.id))?;
        if now.is_none_or(|now| now.state == ContainerState::Removing) {
            continue;
        }
        findings.extend(wrong.into_iter().map(|(file, what)| Finding {
            object: format!("container {} ({})", container.id.short(), container.name),
            file,
            what,
            cure: Cure::RemoveContainer,
        }));
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
