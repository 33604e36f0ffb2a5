//! `system check --rebuild-index`: the databases made again from what lies beside them: recipes and trees, blobs, tags.log, the
//! directories of containers and volumes. The old ones are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::container::Record;
use crate::db::{
    ContainerId, Db, Keyed, LayerNumber, Lease, NewContainer, NewImage, NewLayer, Origin, Rebuild,
    SnapshotId, TagMove,
};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{ChainId, DiffId, Digest, Document, Hasher, ImageConfig, ImageId, MAX_CONFIG};
use crate::job::{Event, Job};
use crate::rootfs::{self, Reread};
use crate::snapshot::Snapshots;
use crate::snapshot::driver::{self, Shape};
use crate::store::Blobs;
use crate::sys;
use crate::verb::rebuild_links;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    pub images: usize,
    pub layers: usize,
    pub blobs: usize,
    pub containers: usize,
    pub volumes: usize,
    pub tags: usize,
    /// What did not, as sentences; cache records and the history of builds never do.
    pub lost: Vec<String>,
}

/// `Conflict` where others use the store. Stopped, it has changed nothing.
pub fn rebuild(root: &Path, options: &driver::Options, job: &Job) -> Result<Rebuilt> {
    if !root.join("blobs").is_dir() {
        return Err(Error::not_found(format!("there is no store in {}", root.display())));
    }
    let rebuild = Rebuild::start(root).context(|| format!("making the index of {} again", root.display()))?;
    believe_the_disk(root).context(|| format!("reading {} anew", root.display()))?;
    let rebuilt = fill(rebuild.db(), rebuild.old_driver().as_deref(), options, job)?;
    rebuild.finish()?;
    Ok(rebuilt)
}

/// What it refused to keep is no part of the store. Databases are left alone: to close a file is to drop SQLite's locks on it.
fn believe_the_disk(root: &Path) -> io::Result<()> {
    // Memory forgets what has been written out, and what could not be.
    if let Err(refused) = rustix::fs::syncfs(fs::File::open(root)?) {
        tracing::warn!("the disk did not keep all that was written: {refused}");
    }
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sys::durable::forget(&entry.path())?;
        }
    }
    Ok(())
}

fn fill(db: &Db, named: Option<&str>, options: &driver::Options, job: &Job) -> Result<Rebuilt> {
    let mut rebuilt = Rebuilt::default();
    let lease = db.lease()?;
    let blobs = Blobs::open(db);
    let found = read_blobs(db, &blobs, &mut rebuilt, job)?;
    let snapshots = match driver_of(db.root(), named, options)? {
        Some(name) => {
            db.write(|writer| writer.set_driver(name, &options.pairs()))?;
            Some(Snapshots::open(db, None, options)?)
        }
        None => None,
    };
    let mut stacks = match &snapshots {
        Some(snapshots) => Some(Stacks::new(db, snapshots, &lease, job)?),
        None => None,
    };
    let moves = moves(db.root())?;
    let images = add_images(db, &found, &moves, stacks.as_mut(), &mut rebuilt, job)?;
    rebuild_links::manifests(db, &found, &moves, &images)?;
    rebuild_links::origins(db)?;
    add_volumes(db, &mut rebuilt)?;
    if let (Some(snapshots), Some(stacks)) = (&snapshots, &mut stacks) {
        add_containers(db, snapshots, stacks, &images, &mut rebuilt)?;
        stacks.finish(&mut rebuilt)?;
    }
    db.barrier(
        |pending| match &snapshots {
            Some(snapshots) => snapshots.sync(pending),
            None => Ok(()),
        },
        |durable| {
            for name in durable.adopt_tags()? {
                rebuilt
                    .lost
                    .push(format!("the tag {}: its image is not there", super::check::familiar(&name)));
            }
            rebuilt.tags = durable.tags()?.len();
            Ok(())
        },
    )?;
    Ok(rebuilt)
}

