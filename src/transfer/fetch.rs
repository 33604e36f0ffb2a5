//! One image from a source: its manifests and config first, then its layers, several at once.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::pieces::{self, Slots};
use super::turns::in_turns;
use super::{Source, Stream};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{
    Descriptor, DiffId, Digest, Document, ImageConfig, ImageId, LayerId, MAX_CONFIG, MAX_MANIFEST, Manifest,
    Platform, Reference,
};
use crate::job::{Event, Job, LayerOutcome};

/// Indexes may hold indexes; nobody nests deeper.
const MAX_DEPTH: usize = 4;

/// An image at a source, all but its layers; everything verified against its digest.
#[derive(Clone, Debug)]
pub struct Found {
    pub name: Reference,
    /// What the name points at: the outermost index, else the manifest. Docker shows it as `Digest:`.
    pub digest: Digest,
    /// The index and its bytes, outermost, where the name points at one.
    pub index: Option<(Descriptor, Vec<u8>)>,
    pub manifest: Manifest,
    pub manifest_descriptor: Descriptor,
    pub manifest_raw: Vec<u8>,
    pub config: ImageConfig,
    pub config_raw: Vec<u8>,
    pub image: ImageId,
}

/// One layer of an image that was found.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// From 0, the bottom.
    pub position: usize,
    /// Of the bytes as the source has them.
    pub descriptor: &'a Descriptor,
    /// What the config promises of the tar within; the caller that unpacks compares.
    pub diff_id: DiffId,
}

impl Layer<'_> {
    /// As events name it, and as Docker shows it.
    pub fn id(&self) -> LayerId {
        self.descriptor.digest.short()
    }
}

/// Looks a name up, follows indexes to the image for `platform`, and reads its config.
pub fn find(job: &Job, source: &dyn Source, name: &Reference, platform: &Platform) -> Result<Found> {
    guarded(job, source, || {
        locate(job, source, name, platform)
            .context(|| format!("looking for `{}` at {}", name.familiar(), source.place()))
    })
}

fn locate(job: &Job, source: &dyn Source, name: &Reference, platform: &Platform) -> Result<Found> {
    let (top, top_raw) = source.resolve(job, name)?;
    let digest = top.digest;
    let (mut index, mut depth) = (None, 0);
    let (mut at, mut raw) = (top, top_raw);
    let manifest = loop {
        job.check()?;
        let list = match Document::parse(&raw, Some(&at.media_type))? {
            Document::Image(manifest) => break *manifest,
            Document::Index(list) => list,
        };
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("indexes nested more than {MAX_DEPTH} deep")));
        }
        let next = list.select(platform)?.clone();
        if next.size > MAX_MANIFEST {
            return Err(Error::invalid(format!("an index lists a manifest of {} bytes", next.size)));
        }
        let next_raw = source.manifest(job, name, &next)?;
        next.verify(&next_raw)?;
        index.get_or_insert((at, raw));
        (at, raw) = (next, next_raw);
    };
    manifest.check_runnable()?;
    let config_raw = read_config(job, source, name, &manifest.config)?;
    let config = ImageConfig::parse(&config_raw)?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid(format!(
            "the manifest has {} layers, its config {}",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    if index.is_none() {
        warn_of_platform(job, name, platform, &config.platform());
    }
    let manifest_descriptor = Descriptor::new(manifest.media_type(), at.digest, at.size);
    Ok(Found {
        name: name.clone(),
        digest,
        index,
        image: ImageId(manifest.config.digest),
        manifest,
        manifest_descriptor,
        manifest_raw: raw,
        config,
        config_raw,
    })
}

/// Verified, and no larger than a config may be.
pub(crate) fn read_config(
    job: &Job,
    source: &dyn Source,
    name: &Reference,
    wanted: &Descriptor,
) -> Result<Vec<u8>> {
    if wanted.size > MAX_CONFIG {
        return Err(Error::invalid(format!("an image config of {} bytes", wanted.size)));
    }
    let mut raw = Vec::new();
    source
        .blob(job, name, wanted, 0)?
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut raw)
        .context(|| format!("reading the config {}", wanted.digest.short()))?;
    wanted.verify(&raw)?;
    Ok(raw)
}

/// A single image has no index to choose from: it is taken, and a mismatch said.
fn warn_of_platform(job: &Job, name: &Reference, wanted: &Platform, offered: &Platform) {
    let (wanted, offered) = (wanted.normal(), offered.normal());
    if !offered.architecture.is_empty()
        && (wanted.os != offered.os || wanted.architecture != offered.architecture)
    {
        job.warn(format!("`{}` is an image for {offered}, not for {wanted}", name.familiar()));
    }
}

