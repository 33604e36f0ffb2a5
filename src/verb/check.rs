//! `system check`: every byte and row of a store proved, and what is wrong named. Nothing is changed.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{check_leftovers, check_rows};
use crate::db::{BlobRow, CacheRecord, ChainRow, ContainerRow, ImageRow, LayerNumber, LayerRow};
use crate::db::{RepoDigest, SnapshotRow, SnapshotState, TagRow, VolumeRow};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{ChainId, DiffId, Digest, Hasher, ImageId, Reference};
use crate::job::{Event, Job};
use crate::layer::compress;
use crate::rootfs::{self, Holder};
use crate::snapshot::driver::Shape;

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Empty: nothing is wrong.
    pub findings: Vec<Finding>,
    /// What killed processes have left, as sentences. No damage.
    pub leftovers: Vec<String>,
    pub checked: Checked,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `layer 0123456789ab of debian:bookworm`
    pub object: String,
    /// Below the store's root.
    pub file: String,
    pub what: String,
    pub cure: Cure,
}

/// What a user can do about it. Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// Take what is damaged away and get it again.
    GetAgain,
    RebuildIndex,
    MoveTag,
    ForgetCache,
    RemoveContainer,
}

/// How much was looked at.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    pub images: usize,
    pub layers: usize,
    pub trees: usize,
    pub containers: usize,
    pub blobs: usize,
    /// Read and hashed.
    pub bytes: u64,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
    /// What can be done, each once.
    pub fn hints(&self) -> Vec<&'static str> {
        let cures: BTreeSet<Cure> = self.findings.iter().map(|finding| finding.cure).collect();
        cures.into_iter().map(Cure::text).collect()
    }
}

impl Cure {
    fn text(self) -> &'static str {
        match self {
            Cure::GetAgain => {
                "remove the images that have the damage (`outcrop rmi`, then `outcrop system prune`), and pull them \
                 again, or build them again with --no-cache"
            }
            Cure::RebuildIndex => "`outcrop system check --rebuild-index` makes the databases again",
            Cure::MoveTag => "`outcrop tag` points a name at an image again",
            Cure::ForgetCache => "build with --no-cache once",
            Cure::RemoveContainer => "remove the container (`outcrop rm`)",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.file, self.what)
    }
}

/// What the index says, read in one piece.
pub(super) struct Index {
    pub(super) images: Vec<ImageRow>,
    pub(super) layers: HashMap<LayerNumber, LayerRow>,
    pub(super) chains: HashMap<ChainId, ChainRow>,
    pub(super) snapshots: Vec<SnapshotRow>,
    pub(super) blobs: HashMap<Digest, BlobRow>,
    pub(super) tags: Vec<TagRow>,
    pub(super) repo_digests: Vec<RepoDigest>,
    pub(super) containers: Vec<ContainerRow>,
    pub(super) volumes: Vec<VolumeRow>,
    pub(super) cache: Vec<CacheRecord>,
}

impl Index {
    fn read(engine: &Engine) -> Result<Index> {
        engine.db.read(|index| {
            // Those that are condemned may go while we look; layers that the cache keeps stay.
            let mut chains = HashMap::new();
            for chain in index.chains()? {
                if index.find_chain(&chain.id)?.is_some() {
                    chains.insert(chain.id, chain);
                }
            }
            Ok(Index {
                images: index.images()?,
                layers: index.layers()?.into_iter().map(|layer| (layer.number, layer)).collect(),
                chains,
                snapshots: index.snapshots()?,
                blobs: index.blobs()?.into_iter().map(|blob| (blob.digest, blob)).collect(),
                tags: index.tags()?,
                repo_digests: index.repo_digests()?,
                containers: index.containers()?,
                volumes: index.volumes()?,
                cache: index.cache_records()?,
            })
        })
    }

    /// The layers of a stack, bottom first; `None` where one of them is gone or going.
    pub(super) fn stack(&self, top: &ChainId) -> Option<Vec<LayerRow>> {
        let mut stack = Vec::new();
        let mut next = Some(*top);
        while let Some(chain) = next {
            let row = self.chains.get(&chain)?;
            stack.push(self.layers.get(&row.layer)?.clone());
            next = row.parent;
        }
        stack.reverse();
        Some(stack)
    }

    /// `image 0123456789ab (debian:bookworm)`
    pub(super) fn image_name(&self, id: &ImageId) -> String {
        let tags = self.tags.iter().filter(|tag| tag.image == *id).map(|tag| familiar(&tag.name));
        let tags: Vec<String> = tags.collect();
        match tags.is_empty() {
            true => format!("image {}", id.short()),
            false => format!("image {} ({})", id.short(), tags.join(", ")),
        }
    }

