//! Layers arrive: each blob is unpacked while it comes.
//!
//! Of several processes that want a layer one brings and unpacks it, and the others wait for it, and take it; if that one
//! dies, another one goes on (`rootfs::turn`).

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::db::{BlobLayer, EpochGuard, Lease, Origin, Reader};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, DiffId, Digest, Hasher};
use crate::job::Job;
use crate::layer::compress;
use crate::rootfs::{self, Archive, Layer, Made, Prepared, Stack};
use crate::snapshot::driver::Shape;
use crate::store::{Coming, Growing, Incoming};
use crate::transfer::{self, Stream};

/// The layers of one image on their way.
pub(super) struct Arrivals<'e> {
    engine: &'e Engine,
    origin: Origin,
    job: &'e Job,
    lease: Lease,
    came: Mutex<Came<'e>>,
    /// What came stays, though nothing refers to it yet and others remove things.
    _epoch: EpochGuard,
}

#[derive(Default)]
struct Came<'e> {
    /// Here, to stand wherever they are wanted.
    layers: HashMap<DiffId, Layer>,
    /// Unpacked, to wait for their turn.
    prepared: HashMap<Digest, Prepared<'e>>,
    /// Blobs that unpack to these layers.
    proved: HashSet<(Digest, DiffId)>,
    /// Blobs that nothing refers to yet.
    held: Vec<Lease>,
}

/// What is not here.
enum Lack {
    Nothing,
    Blob,
    Layer,
}

impl<'e> Arrivals<'e> {
    pub(super) fn begin(engine: &'e Engine, origin: Origin, job: &'e Job) -> Result<Self> {
        let _epoch = engine.db.enter()?;
        Ok(Arrivals { engine, origin, job, lease: engine.db.lease()?, came: Mutex::default(), _epoch })
    }

    fn came(&self) -> MutexGuard<'_, Came<'e>> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of it has to come.
    pub(super) fn wants(&self, layer: &transfer::Layer<'_>) -> Result<bool> {
        Ok(!matches!(self.lack(layer)?, Lack::Nothing))
    }

    fn lack(&self, layer: &transfer::Layer<'_>) -> Result<Lack> {
        let engine = self.engine;
        let blob = &layer.descriptor.digest;
        // One that leans on what lies below is looked for when its turn has come.
        let (found, blob_is_here, is_to_be_had) = engine.db.read(|index| {
            let found = index.find_layer(&layer.diff_id, None)?;
            Ok((found, index.find_blob(blob)?.is_some(), is_to_be_had(index, layer)?))
        })?;
        let found = found.filter(|found| !found.leans || layer.position == 0);
        let Some(found) = found else { return Ok(Lack::Layer) };
        if !found.leans {
            self.came().layers.insert(layer.diff_id, Layer::from(&found));
        }
        // Dropped, it is not wanted back, unless the layer might have to be unpacked again.
        let dropped = is_to_be_had && engine.snapshots.driver().shape() == Shape::Layered;
        Ok(if blob_is_here || dropped { Lack::Nothing } else { Lack::Blob })
    }

    /// What of a layer is not here comes from the stream, unless somebody else brings it meanwhile.
    pub(super) fn receive(&self, layer: &transfer::Layer<'_>, stream: &mut Stream<'_>) -> Result<()> {
        self.received(layer, stream)?.by(stream, &self.engine.blobs);
        Ok(())
    }

    fn received(&self, layer: &transfer::Layer<'_>, stream: &mut Stream<'_>) -> Result<Coming<()>> {
        let (engine, blob) = (self.engine, layer.descriptor);
        let Some(_turn) = rootfs::turn(engine, &layer.diff_id)? else { return Ok(Coming::ByAnother) };
        Ok(match self.lack(layer)? {
            Lack::Nothing => Coming::IsHere,
            Lack::Blob => match engine.blobs.bring(blob, stream, self.job)? {
                Coming::Now(held) => {
                    self.came().held.push(held);
                    Coming::Now(())
                }
                Coming::IsHere => Coming::IsHere,
                Coming::ByAnother => Coming::ByAnother,
            },
            Lack::Layer => match self.unpacked(blob, stream)? {
                Coming::Now(Some(prepared)) => Coming::Now(self.publish(layer, prepared)?),
                Coming::Now(None) | Coming::IsHere => Coming::Now(()),
                Coming::ByAnother => Coming::ByAnother,
            },
        })
    }