impl Found {
    /// Bottom first, one for each diff id.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        self.manifest
            .layers
            .iter()
            .zip(&self.config.rootfs.diff_ids)
            .enumerate()
            .map(|(position, (descriptor, diff_id))| Layer { position, descriptor, diff_id: *diff_id })
    }

    /// Brings the layers that `want` asks for, `job.budget.transfers` at once, started bottom first. A blob that stands
    /// twice in the image is brought once, for its lower place.
    ///
    /// `deliver` takes each layer in a thread of its own, and says from where on it is needed ([`Stream::start`]). Large
    /// ones come in parts over several connections, as far as the budget allows. After it returns, a stream that was begun is read to its end and proved;
    /// a `deliver` that makes a layer visible calls [`Stream::finish`] itself before. One that finds somebody else at it says
    /// so ([`Stream::comes_by_another`]), holds nothing, and is called again later. The first failure stops the others and is returned.
    pub fn fetch(
        &self,
        job: &Job,
        source: &dyn Source,
        want: impl Fn(&Layer<'_>) -> Result<bool>,
        deliver: impl Fn(&Layer<'_>, &mut Stream<'_>) -> Result<()> + Sync,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut wanted = Vec::new();
        for layer in self.layers().filter(|layer| seen.insert(layer.descriptor.digest)) {
            if want(&layer)? {
                job.report(Event::LayerStarted { layer: layer.id(), total: Some(layer.descriptor.size) });
                wanted.push(layer);
            } else {
                job.report(Event::LayerDone { layer: layer.id(), how: LayerOutcome::AlreadyExists });
            }
        }
        let stop = AtomicBool::new(false);
        let slots = Slots::new(job.budget.transfers);
        let bring = |layer: &Layer<'_>| {
            let from = From { job, source, name: &self.name, slots: &slots, stop: &stop };
            let brought = from.one(layer.descriptor, &layer.id(), |stream| deliver(layer, stream));
            brought.context(|| format!("pulling layer {} from {}", layer.id(), source.place()))
        };
        guarded(job, source, || in_turns(job, &wanted, &stop, bring))
    }
}

/// Brings blobs that no manifest at hand lists as layers, as [`Found::fetch`] does layers.
pub fn bring(
    job: &Job,
    source: &dyn Source,
    name: &Reference,
    wanted: &[Descriptor],
    deliver: impl Fn(&Descriptor, &mut Stream<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let slots = Slots::new(job.budget.transfers);
    for blob in wanted {
        job.report(Event::LayerStarted { layer: blob.digest.short(), total: Some(blob.size) });
    }
    let bring = |blob: &Descriptor| {
        let id = blob.digest.short();
        let from = From { job, source, name, slots: &slots, stop: &stop };
        let brought = from.one(blob, &id, |stream| deliver(blob, stream));
        brought.context(|| format!("fetching {id} from {}", source.place()))
    };
    guarded(job, source, || in_turns(job, wanted, &stop, bring))
}

/// Where blobs come from, and what they share.
struct From<'f> {
    job: &'f Job,
    source: &'f dyn Source,
    name: &'f Reference,
    slots: &'f Slots,
    /// Set when one of them failed.
    stop: &'f AtomicBool,
}

impl From<'_> {
    /// One blob, delivered, read to its end and proved; and how it ended told. False: somebody else is at it.
    fn one(
        &self,
        blob: &Descriptor,
        id: &LayerId,
        deliver: impl FnOnce(&mut Stream<'_>) -> Result<()>,
    ) -> Result<bool> {
        let From { job, source, name, slots, stop } = *self;
        let brought = std::thread::scope(|scope| {
            let open = move |offset| pieces::open(scope, job, source, name, blob, offset, slots);
            let mut stream = Stream::new(job, stop, slots, blob, id.clone(), Box::new(open));
            deliver(&mut stream)?;
            if stream.is_begun() {
                stream.finish()?;
            }
            Ok(stream.outcome())
        });
        let how = match &brought {
            Ok(None) => return Ok(false),
            Ok(Some(how)) => how.clone(),
            Err(_) => LayerOutcome::Failed,
        };
        job.report(Event::LayerDone { layer: id.clone(), how });
        brought.map(|_| true)
    }
}

/// Runs `work`; a job cancelled meanwhile interrupts the source, which may be waiting for a silent peer.
pub(crate) fn guarded<T>(job: &Job, source: &dyn Source, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if job.cancel().is_set() {
                    source.interrupt();
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        /// Also when `work` panics: else the scope would wait for ever.
        struct Over<'a>(&'a AtomicBool, std::thread::Thread);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
                self.1.unpark();
            }
        }
        let _over = Over(&over, watch.thread().clone());
        work()
    });
    match result {
        Err(error) if error.kind() != Kind::Cancelled && job.cancel().is_set() => Err(Error::cancelled()),
        result => result,
    }
}