    /// `layer 0123456789ab (of debian:bookworm)`
    fn layer_name(&self, layer: &LayerRow) -> String {
        let has = |image: &ImageId| {
            let row = self.images.iter().find(|row| row.id == *image);
            let stack = row.and_then(|row| row.chain).and_then(|chain| self.stack(&chain));
            stack.is_some_and(|stack| stack.iter().any(|one| one.number == layer.number))
        };
        let of: Vec<String> =
            self.tags.iter().filter(|tag| has(&tag.image)).map(|tag| familiar(&tag.name)).collect();
        match of.is_empty() {
            true => format!("layer {}", layer.diff_id.short()),
            false => format!("layer {} (of {})", layer.diff_id.short(), of.join(", ")),
        }
    }

    /// `blob sha256:... (config of ...)`
    fn blob_name(&self, digest: &Digest) -> String {
        let config = self.images.iter().find(|image| image.id.digest() == digest);
        match config {
            Some(image) => format!("config of {}", self.image_name(&image.id)),
            None => format!("blob {}", digest.short()),
        }
    }
}

pub(super) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_unparsed| name.to_owned(), |name| name.familiar())
}

/// Reads everything, by as many threads as the job may use. An error is what stopped us, never what is wrong with the
/// store.
pub fn check(engine: &Engine, job: &Job) -> Result<Report> {
    // The trees first: a row stands before its tree.
    let trees = engine.snapshots.driver().list()?;
    let mut report = Report::default();
    check_rows::databases(engine, &mut report.findings)?;
    let index = match Index::read(engine) {
        Ok(index) => index,
        Err(error) if error.kind() != Kind::Cancelled => {
            report.findings.push(database("outcrop.db", error.one_line()));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    check_rows::check(engine, &index, &mut report.findings, job)?;
    check_leftovers::find(engine, &index, &trees, &mut report.leftovers)?;
    let tasks = tasks(engine, &index, &mut report)?;
    bytes(engine, &index, tasks, &mut report, job)?;
    report.checked.images = index.images.len();
    report.checked.layers = index.layers.len();
    report.checked.blobs = index.blobs.len();
    report.checked.containers = index.containers.len();
    report.findings.sort();
    report.findings.dedup();
    Ok(report)
}

pub(super) fn database(file: &str, what: String) -> Finding {
    Finding { object: "index".into(), file: file.into(), what, cure: Cure::RebuildIndex }
}

/// What is read by one thread.
enum Task<'i> {
    Blob(&'i BlobRow),
    Layer(&'i LayerRow, Vec<Holder>),
}

impl Task<'_> {
    /// Bytes to be read, about.
    fn size(&self) -> u64 {
        match self {
            Task::Blob(blob) => blob.size,
            Task::Layer(layer, holders) => {
                let trees = holders.iter().flat_map(|holder| &holder.stack).map(|layer| layer.size);
                layer.tar_size + trees.sum::<u64>()
            }
        }
    }
}

/// The largest first. Layers and images without a tree are found on the way.
fn tasks<'i>(engine: &Engine, index: &'i Index, report: &mut Report) -> Result<Vec<Task<'i>>> {
    let driver = engine.snapshots.driver();
    let mut holders: HashMap<LayerNumber, Vec<Holder>> = HashMap::new();
    let mut standing = BTreeSet::new();
    for row in &index.snapshots {
        if row.state != SnapshotState::Sealed || row.driver != driver.name() {
            continue;
        }
        let stack = match (row.layer, row.chain) {
            (Some(layer), _) => index.layers.get(&layer).map(|layer| vec![layer.clone()]),
            (None, Some(chain)) => {
                standing.insert(chain);
                index.stack(&chain)
            }
            (None, None) => None,
        };
        // Without: its layers are condemned, and it will go with them.
        let Some(stack) = stack else { continue };
        let top = stack.last().expect("a stack has a layer").number;
        report.checked.trees += 1;
        holders.entry(top).or_default().push(Holder { snapshot: row.id, stack });
    }
    let mut tasks: Vec<Task<'_>> = index.blobs.values().map(Task::Blob).collect();
    for layer in index.layers.values() {
        let holders = holders.remove(&layer.number).unwrap_or_default();
        if holders.is_empty() && driver.shape() == Shape::Layered {
            report.findings.push(Finding {
                object: index.layer_name(layer),
                file: driver.name().into(),
                what: "the layer has no tree".into(),
                cure: Cure::GetAgain,
            });
        }
        tasks.push(Task::Layer(layer, holders));
    }
    if driver.shape() == Shape::Stacked {
        for image in &index.images {
            if image.chain.is_some_and(|chain| !standing.contains(&chain)) {
                report.findings.push(Finding {
                    object: index.image_name(&image.id),
                    file: driver.name().into(),
                    what: "the image has no tree".into(),
                    cure: Cure::GetAgain,
                });
            }
        }
    }
    tasks.sort_by_key(|task| std::cmp::Reverse(task.size()));
    Ok(tasks)
}

