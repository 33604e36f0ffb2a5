//! Docker's data root, as dockerd up to 28 and without containerd's store keeps it: `image/DRIVER/` with configs
//! (imagedb), layers (layerdb) and names (repositories.json); the layers' files where the storage driver has them.
//! Nothing in it is written to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::Value;

use super::skeleton::Replayed;
use crate::error::{Context as _, Error, Result};
use crate::image::{ChainId, DiffId, Digest, ImageConfig, ImageId, MAX_CONFIG, Reference};
use crate::sys::dir;

pub struct DockerRoot {
    dir: PathBuf,
    /// Those of which there are images, each with its own.
    graphs: Vec<Graph>,
}

/// What dockerd had with one storage driver.
struct Graph {
    driver: String,
    /// `image/DRIVER`
    dir: PathBuf,
}

/// An image's config as it stands there.
pub struct Config {
    pub id: ImageId,
    pub raw: Vec<u8>,
    pub config: ImageConfig,
    /// The image that a classic build added one instruction to.
    pub parent: Option<ImageId>,
    graph: usize,
}

/// A layer on those below it.
pub struct Layer {
    /// Bytes of its files.
    pub size: u64,
    skeleton: PathBuf,
    tree: PathBuf,
}

/// A local volume.
pub struct Volume {
    pub name: String,
    pub data: PathBuf,
    /// What it is a mount of, where it is one.
    pub mounted: bool,
}

/// Where each driver has the files of the layer with this cache id: its own or all of its stack, in plain directories. Of
/// two it is the first that is there: `overlay` keeps a whole stack in `root`, but of what BuildKit made with it, where
/// layers are never unpacked, only what was written to the last `root` below, in `upper`.
const TREES: [(&str, &str, &[&str]); 6] = [
    ("overlay2", "overlay2", &["diff"]),
    ("fuse-overlayfs", "fuse-overlayfs", &["diff"]),
    ("overlay", "overlay", &["root", "upper"]),
    ("aufs", "aufs/diff", &[""]),
    ("btrfs", "btrfs/subvolumes", &[""]),
    ("vfs", "vfs/dir", &[""]),
];

impl DockerRoot {
    /// `Invalid` for what is none.
    pub fn open(dir: &Path) -> Result<DockerRoot> {
        let said = dir.display();
        let no_root = |why: &str| {
            Error::invalid(format!("{said} is no data root of Docker: {why}")).hint(
                "`docker info --format '{{.DockerRootDir}}'` names it; it is /var/lib/docker where nobody chose another",
            )
        };
        if !fs::metadata(dir).context(|| format!("opening {said}"))?.is_dir() {
            return Err(no_root("it is no directory"));
        }
        let mut graphs = Vec::new();
        for driver in names(&dir.join("image"))? {
            let graph = dir.join("image").join(&driver);
            if !names(&graph.join("imagedb/content/sha256"))?.is_empty() {
                graphs.push(Graph { driver, dir: graph });
            }
        }
        let containerd = dir.join("containerd/daemon/io.containerd.content.v1.content/blobs");
        if graphs.is_empty() && (!names(&containerd)?.is_empty() || dir.join("rootfs").is_dir()) {
            return Err(Error::unsupported(format!("the images of {said} are in containerd's store"))
                .hint("dockerd keeps them there since version 29, or where it is told to: start it, and `outcrop copy docker-daemon:NAME NAME` brings them over"));
        }
        if !dir.join("image").is_dir() {
            let remapped = names(dir)?
                .into_iter()
                .find(|name| name.contains('.') && dir.join(name).join("image").is_dir());
            return Err(match remapped {
                Some(name) => no_root("there is no `image` in it").hint(format!(
                    "dockerd worked with mapped ids (--userns-remap): name {}",
                    dir.join(name).display()
                )),
                None => no_root("there is no `image` in it"),
            });
        }
        Ok(DockerRoot { dir: dir.to_owned(), graphs })
    }

