//! Images on their way to a registry: layers side by side, each compressed where it is not yet, then what names them.
//!
//! What is compressed is a blob of the store at once, and where a blob is there that is noted at once: nothing is done
//! twice, not for another name, and not after a kill.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::again;
use super::elsewhere::Elsewhere;
use super::form::{self, Form};
use crate::db::BlobLayer;
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{Compression, Descriptor, DiffId, Digest, LayerId, Reference};
use crate::job::{Event, Job, LayerOutcome, Phase};
use crate::registry::{self, Outgoing, Placed, Registry};
use crate::rootfs::{self, Layer, Stack};
use crate::sys::part::Part;
use crate::transfer;

/// Between two progress events of one layer.
const BEAT: Duration = Duration::from_millis(100);

/// Bytes of a blob from which on it is noted how far its upload is.
const WORTH_KEEPING: u64 = 1 << 20;

/// A repository, and what is sent to it from.
#[derive(Clone, Copy)]
pub(crate) struct Target<'t> {
    pub(crate) engine: &'t Engine,
    pub(crate) registry: &'t Registry,
    /// How the others are spoken to.
    pub(crate) options: &'t registry::Options,
    pub(crate) name: &'t Reference,
    /// Knows of layers that are not here.
    pub(crate) elsewhere: Option<&'t dyn Elsewhere>,
    pub(crate) job: &'t Job,
}

/// Layer `n` of a stack, from the bottom.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'p> {
    pub(crate) stack: &'p Stack,
    pub(crate) n: usize,
    /// The very blob, as a manifest names it; `None`: any that is of the form.
    pub(crate) exactly: Option<&'p Descriptor>,
}

impl Piece<'_> {
    fn layer(&self) -> &Layer {
        &self.stack.layers()[self.n]
    }
    fn diff_id(&self) -> &DiffId {
        &self.layer().diff_id
    }
    /// What makes two of them one.
    fn key(&self) -> (DiffId, Option<Digest>) {
        (*self.diff_id(), self.exactly.map(|exactly| exactly.digest))
    }
}