/// What the blobs are, as far as they are whole.
#[derive(Default)]
pub(super) struct Found {
    pub(super) digests: HashSet<Digest>,
    pub(super) configs: BTreeMap<ImageId, ImageConfig>,
    pub(super) documents: Vec<(Digest, Document)>,
}

/// Every blob whose bytes have the digest that it is called by becomes a row.
fn read_blobs(db: &Db, blobs: &Blobs, rebuilt: &mut Rebuilt, job: &Job) -> Result<Found> {
    let listing = || "listing the blobs";
    let mut names = Vec::new();
    for entry in fs::read_dir(db.root().join("blobs/sha256")).context(listing)? {
        names.extend(entry.context(listing)?.file_name().to_str().and_then(Digest::from_hex));
    }
    names.sort();
    let work = Work::start(job, "reading the blobs", names.len());
    let found = Mutex::new((Found::default(), Vec::new()));
    let next = AtomicUsize::new(0);
    let read = || -> Result<()> {
        while let Some(digest) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let blob = read_blob(&blobs.path(digest), digest, job)?;
            work.step();
            let (found, damaged) = &mut *found.lock().expect("no holder panics");
            match blob {
                None => damaged.push(*digest),
                Some(content) => {
                    found.digests.insert(*digest);
                    match content {
                        Content::Config(config) => drop(found.configs.insert(ImageId(*digest), *config)),
                        Content::Document(document) => found.documents.push((*digest, document)),
                        Content::Other => {}
                    }
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.budget.threads.max(1)).map(|_| scope.spawn(read)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::internal("a thread that reads blobs panicked")))
        })
    })?;
    let (found, mut damaged) = found.into_inner().expect("no holder panics");
    damaged.sort();
    rebuilt
        .lost
        .extend(damaged.iter().map(|digest| format!("blob {digest}: its bytes are not what they were")));
    rebuilt.blobs = found.digests.len();
    let types: HashMap<Digest, String> = found
        .documents
        .iter()
        .map(|(digest, document)| (*digest, document.media_type().to_string()))
        .collect();
    db.write(|writer| {
        found
            .digests
            .iter()
            .try_for_each(|digest| blobs.adopt(writer, digest, types.get(digest).map(String::as_str)))
    })?;
    Ok(found)
}

enum Content {
    Config(Box<ImageConfig>),
    Document(Document),
    Other,
}

/// `None`: it is damaged.
fn read_blob(path: &Path, digest: &Digest, job: &Job) -> Result<Option<Content>> {
    let reading = || format!("reading {}", path.display());
    let mut file = fs::File::open(path).context(reading)?;
    let small = file.metadata().context(reading)?.len() <= MAX_CONFIG;
    let (mut hasher, mut text, mut buffer) = (Hasher::new(), Vec::new(), vec![0; 256 << 10]);
    loop {
        job.check()?;
        let count = std::io::Read::read(&mut file, &mut buffer).context(reading)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        if small {
            text.extend_from_slice(&buffer[..count]);
        }
    }
    if hasher.finish() != *digest {
        return Ok(None);
    }
    if text.first() != Some(&b'{') {
        return Ok(Some(Content::Other));
    }
    if let Ok(config) = ImageConfig::parse(&text) {
        return Ok(Some(Content::Config(Box::new(config))));
    }
    Ok(Some(Document::parse(&text, None).map_or(Content::Other, Content::Document)))
}

/// The driver that the old index named, if it has trees here; else the one that has most.
fn driver_of(root: &Path, named: Option<&str>, options: &driver::Options) -> Result<Option<&'static str>> {
    let mut best: Option<((bool, usize), &'static str)> = None;
    for entry in driver::TABLE.iter().filter(|entry| root.join(entry.name).is_dir()) {
        let trees = driver::open(&driver::Setting { root, options }, entry.name)?.list()?.len();
        let rank = (trees > 0 && named == Some(entry.name), trees);
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, entry.name));
        }
    }
    Ok(best.map(|(_, name)| name))
}