    /// Whether a dockerd is at work in it: as long as it is, it has this database locked (bbolt, flock(2)).
    pub fn is_in_use(&self) -> Result<bool> {
        let path = self.dir.join("volumes/metadata.db");
        let file = match fs::File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.context(|| format!("opening {}", path.display()))?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(cause) => Err(cause).context(|| format!("locking {}", path.display())),
        }
    }

    /// All of them, parents before what was built on them; and what cannot be read, as sentences.
    pub fn images(&self) -> Result<(Vec<Config>, Vec<String>)> {
        let (mut found, mut unreadable) = (BTreeMap::new(), Vec::new());
        for (n, graph) in self.graphs.iter().enumerate() {
            for name in names(&graph.dir.join("imagedb/content/sha256"))? {
                let Some(digest) = Digest::from_hex(&name) else { continue };
                match graph.config(n, ImageId(digest)) {
                    Ok(config) => drop(found.entry(config.id).or_insert(config)),
                    Err(error) => unreadable.push(format!("image {}: {}", digest.short(), error.one_line())),
                }
            }
        }
        let mut images = Vec::new();
        while !found.is_empty() {
            let ready = |config: &Config, found: &BTreeMap<ImageId, Config>| {
                config.parent.is_none_or(|parent| !found.contains_key(&parent))
            };
            let next: Vec<ImageId> =
                found.values().filter(|config| ready(config, &found)).map(|config| config.id).collect();
            if next.is_empty() {
                // Parents of each other: there is no such image.
                found.values_mut().for_each(|config| config.parent = None);
            }
            images.extend(next.iter().filter_map(|id| found.remove(id)));
        }
        Ok((images, unreadable))
    }

    /// Names with a tag or a digest, each with its image.
    pub fn references(&self) -> Result<Vec<(Reference, ImageId)>> {
        #[derive(Default, Deserialize)]
        struct Repositories {
            #[serde(rename = "Repositories", default)]
            repositories: BTreeMap<String, BTreeMap<String, String>>,
        }
        let mut all = Vec::new();
        for graph in &self.graphs {
            let path = graph.dir.join("repositories.json");
            let Some(raw) = read(&path)? else { continue };
            let reading = || format!("reading {}", path.display());
            let said: Repositories = serde_json::from_slice(&raw).context(reading)?;
            for (text, id) in said.repositories.values().flatten() {
                let name: Reference = text.parse::<Reference>().context(reading)?;
                all.push((name, ImageId(id.parse::<Digest>().context(reading)?)));
            }
        }
        Ok(all)
    }

    /// The layer that stands on top of this stack in the image.
    pub fn layer(&self, image: &Config, chain: &ChainId, diff_id: &DiffId) -> Result<Layer> {
        let graph = &self.graphs[image.graph];
        let dir = graph.dir.join("layerdb/sha256").join(chain.digest().hex());
        let text = |name: &str| -> Result<String> {
            let path = dir.join(name);
            let raw =
                read(&path)?.ok_or_else(|| Error::not_found(format!("there is no {}", path.display())))?;
            Ok(String::from_utf8_lossy(&raw).trim().to_owned())
        };
        let said = text("diff")?;
        if said != diff_id.digest().to_string() {
            return Err(Error::corrupt(format!("{} says {said}", dir.join("diff").display())));
        }
        let cache_id = text("cache-id")?;
        if cache_id.is_empty() || cache_id.contains(['/', '.']) {
            return Err(Error::corrupt(format!("{} is no name", dir.join("cache-id").display())));
        }
        let place = TREES.iter().find(|(driver, ..)| *driver == graph.driver);
        let Some((_, above, trees)) = place else {
            return Err(Error::unsupported(format!(
                "dockerd's storage driver `{}` keeps no plain directories",
                graph.driver
            ))
            .hint("start dockerd, and `outcrop copy docker-daemon:NAME NAME` brings images over"));
        };
        let own = self.dir.join(above).join(cache_id);
        let tree = trees.iter().map(|tree| own.join(tree)).find(|tree| tree.is_dir());
        Ok(Layer {
            size: text("size")?.parse().unwrap_or(0),
            skeleton: dir.join("tar-split.json.gz"),
            tree: tree.unwrap_or_else(|| own.join(trees[0])),
        })
    }

    /// Names of its containers.
    pub fn containers(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for id in names(&self.dir.join("containers"))? {
            let Some(raw) = read(&self.dir.join("containers").join(&id).join("config.v2.json"))? else {
                continue;
            };
            let said: Value = serde_json::from_slice(&raw).unwrap_or_default();
            let name = said["Name"].as_str().map(|name| name.trim_start_matches('/').to_owned());
            all.push(name.unwrap_or_else(|| id.chars().take(12).collect()));
        }
        Ok(all)
    }

    /// Of the driver `local`.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let mut all = Vec::new();
        for name in names(&self.dir.join("volumes"))? {
            let dir = self.dir.join("volumes").join(&name);
            let data = dir.join("_data");
            if data.is_dir() {
                let options: Option<Value> =
                    read(&dir.join("opts.json"))?.and_then(|raw| serde_json::from_slice(&raw).ok());
                let mounted = options.is_some_and(|options| {
                    ["MountType", "MountOpts", "MountDevice"]
                        .iter()
                        .any(|key| options[key].as_str().is_some_and(|text| !text.is_empty()))
                });
                all.push(Volume { name, data, mounted });
            }
        }
        Ok(all)
    }
}

impl Graph {
    fn config(&self, graph: usize, id: ImageId) -> Result<Config> {
        let path = self.dir.join("imagedb/content/sha256").join(id.hex());
        let reading = || format!("reading {}", path.display());
        if fs::metadata(&path).context(reading)?.len() > MAX_CONFIG {
            return Err(Error::invalid("its config is too large"));
        }
        let raw = fs::read(&path).context(reading)?;
        if Digest::of(&raw) != id.0 {
            return Err(Error::corrupt("its config is not what it was"));
        }
        let config = ImageConfig::parse(&raw)?;
        let parent = read(&self.dir.join("imagedb/metadata/sha256").join(id.hex()).join("parent"))?;
        let parent = parent.and_then(|raw| String::from_utf8_lossy(&raw).trim().parse().ok()).map(ImageId);
        Ok(Config { id, raw, config, parent, graph })
    }
}

impl Layer {
    /// The tree that has its files.
    pub fn tree(&self) -> Result<std::os::fd::OwnedFd> {
        dir::open_path(&self.tree).context(|| format!("opening {}", self.tree.display()))
    }

    /// Its archive, made again.
    pub fn archive(&self) -> Result<Replayed<'static>> {
        let skeleton =
            fs::File::open(&self.skeleton).context(|| format!("opening {}", self.skeleton.display()))?;
        Replayed::open(Box::new(skeleton), self.tree()?)
    }
}

/// In order; none where there is no such directory.
fn names(dir: &Path) -> Result<Vec<String>> {
    match dir::text_names(dir) {
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        names => names.context(|| format!("listing {}", dir.display())),
    }
}

/// `None` where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(raw) => Ok(Some(raw)),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(cause) => Err(cause).context(|| format!("reading {}", path.display())),
    }
}