impl Target<'_> {
    /// Sees to it that all of these are there, `job.budget.transfers` at once. How manifests name them, in order.
    pub(crate) fn layers(&self, pieces: &[Piece<'_>], form: &Form) -> Result<Vec<Descriptor>> {
        let mut each: Vec<&Piece<'_>> = Vec::new();
        for piece in pieces {
            if !each.iter().any(|known| known.key() == piece.key()) {
                self.job.report(Event::LayerStarted { layer: piece.diff_id().short(), total: None });
                each.push(piece);
            }
        }
        let done = Mutex::new(HashMap::new());
        let stop = AtomicBool::new(false);
        // Stopped with the first that fails; the others may be in the middle of something long.
        let job = self.job.child();
        let target = Target { job: &job, ..*self };
        let send = |piece: &&Piece<'_>| {
            let id = piece.diff_id().short();
            let placed = target.layer(piece, form, &id);
            let how = match &placed {
                Ok((_, Placed::Uploaded)) => LayerOutcome::Pushed,
                Ok((_, Placed::Exists)) => LayerOutcome::AlreadyThere,
                Ok((_, Placed::Mounted(from))) => LayerOutcome::Mounted(from.clone()),
                Err(_) => LayerOutcome::Failed,
            };
            self.job.report(Event::LayerDone { layer: id.clone(), how });
            match placed {
                Ok((descriptor, _)) => {
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(piece.key(), descriptor);
                    Ok(())
                }
                Err(error) => {
                    job.cancel().set();
                    Err(error).context(|| format!("pushing layer {id}"))
                }
            }
        };
        transfer::guarded(self.job, self.registry, || transfer::side_by_side(self.job, &each, &stop, send))?;
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of = |piece: &Piece<'_>| done.get(&piece.key()).cloned().expect("each was sent");
        Ok(pieces.iter().map(of).collect())
    }

    /// A small blob.
    pub(crate) fn bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<Placed> {
        let from = |offset: u64| {
            let mut rest = Cursor::new(bytes.to_vec());
            rest.set_position(offset);
            Ok(Box::new(rest) as Box<dyn Read + Send>)
        };
        self.blob(blob, &from, &|_| {})
    }

    /// A manifest or an index, under its digest or a tag.
    pub(crate) fn manifest(&self, selector: &str, manifest: &Descriptor, bytes: &[u8]) -> Result<()> {
        self.registry.push_manifest(self.job, self.name, selector, manifest, bytes).map(drop)
    }

    /// Repositories of the registry that had the blob, the latest first.
    fn seen_in(&self, digest: &Digest) -> Result<Vec<String>> {
        self.engine.db.read(|index| index.blob_seen_in(digest, self.name.host()))
    }

    fn note(&self, digest: &Digest) -> Result<()> {
        self.engine.db.write(|index| index.blob_seen(digest, self.name.host(), self.name.path()))
    }

    fn blob(
        &self,
        blob: &Descriptor,
        open: &(dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Placed> {
        let seen_in = self.seen_in(&blob.digest)?;
        let outgoing = Outgoing { progress, ..Outgoing::new(blob, &seen_in, &open) };
        let placed = match blob.size > WORTH_KEEPING {
            true => self.resumed(outgoing)?,
            false => self.registry.push_blob(self.job, self.name, &outgoing)?,
        };
        self.note(&blob.digest)?;
        Ok(placed)
    }

    /// Goes on with what a process that died had begun, and leaves word for the next one.
    fn resumed(&self, outgoing: Outgoing<'_>) -> Result<Placed> {
        let db = &self.engine.db;
        let upload = format!("{}@{}/{}", outgoing.blob.digest, self.name.host(), self.name.path());
        // Two at one upload would garble it.
        let lease = db.try_lease(&format!("upload-{}", Digest::of(upload.as_bytes()).hex()))?;
        if lease.is_none() {
            return self.registry.push_blob(self.job, self.name, &outgoing);
        }
        let begun = db.read(|index| index.upload(&upload))?;
        let keep = |address: Option<&str>| {
            if let Err(problem) = db.write(|index| index.keep_upload(&upload, address)) {
                tracing::warn!("should this push be killed, it will not go on where it was: {problem}");
            }
        };
        let outgoing = Outgoing { begun: begun.as_deref(), keep: &keep, ..outgoing };
        self.registry.push_blob(self.job, self.name, &outgoing)
    }

    fn layer(&self, piece: &Piece<'_>, form: &Form, id: &LayerId) -> Result<(Descriptor, Placed)> {
        let exactly = piece.exactly;
        if let Some(foreign) = exactly.filter(|blob| blob.media_type.is_foreign()) {
            return Ok((foreign.clone(), Placed::Exists));
        }
        let candidates = match exactly {
            Some(exactly) => vec![exactly.clone()],
            None => form.candidates(self.engine, piece.diff_id())?,
        };
        for blob in &candidates {
            if self.engine.blobs.is_here(&blob.digest)? {
                return Ok((blob.clone(), self.stored(blob, id)?));
            }
        }
        let distant =
            self.elsewhere.and_then(|elsewhere| Some((elsewhere, elsewhere.distant(piece.layer())?)));
        // What is not here may be there; what was pulled from elsewhere is known by its name alone.
        for blob in &candidates {
            let mut seen_in = self.seen_in(&blob.digest)?;
            let at = distant.as_ref().and_then(|(_, distant)| distant.at.as_ref());
            seen_in.extend(at.filter(|(host, _)| host == self.name.host()).map(|(_, path)| path.clone()));
            if let Some(placed) = self.registry.find_blob(self.job, self.name, &blob.digest, &seen_in)? {
                self.note(&blob.digest)?;
                return Ok((blob.clone(), placed));
            }
        }
        if let (Some((elsewhere, _)), Some(blob)) = (distant, exactly) {
            let file = elsewhere.fetch(piece.layer(), self.job)?;
            return Ok((blob.clone(), self.fetched(blob, &file, id)?));
        }
        // What was dropped comes again, so that it keeps its name.
        let lost = match again::first_again(self.engine, &candidates, self.options, self.job)? {
            Ok(blob) => {
                let placed = self.stored(&blob, id)?;
                return Ok((blob, placed));
            }
            Err(lost) => lost,
        };
        let compression = match exactly {
            Some(exactly) => exactly.media_type.compression().unwrap_or(Compression::None),
            None => form.compression,
        };
        if compression == Compression::None {
            return self.tar(piece, form, id);
        }
        let form = Form { compression, ..form.clone() };
        let made = compress(self.engine, piece.stack, piece.n, &form, id, self.job)?;
        if let Some(exactly) = exactly.filter(|exactly| exactly.digest != made.digest) {
            return Err(again::is_gone(exactly, lost));
        }
        again::warn_of_another(&made.digest, &candidates, lost.as_ref(), id, self.job);
        let blob = exactly.cloned().unwrap_or(made);
        let placed = self.stored(&blob, id)?;
        Ok((blob, placed))
    }

    /// A blob of the store.
    fn stored(&self, blob: &Descriptor, id: &LayerId) -> Result<Placed> {
        let engine = self.engine;
        let open = |offset: u64| {
            let mut reader = engine.blobs.read(&blob.digest)?;
            io::copy(&mut reader.by_ref().take(offset), &mut io::sink()).context(|| "reading a blob")?;
            Ok(Box::new(reader) as Box<dyn Read + Send>)
        };
        let beat = Beat::new(self.job, id, Phase::Uploading, Some(blob.size));
        self.blob(blob, &open, &|done| beat.tell(done))
    }

    /// A blob that is in a file.
    fn fetched(&self, blob: &Descriptor, file: &File, id: &LayerId) -> Result<Placed> {
        let open = |offset: u64| {
            let rest = Part::of(file, offset, blob.size).context(|| "opening a fetched layer again")?;
            Ok(Box::new(rest) as Box<dyn Read + Send>)
        };
        let beat = Beat::new(self.job, id, Phase::Uploading, Some(blob.size));
        self.blob(blob, &open, &|done| beat.tell(done))
    }

    /// The plain archive: it is made again where it is wanted, and not kept.
    fn tar(&self, piece: &Piece<'_>, form: &Form, id: &LayerId) -> Result<(Descriptor, Placed)> {
        let layer = &piece.stack.layers()[piece.n];
        let row = self.engine.db.read(|index| index.layer(layer.number))?;
        let size = row.map_or(0, |row| row.tar_size);
        let own = Descriptor::new(form.layer(Compression::None), *layer.diff_id.digest(), size);
        let blob = piece.exactly.cloned().unwrap_or(own);
        let file: Mutex<Option<File>> = Mutex::default();
        let open = |offset: u64| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if file.is_none() {
                let mut new = self.engine.unnamed_file()?;
                rootfs::replay(self.engine, piece.stack, piece.n, &mut new, self.job)?;
                *file = Some(new);
            }
            let whole = file.as_ref().expect("set above");
            let rest = Part::of(whole, offset, u64::MAX).context(|| "opening an archive again")?;
            Ok(Box::new(rest) as Box<dyn Read + Send>)
        };
        let beat = Beat::new(self.job, id, Phase::Uploading, Some(size));
        let placed = self.blob(&blob, &open, &|done| beat.tell(done))?;
        Ok((blob, placed))
    }
}

