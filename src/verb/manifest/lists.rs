//! Manifest lists in the making: `lists/<digest of the name>`, one file each, which appears whole. What they name is in
//! them, so they need nothing that could go away meanwhile but layers.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, ImageId, Index, MediaType, Reference};
use crate::sys::durable::write_durably;

/// Bytes; a list of a thousand manifests has some two million.
const MOST: u64 = 64 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) name: Reference,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What it was added as.
    pub(super) name: Reference,
    /// As the index will list it: with its platform.
    pub(super) descriptor: Descriptor,
    pub(super) manifest: String,
    /// Of the store; `None`: it is at the registry of its name.
    pub(super) image: Option<ImageId>,
}

impl List {
    /// Docker's media type where all manifests are Docker's.
    pub(super) fn index(&self) -> Index {
        let entries: Vec<Descriptor> = self.entries.iter().map(|entry| entry.descriptor.clone()).collect();
        let docker = entries.iter().all(|entry| entry.media_type == MediaType::DockerManifest);
        let mut index = Index::new(entries);
        index.media_type = Some(if docker { MediaType::DockerManifestList } else { MediaType::OciIndex });
        index
    }

    pub(super) fn entry(&mut self, name: &Reference) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.name == *name)
    }
}

/// Held while a list is changed: other processes wait.
pub(super) struct Lists {
    dir: PathBuf,
    _lock: File,
}

pub(super) fn lock(engine: &Engine) -> Result<Lists> {
    let dir = engine.root.join("lists");
    let doing = || format!("opening {}", dir.display());
    fs::create_dir_all(&dir).context(doing)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
    let lock = lock.context(doing)?;
    flock(&lock, FlockOperation::LockExclusive).context(doing)?;
    Ok(Lists { dir, _lock: lock })
}

/// `None`, where there is none of this name.
pub(super) fn find(engine: &Engine, name: &Reference) -> Result<Option<List>> {
    read(&path(&engine.root.join("lists"), name))
}

pub(super) fn absent(name: &Reference) -> Error {
    Error::not_found(format!("No such manifest: {}", name.familiar()))
        .hint("`outcrop manifest create` makes a list")
}

impl Lists {
    pub(super) fn find(&self, name: &Reference) -> Result<Option<List>> {
        read(&path(&self.dir, name))
    }

    /// On disk when it returns.
    pub(super) fn put(&self, list: &List) -> Result<()> {
        let path = path(&self.dir, &list.name);
        let doing = || format!("writing {}", path.display());
        // One at a time: the lock is held. What a killed process left is written over.
        let bytes = serde_json::to_vec(list).context(doing)?;
        write_durably(&path, &self.dir.join("making"), &bytes).context(doing)
    }

    pub(super) fn remove(&self, name: &Reference) -> Result<()> {
        let path = path(&self.dir, name);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Err(absent(name)),
            removed => removed.context(|| format!("removing {}", path.display())),
        }
    }
}

/// Names are longer than names of files may be.
fn path(dir: &Path, name: &Reference) -> PathBuf {
    dir.join(Digest::of(name.to_string().as_bytes()).hex())
}

fn read(path: &Path) -> Result<Option<List>> {
    let doing = || format!("reading {}", path.display());
    let file = match File::open(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.context(doing)?,
    };
    let mut raw = Vec::new();
    file.take(MOST).read_to_end(&mut raw).context(doing)?;
    let list: List = serde_json::from_slice(&raw).context(doing)?;
    for entry in &list.entries {
        entry.descriptor.verify(entry.manifest.as_bytes()).context(doing)?;
    }
    Ok(Some(list))
}
