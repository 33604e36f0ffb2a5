//! `system df`: what the store takes.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::container::{self, Config};
use crate::db::{CacheRecord, ContainerRow, ContainerState, Reader, Usage, VolumeRow};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::job::Job;
use crate::verb::cache_kept::{self, Kept};
use crate::verb::images::{self, Listed};

/// All bytes are of files; what several share counts once.
#[derive(Debug)]
pub struct DiskUsage {
    pub index: Usage,
    pub images: Vec<ImageUsage>,
    pub containers: Vec<ContainerUsage>,
    pub volumes: Vec<VolumeUsage>,
    pub cache: Vec<CacheUsage>,
    pub kept: Vec<Kept>,
    /// Bytes of compressed layers that `image prune --blobs` would drop.
    pub droppable: u64,
    /// Blobs that were coming when whoever fetched them ended, as far as they came.
    pub incoming: Incoming,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming {
    pub files: usize,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct ImageUsage {
    pub image: Listed,
    /// Of layers that no other image has.
    pub unique: u64,
}

#[derive(Debug)]
pub struct ContainerUsage {
    pub row: ContainerRow,
    /// Of its writable layer.
    pub bytes: u64,
    /// What it was created from, as the user named it, and what it runs.
    pub image: String,
    pub command: String,
    pub volumes: usize,
}

#[derive(Debug)]
pub struct VolumeUsage {
    pub row: VolumeRow,
    pub bytes: u64,
    /// Containers that use it.
    pub links: usize,
}

#[derive(Debug)]
pub struct CacheUsage {
    pub record: CacheRecord,
    /// Of its layer.
    pub bytes: u64,
    /// An image has the layer too.
    pub shared: bool,
}

pub fn disk_usage(engine: &Engine, job: &Job) -> Result<DiskUsage> {
    // Containers whose outcrop was killed do not run.
    engine.sweep()?;
    let (index, containers, volumes, cache) =
        engine.db.read(|index| Ok((index.usage()?, index.containers()?, volumes(index)?, cache(index)?)))?;
    let mut images = Vec::new();
    for image in images::list(engine)?.into_iter().filter(|image| !image.intermediate) {
        let unique = engine.db.read(|index| index.unique_bytes(&image.row.id))?;
        images.push(ImageUsage { image, unique });
    }
    let mut used = Vec::new();
    for row in containers {
        if row.state == ContainerState::Removing {
            continue;
        }
        let bytes = container::changed_bytes(engine, &row, job)?;
        let volumes = engine.db.read(|index| index.volumes_of(&row.id))?.len();
        let config = Config::of(&row)?;
        let (image, command) = (config.image.clone(), config.command_line());
        used.push(ContainerUsage { row, bytes, image, command, volumes });
    }
    let mut volumes_used = Vec::new();
    for (row, links) in volumes {
        let bytes = tree_bytes(&engine.root.join("volumes").join(&row.name).join("_data"))?;
        volumes_used.push(VolumeUsage { row, bytes, links });
    }
    let kept = cache_kept::list(engine)?;
    let incoming = incoming(engine)?;
    let droppable = engine.db.read(|index| index.blobs_to_be_had_again())?.iter().map(|(_, size)| size).sum();
    Ok(DiskUsage { index, images, containers: used, volumes: volumes_used, cache, kept, droppable, incoming })
}

fn incoming(engine: &Engine) -> Result<Incoming> {
    let mut incoming = Incoming::default();
    for intent in engine.db.read(|index| index.incoming())? {
        let path = engine.root.join("ingest").join(intent.detail.unwrap_or_default());
        if let Ok(file) = std::fs::metadata(&path) {
            incoming.files += 1;
            incoming.bytes += file.len();
        }
    }
    Ok(incoming)
}

fn volumes(index: &Reader<'_>) -> Result<Vec<(VolumeRow, usize)>> {
    let links = |volume: VolumeRow| Ok((index.volume_users(&volume.name)?.len(), volume));
    let volumes = index.volumes()?.into_iter().map(links);
    volumes.map(|pair| pair.map(|(links, volume)| (volume, links))).collect()
}

fn cache(index: &Reader<'_>) -> Result<Vec<CacheUsage>> {
    let of_images = index.layers_of_images()?;
    let mut cache = Vec::new();
    for record in index.cache_records()? {
        let layer = record.layer.map(|number| index.layer(number)).transpose()?.flatten();
        cache.push(CacheUsage {
            bytes: layer.as_ref().map_or(0, |layer| layer.size),
            shared: record.layer.is_some_and(|layer| of_images.contains(&layer)),
            record,
        });
    }
    Ok(cache)
}

/// Of all files below, each inode once; what goes away meanwhile is not counted.
pub(super) fn tree_bytes(top: &Path) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.context(|| format!("listing {}", dir.display()))?,
        };
        for entry in entries {
            let entry = entry.context(|| format!("listing {}", dir.display()))?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.is_file()
                && (metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())))
            {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

impl DiskUsage {
    pub fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|used| used.bytes).sum()
    }
    /// What `system prune` would free of them.
    pub fn reclaimable_kept_bytes(&self) -> u64 {
        self.kept.iter().filter(|used| !used.in_use).map(|used| used.bytes).sum()
    }
    /// What `system prune` would free of containers: those that do not run.
    pub fn reclaimable_container_bytes(&self) -> u64 {
        let still = self.containers.iter().filter(|used| used.row.state != ContainerState::Running);
        still.map(|used| used.bytes).sum()
    }
    pub fn container_bytes(&self) -> u64 {
        self.containers.iter().map(|used| used.bytes).sum()
    }
    pub fn volume_bytes(&self) -> u64 {
        self.volumes.iter().map(|used| used.bytes).sum()
    }
    pub fn reclaimable_volume_bytes(&self) -> u64 {
        self.volumes.iter().filter(|used| used.links == 0).map(|used| used.bytes).sum()
    }
}