    /// A blob once it returns; unpacked, if it may stand on anything.
    fn unpacked(&self, blob: &Descriptor, stream: &mut Stream<'_>) -> Result<Coming<Option<Prepared<'e>>>> {
        let (engine, job) = (self.engine, self.job);
        let incoming = match engine.blobs.incoming(&blob.digest, blob.size)? {
            Coming::Now(incoming) => incoming,
            Coming::IsHere => {
                let here = Blob { engine, digest: blob.digest };
                return rootfs::prepare(engine, &here, &self.lease, job).map(Coming::Now);
            }
            Coming::ByAnother => return Ok(Coming::ByAnother),
        };
        let mut ready = Ok(None);
        let held = incoming.receive(&mut |incoming| {
            let came;
            (came, ready) = both(engine, incoming, stream, &self.lease, job)?;
            came
        })?;
        self.came().held.push(held);
        ready.map(Coming::Now)
    }

    /// For others to take, unless it leans on what lies below, which is not known yet.
    fn publish(&self, layer: &transfer::Layer<'_>, prepared: Prepared<'e>) -> Result<()> {
        let published = rootfs::publish_alone(prepared, &layer.diff_id, &Made::default())?;
        self.is_proved(layer);
        match published {
            Ok(known) => {
                self.came().layers.insert(layer.diff_id, known);
                // So that those who wait for the layer need not look at the blob again.
                match self.form(layer)? {
                    Some(form) => self.engine.db.write(|index| index.insert_blob_layer(&form)),
                    None => Ok(()),
                }
            }
            Err(prepared) => {
                self.came().prepared.insert(layer.descriptor.digest, prepared);
                Ok(())
            }
        }
    }

    fn is_proved(&self, layer: &transfer::Layer<'_>) {
        self.came().proved.insert((layer.descriptor.digest, layer.diff_id));
    }

    /// The blob as a form of the layer, to be kept with it; `Corrupt` if it has another size, or unpacks to another one:
    /// manifests may say anything. `None`: it is not here, or nothing keeps its bytes, as a plain archive is made again from its recipe.
    pub(super) fn form(&self, layer: &transfer::Layer<'_>) -> Result<Option<BlobLayer>> {
        let archive = Blob { engine: self.engine, digest: layer.descriptor.digest };
        let (said, size) = (layer.descriptor.size, self.engine.blobs.size(&archive.digest)?);
        match size {
            None => return Ok(None),
            Some(size) if size == said => self.prove(layer, &archive)?,
            Some(size) => {
                return Err(Error::corrupt(format!(
                    "{} has {size} bytes; its descriptor says {said}",
                    archive.digest
                )));
            }
        }
        let compression = archive.compression()?;
        if compression == "none" && self.origin == Origin::Loaded {
            return Ok(None);
        }
        Ok(Some(BlobLayer {
            blob: archive.digest,
            diff_id: layer.diff_id,
            compression: compression.to_owned(),
            size: said,
        }))
    }

    /// Where the layer came by another blob, or was made here, this one is unpacked for the proof alone.
    fn prove(&self, layer: &transfer::Layer<'_>, archive: &Blob<'_>) -> Result<()> {
        if self.came().proved.contains(&(archive.digest, layer.diff_id)) {
            return Ok(());
        }
        let known = self.engine.db.read(|index| index.layer_of_blob(&archive.digest))?;
        if known.is_some_and(|form| form.diff_id == layer.diff_id) {
            return Ok(());
        }
        let mut plain = archive.open()?;
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 128 << 10]);
        loop {
            self.job.check()?;
            match plain.read(&mut buffer).context(|| format!("unpacking layer {}", layer.id()))? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let found = DiffId(hasher.finish());
        if found != layer.diff_id {
            return Err(Error::corrupt(format!(
                "the archive in {} is {found}, where the image's config promises {}",
                archive.digest, layer.diff_id
            )));
        }
        self.is_proved(layer);
        Ok(())
    }