/// Everything that has a digest is read.
fn bytes(engine: &Engine, index: &Index, tasks: Vec<Task<'_>>, report: &mut Report, job: &Job) -> Result<()> {
    let meter = Meter::start(job, tasks.iter().map(Task::size).sum());
    let threads = job.budget.threads.clamp(1, tasks.len().max(1));
    let mut inner = job.child();
    inner.budget.threads = (job.budget.threads / threads).max(1);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            inner.check()?;
            let flaws = match task {
                Task::Blob(row) => blob(engine, index, row, &meter, &inner)?,
                Task::Layer(row, holders) => layer(engine, index, row, holders, &meter, &inner)?,
            };
            found.lock().expect("no holder panics").extend(flaws);
        }
        Ok(())
    };
    let outcome = std::thread::scope(|scope| {
        let run = || work().inspect_err(|_| inner.cancel().set());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the check panicked")))
        });
        // The error that stopped the others, and not that they were stopped.
        let errors: Vec<Error> = ended.filter_map(Result::err).collect();
        let first = errors.into_iter().min_by_key(|error| error.kind() == Kind::Cancelled);
        first.map_or(Ok(()), Err)
    });
    report.checked.bytes = meter.done.load(Ordering::Relaxed);
    drop(meter);
    outcome?;
    report.findings.extend(found.into_inner().expect("no holder panics"));
    Ok(())
}

fn layer(
    engine: &Engine,
    index: &Index,
    row: &LayerRow,
    holders: &[Holder],
    meter: &Meter<'_>,
    job: &Job,
) -> Result<Vec<Finding>> {
    let flaws = rootfs::verify(engine, row, holders, &|bytes| meter.passed(bytes), job)
        .context(|| format!("checking layer {}", row.diff_id.short()))?;
    let finding = |flaw: rootfs::Flaw| Finding {
        object: index.layer_name(row),
        cure: if flaw.file == "files.db" { Cure::RebuildIndex } else { Cure::GetAgain },
        file: flaw.file,
        what: flaw.what,
    };
    Ok(flaws.into_iter().map(finding).collect())
}

/// Its bytes; and of a compressed layer, that it is the layer the index says.
fn blob(engine: &Engine, index: &Index, row: &BlobRow, meter: &Meter<'_>, job: &Job) -> Result<Vec<Finding>> {
    let finding = |what: String, cure| Finding {
        object: index.blob_name(&row.digest),
        file: format!("blobs/sha256/{}", row.digest.hex()),
        what,
        cure,
    };
    // It may have been condemned before we came, and be going.
    let still_there = || Ok::<_, Error>(engine.db.read(|index| index.find_blob(&row.digest))?.is_some());
    match read(engine, row, meter, job) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        Err(_) if !still_there()? => return Ok(Vec::new()),
        Err(error) => return Ok(vec![finding(error.one_line(), Cure::GetAgain)]),
    }
    let Some(known) = engine.db.read(|index| index.layer_of_blob(&row.digest))? else {
        return Ok(Vec::new());
    };
    let unpacked = || -> Result<DiffId> {
        let (_, mut tar) = compress::decoder(Box::new(engine.blobs.read(&row.digest)?))?;
        let mut hasher = Hasher::new();
        pour(&mut tar, &mut hasher, |_| (), job)?;
        Ok(DiffId(hasher.finish()))
    };
    match unpacked() {
        Ok(diff_id) if diff_id == known.diff_id => Ok(Vec::new()),
        Ok(diff_id) => Ok(vec![Finding {
            file: "outcrop.db".into(),
            ..finding(
                format!("it unpacks to {diff_id}, and the index says {}", known.diff_id),
                Cure::RebuildIndex,
            )
        }]),
        Err(error) if error.kind() == Kind::Cancelled => Err(error),
        Err(error) => Ok(vec![finding(error.one_line(), Cure::GetAgain)]),
    }
}

fn read(engine: &Engine, row: &BlobRow, meter: &Meter<'_>, job: &Job) -> Result<()> {
    let mut reader = engine.blobs.read(&row.digest)?;
    pour(&mut reader, &mut std::io::sink(), |bytes| meter.passed(bytes), job)
}

fn pour(
    from: &mut dyn std::io::Read,
    to: &mut dyn std::io::Write,
    passed: impl Fn(u64),
    job: &Job,
) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        job.check()?;
        let count = from.read(&mut buffer).context(|| "reading it")?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).context(|| "hashing it")?;
        passed(count as u64);
    }
}

/// Bytes that have passed, said now and then.
struct Meter<'j> {
    job: &'j Job,
    done: AtomicU64,
}

impl<'j> Meter<'j> {
    const ID: u64 = 0;
    const STEP: u64 = 4 << 20;

    fn start(job: &'j Job, total: u64) -> Self {
        job.report(Event::WorkStarted {
            id: Self::ID,
            what: "checking the store".into(),
            total: Some(total),
        });
        Meter { job, done: AtomicU64::new(0) }
    }

    fn passed(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        if before / Self::STEP != (before + bytes) / Self::STEP {
            self.job.report(Event::WorkProgress { id: Self::ID, done: before + bytes });
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.job.report(Event::WorkDone { id: Self::ID });
    }
}