/// Layers and the stacks they stand in, found again one after the other, the lowest first.
struct Stacks<'r> {
    db: &'r Db,
    snapshots: &'r Snapshots,
    lease: &'r Lease,
    job: &'r Job,
    /// On disk, and nobody's yet.
    trees: BTreeSet<SnapshotId>,
    /// Those that may stand on anything, of a Layered driver.
    free: HashMap<DiffId, LayerNumber>,
    known: HashMap<ChainId, bool>,
    layers: HashSet<LayerNumber>,
    highest: u64,
}

impl<'r> Stacks<'r> {
    fn new(db: &'r Db, snapshots: &'r Snapshots, lease: &'r Lease, job: &'r Job) -> Result<Self> {
        let trees: BTreeSet<SnapshotId> = snapshots.driver().list()?.into_iter().collect();
        let highest = trees.last().map_or(0, |last| last.0);
        Ok(Stacks {
            db,
            snapshots,
            lease,
            job,
            trees,
            free: HashMap::new(),
            known: HashMap::new(),
            layers: HashSet::new(),
            highest,
        })
    }

    /// All of an image's layers; false where one is lost.
    fn stand(&mut self, config: &ImageConfig) -> Result<bool> {
        let mut instructions = config.history.iter().filter(|entry| !entry.empty_layer);
        let mut below = None;
        for diff_id in &config.rootfs.diff_ids {
            let made_by = instructions.next().and_then(|entry| entry.created_by.clone());
            let chain = ChainId::on(below.as_ref(), diff_id);
            let stands = match self.known.get(&chain) {
                Some(stands) => *stands,
                None => self.find(below.as_ref(), diff_id, made_by)?,
            };
            self.known.insert(chain, stands);
            if !stands {
                return Ok(false);
            }
            below = Some(chain);
        }
        Ok(true)
    }