    /// The layer on this stack. Its blob is here, where the layer is not.
    pub(super) fn place(&self, layer: &transfer::Layer<'_>, below: &Stack) -> Result<Layer> {
        let (engine, job) = (self.engine, self.job);
        if let Some(known) = self.known(layer, below)? {
            return Ok(known);
        }
        let _turn = rootfs::wait_for_place(engine, below, &layer.diff_id, &layer.id(), job)?;
        if let Some(known) = self.known(layer, below)? {
            return Ok(known);
        }
        let archive = Blob { engine, digest: layer.descriptor.digest };
        let prepared = self.came().prepared.remove(&archive.digest);
        let (diff_id, made) = (Some(&layer.diff_id), Made::default());
        let placed = rootfs::place(engine, &archive, prepared, diff_id, below, &made, &self.lease, job)?;
        self.is_proved(layer);
        Ok(placed)
    }

    fn known(&self, layer: &transfer::Layer<'_>, below: &Stack) -> Result<Option<Layer>> {
        let seen = self.came().layers.get(&layer.diff_id).cloned();
        match seen {
            Some(seen) if below.stands(self.engine, &seen)? => Ok(Some(seen)),
            _ => below.find(self.engine, &layer.diff_id),
        }
    }

    /// Not all of it came: nothing refers to what did.
    pub(super) fn give_up(self) -> Result<()> {
        match self.came().layers.is_empty() {
            true => Ok(()),
            false => self.engine.db.write(|index| index.condemn_unreferenced()).map(drop),
        }
    }
}

/// Whether the blob is known as a form of this very layer, and is here, or was seen at a registry.
pub(super) fn is_to_be_had(index: &Reader<'_>, layer: &transfer::Layer<'_>) -> Result<bool> {
    let blob = &layer.descriptor.digest;
    let is_form = index.layer_of_blob(blob)?.is_some_and(|form| form.diff_id == layer.diff_id);
    Ok(is_form && (index.find_blob(blob)?.is_some() || !index.blob_seen_at(blob)?.is_empty()))
}

/// Whether it came, and what became of unpacking it: which counts only if it did.
fn both<'e>(
    engine: &'e Engine,
    incoming: &mut Incoming,
    stream: &mut Stream<'_>,
    lease: &Lease,
    job: &Job,
) -> Result<(Result<()>, Result<Option<Prepared<'e>>>)> {
    let growing = incoming.growing()?;
    Ok(std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| rootfs::prepare(engine, &growing, lease, job));
        let came = incoming.fill(stream, job);
        let unpacked = unpacking.join();
        (came, unpacked.unwrap_or_else(|_| Err(Error::internal("unpacking a layer panicked"))))
    }))
}

impl Archive for Growing {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        Ok(compress::decoder(Box::new(self.read()))?.1)
    }
}

/// A compressed layer among the blobs, read as a tar.
pub(super) struct Blob<'e> {
    pub(super) engine: &'e Engine,
    pub(super) digest: Digest,
}

impl Blob<'_> {
    pub(super) fn compression(&self) -> Result<&'static str> {
        Ok(compress::decoder(Box::new(self.engine.blobs.read(&self.digest)?))?.0.name())
    }
}

impl Archive for Blob<'_> {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        Ok(compress::decoder(Box::new(self.engine.blobs.read(&self.digest)?))?.1)
    }
}