/// Makes a blob of layer `n`.
pub(crate) fn compress(
    engine: &Engine,
    stack: &Stack,
    n: usize,
    form: &Form,
    id: &LayerId,
    job: &Job,
) -> Result<Descriptor> {
    let layer = &stack.layers()[n];
    let total = engine.db.read(|index| index.layer(layer.number))?.map(|row| row.tar_size);
    let mut writer = engine.blobs.writer(None, None)?;
    let threads = job.budget.threads;
    let mut encoder = form::encoder(form.compression).encoder(Box::new(&mut writer), form.level, threads)?;
    let beat = Beat::new(job, id, Phase::Compressing, total);
    let mut watched = Watched { out: &mut *encoder, done: 0, beat };
    rootfs::replay(engine, stack, n, &mut watched, job)?;
    encoder.finish().context(|| "compressing a layer")?;
    let staged = writer.finish()?;
    engine.db.write(|index| {
        index.insert_blob_layer(&BlobLayer {
            blob: staged.digest(),
            diff_id: layer.diff_id,
            compression: form::name(form.compression).to_owned(),
            size: staged.size(),
        })?;
        staged.publish(index, None)
    })?;
    Ok(Descriptor::new(form.layer(form.compression), staged.digest(), staged.size()))
}

/// Progress events of one layer, not too many.
pub(crate) struct Beat<'b> {
    job: &'b Job,
    layer: &'b LayerId,
    phase: Phase,
    total: Option<u64>,
    told: Mutex<Option<Instant>>,
}

impl<'b> Beat<'b> {
    pub(crate) fn new(job: &'b Job, layer: &'b LayerId, phase: Phase, total: Option<u64>) -> Self {
        Beat { job, layer, phase, total, told: Mutex::default() }
    }

    pub(crate) fn tell(&self, done: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < BEAT) && self.total != Some(done) {
            return;
        }
        *told = Some(Instant::now());
        let (layer, phase, total) = (self.layer.clone(), self.phase, self.total);
        self.job.report(Event::LayerProgress { layer, phase, done, total });
    }
}

struct Watched<'w, 'b> {
    out: &'w mut (dyn Write + 'w),
    done: u64,
    beat: Beat<'b>,
}

impl Write for Watched<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.beat.job.check()?;
        let written = self.out.write(bytes)?;
        self.done += written as u64;
        self.beat.tell(self.done);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