    fn find(&mut self, below: Option<&ChainId>, diff_id: &DiffId, made_by: Option<String>) -> Result<bool> {
        let shape = self.snapshots.driver().shape();
        if let Some(number) = self.free.get(diff_id) {
            self.db.write(|writer| writer.add_chain(below, *number))?;
            return Ok(true);
        }
        let chain = ChainId::on(below, diff_id);
        let mut said: Vec<(SnapshotId, bool)> = Vec::new();
        for at in rootfs::located(self.db.root(), diff_id)? {
            // For another stack it will do where one tree serves all of them.
            let same = at.chain == chain;
            if at.driver == self.snapshots.driver().name() && (same || shape == Shape::Layered) {
                said.push((at.snapshot, same));
            }
        }
        said.sort_by_key(|(_, same)| !same);
        for (tree, same) in said {
            if self.trees.contains(&tree) && self.take(tree, below, diff_id, &made_by, same)? {
                return Ok(true);
            }
        }
        // Nobody has written down where it is: each tree that is left is looked at.
        for tree in self.trees.clone() {
            if self.take(tree, below, diff_id, &made_by, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this tree holds the layer; it does then. `said`: it was written down that it does, on this stack.
    fn take(
        &mut self,
        tree: SnapshotId,
        below: Option<&ChainId>,
        diff_id: &DiffId,
        made_by: &Option<String>,
        said: bool,
    ) -> Result<bool> {
        let driver = self.snapshots.driver();
        let read = |view| rootfs::reread(self.db, diff_id, driver, tree, view, self.lease, self.job);
        let Some(mut found) = read(None)? else { return Ok(false) };
        let leans = found.scanned.leans;
        if leans && below.is_some() {
            drop(found);
            let view = self.snapshots.open_view(below)?;
            match read(Some(std::os::fd::AsFd::as_fd(&view)))? {
                Some(again) => found = again,
                None => return Ok(false),
            }
        }
        let Reread { slot, scanned, content_id, row_count } = found;
        if !said {
            let mut stack = match driver.shape() {
                Shape::Layered => Vec::new(),
                Shape::Stacked => {
                    self.db.read(|reader| reader.stack(below))?.iter().map(|row| row.number).collect()
                }
            };
            stack.push(slot.number());
            if !rootfs::shows(self.db, driver, tree, &stack, self.job)? {
                return Ok(false);
            }
        }
        let new = NewLayer {
            number: slot.number(),
            diff_id: *diff_id,
            base: below.copied().filter(|_| leans),
            leans,
            content_id,
            size: scanned.bytes,
            tar_size: scanned.size,
            row_count,
            made_by: made_by.clone(),
            build: None,
        };
        let number = self.db.write(|writer| {
            let published = writer.publish_layer(&new)?;
            let chain = writer.add_chain(below, published.number)?;
            let keyed = match driver.shape() {
                Shape::Layered => Keyed::Layer(published.number),
                Shape::Stacked => Keyed::Chain(chain),
            };
            writer.adopt_snapshot(tree, driver.name(), Some(keyed), &[])?;
            Ok(published.number)
        })?;
        drop(slot);
        self.trees.remove(&tree);
        self.layers.insert(number);
        if driver.shape() == Shape::Layered && !leans {
            self.free.insert(*diff_id, number);
        }
        Ok(true)
    }

    /// Numbers go on beyond all that are in use; trees that nobody claimed are named.
    fn finish(&self, rebuilt: &mut Rebuilt) -> Result<()> {
        rebuilt.layers = self.layers.len();
        let next = SnapshotId(self.highest + 1);
        self.db.write(|writer| writer.number_from(LayerNumber(1), next))?;
        let name = self.snapshots.driver().name();
        for tree in &self.trees {
            let what =
                format!("{name}/{tree}: no image and no container has this tree; it stays where it is");
            rebuilt.lost.push(what);
        }
        Ok(())
    }
}

/// Every config is an image. Its parent is the one that its last instruction was added to.
fn add_images(
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

/// The lines of tags.log that can be read, those that were taken back later too.
fn moves(root: &Path) -> Result<Vec<TagMove>> {
    let text = match fs::read(root.join("tags.log")) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.context(|| "reading tags.log")?,
    };
    Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn add_volumes(db: &Db, rebuilt: &mut Rebuilt) -> Result<()> {
    for name in names(db.root(), "volumes")? {
        if db.root().join("volumes").join(&name).join("_data").is_dir() {
            let anonymous = Digest::from_hex(&name).is_some();
            db.write(|writer| writer.insert_volume(&name, &BTreeMap::new(), anonymous))?;
            rebuilt.volumes += 1;
        }
    }
    Ok(())
}

/// Containers whose image and writable layer are there. None of them runs: the store is ours alone.
fn add_containers(
    db: &Db,
    snapshots: &Snapshots,
    stacks: &mut Stacks<'_>,
    images: &HashSet<ImageId>,
    rebuilt: &mut Rebuilt,
) -> Result<()> {
    for name in names(db.root(), "containers")? {
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

fn names(root: &Path, dir: &str) -> Result<Vec<String>> {
    let listing = || format!("listing {}", root.join(dir).display());
    let entries = match fs::read_dir(root.join(dir)) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(listing)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.context(listing)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Long work, counted.
struct Work<'j> {
    job: &'j Job,
    done: AtomicUsize,
}

impl<'j> Work<'j> {
    const ID: u64 = 0;

    fn start(job: &'j Job, what: &str, total: usize) -> Self {
        job.report(Event::WorkStarted { id: Self::ID, what: what.into(), total: Some(total as u64) });
        Work { job, done: AtomicUsize::new(0) }
    }
    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        self.job.report(Event::WorkProgress { id: Self::ID, done });
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.job.report(Event::WorkDone { id: Self::ID });
    }
}
