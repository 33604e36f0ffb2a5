//! A cache written: the index of what a build came to, rows and archives of its layers, then the manifest that names them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write};

use super::document::{self, Document, Layer as Described, Record};
use super::import::Imported;
use super::mounts::{self, MountDir};
use super::options::{Mode, To};
use super::origin::{self, Origin};
use super::rows;
use super::target::Target;
use crate::db::{BlobLayer, CacheRecord, KeyKind, LayerRow};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{CacheKey, ChainId, Compression, Descriptor, DiffId, Manifest, MediaType};
use crate::job::{Event, Job};
use crate::output::{bundle, form};
use crate::registry;
use crate::rootfs::{self, Layer, Stack};
use crate::transfer;

/// What a build came to.
pub struct Built<'b> {
    pub engine: &'b Engine,
    /// The chain keys of its steps, each once.
    pub steps: Vec<CacheKey>,
    /// Of its images.
    pub stacks: Vec<&'b Stack>,
    /// What its steps stand on and copy from: what is in these layers is told, and their registries have the bytes.
    pub bases: &'b [Stack],
    pub registry: &'b registry::Options,
    /// The cache mounts of its steps.
    pub mounts: Vec<MountDir>,
    /// What it was given.
    pub imported: Option<&'b Imported<'b>>,
}

/// Writes what the other side does not have yet; the name comes last. What is inline is [`super::inline`]'s.
pub fn export(built: &Built<'_>, to: &To, job: &Job) -> Result<()> {
    let Some(mut target) = Target::open(built.engine, &to.kind, built.registry, job)? else { return Ok(()) };
    job.report(Event::Note(format!("writing the cache {}", to.describe())));
    let doing = || format!("writing the cache `{}`", to.describe());
    let manifest = send(built, to, &mut target, job).context(doing)?;
    target.finish(&manifest.to_bytes()).context(doing)
}

fn send(built: &Built<'_>, to: &To, target: &mut Target<'_>, job: &Job) -> Result<Manifest> {
    let mut sending = Sending { built, to, target, job, layers: Vec::new(), numbers: HashMap::new() };
    let mut records: Vec<Record> = Vec::new();
    for key in &built.steps {
        records.extend(sending.record(key)?);
    }
    for base in built.bases {
        sending.base(base)?;
    }
    let layers = sending.layers;
    let mut blobs: Vec<Descriptor> =
        layers.iter().flat_map(|layer| layer.rows.iter().chain(&layer.archive)).cloned().collect();
    let mut document = Document::new(layers, records);
    if to.mounts {
        // What stands there already need not be sent.
        let previous = origin::of_target(&to.kind, built.registry)
            .and_then(|origin| Ok((origin.document(job)?, origin)))
            .map(|(document, origin)| (origin, document));
        let (sent, more) = mounts::send(built, previous.ok().as_ref(), target, job)?;
        document.mounts = sent;
        blobs.extend(more);
    }
    let raw = document.to_bytes();
    let config = Descriptor::of(Document::media_type(), &raw);
    target.put(&config, &raw)?;
    let mut manifest = Manifest::new(config, blobs);
    manifest.artifact_type = Some(document::CONFIG.into());
    Ok(manifest)
}

/// An archive, and of one that leans what it stands on.
type Means = (DiffId, Option<Option<ChainId>>);

fn means(described: &Described) -> Means {
    (described.diff_id, described.leans.then_some(described.on))
}

struct Sending<'s, 't> {
    built: &'s Built<'s>,
    to: &'s To,
    target: &'s mut Target<'t>,
    job: &'s Job,
    layers: Vec<Described>,
    /// Where among them.
    numbers: HashMap<Means, usize>,
}

impl Sending<'_, '_> {
    /// What the store knows under the key, else what a cache that the build was given knows.
    fn record(&mut self, key: &CacheKey) -> Result<Option<Record>> {
        self.job.check()?;
        let known = self.built.engine.db.read(|index| {
            let Some(record) = index.cached(KeyKind::Chain, key)? else { return Ok(None) };
            let layer = match record.layer {
                Some(number) => match index.layer(number)? {
                    // One that leans means something on its own base alone, which the key does not tell.
                    Some(row) if !row.leans => Some(row),
                    _ => return Ok(None),
                },
                None => None,
            };
            Ok(Some((record, layer)))
        })?;
        if let Some((record, layer)) = known {
            return self.own(record, layer.as_ref());
        }
        self.passed_on(key)
    }

    fn own(&mut self, record: CacheRecord, layer: Option<&LayerRow>) -> Result<Option<Record>> {
        // One without a step key is of before there were any.
        if record.step.is_none() {
            return Ok(None);
        }
        let layer = layer.map(|row| self.layer(row)).transpose()?;
        Ok(Record::of(record, layer))
    }

    fn passed_on(&mut self, key: &CacheKey) -> Result<Option<Record>> {
        let Some(imported) = self.built.imported else { return Ok(None) };
        let Some(entry) = imported.record(key) else { return Ok(None) };
        let layer = match entry.layer {
            Some(index) => Some(self.remote_layer(imported, index, true)?),
            None => None,
        };
        Ok(Some(Record { layer, ..entry.record.clone() }))
    }

    /// Whether the bytes of a layer go along.
    fn wants(&self, diff_id: &DiffId) -> bool {
        let of_images = || self.built.stacks.iter().flat_map(|stack| stack.layers());
        self.to.mode == Mode::Max || of_images().any(|layer| layer.diff_id == *diff_id)
    }

    fn number(&mut self, described: Described) -> usize {
        let number = self.layers.len();
        self.numbers.insert(means(&described), number);
        self.layers.push(described);
        number
    }

    fn layer(&mut self, row: &LayerRow) -> Result<usize> {
        if let Some(number) = self.numbers.get(&(row.diff_id, None)) {
            return Ok(*number);
        }
        let doing = || format!("exporting layer {}", row.diff_id.short());
        let rows = self.rows(row).context(doing)?;
        let archive = match self.wants(&row.diff_id) {
            true => Some(self.archive(row).context(doing)?),
            false => None,
        };
        Ok(self.number(Described {
            diff_id: row.diff_id,
            content_id: row.content_id,
            leans: false,
            on: None,
            size: row.size,
            rows: Some(rows),
            archive,
        }))
    }

    fn rows(&mut self, row: &LayerRow) -> Result<Descriptor> {
        let blob = rows::encode(self.built.engine.db.rows(row.number))?;
        let rows = Descriptor::of(MediaType::from(document::ROWS), &blob);
        self.target.put(&rows, &blob)?;
        Ok(rows)
    }

    /// What an image holds, without its bytes: those that stand on it elsewhere need not have it.
    fn base(&mut self, stack: &Stack) -> Result<()> {
        let mut below: Option<ChainId> = None;
        for layer in stack.layers() {
            self.job.check()?;
            let on = below.replace(ChainId::on(below.as_ref(), &layer.diff_id));
            let known = |on| self.numbers.contains_key(&(layer.diff_id, on));
            if known(None) || known(Some(on)) {
                continue;
            }
            let remote = self.built.imported.and_then(|imported| Some((imported, imported.index_of(layer)?)));
            if let Some((imported, index)) = remote {
                self.remote_layer(imported, index, false)?;
                continue;
            }
            let Some(row) = self.built.engine.db.read(|index| index.layer(layer.number))? else { continue };
            let rows = self
                .rows(&row)
                .context(|| format!("exporting the files of layer {}", row.diff_id.short()))?;
            self.number(Described {
                diff_id: row.diff_id,
                content_id: row.content_id,
                leans: row.leans,
                on: on.filter(|_| row.leans),
                size: row.size,
                rows: Some(rows),
                archive: None,
            });
        }
        Ok(())
    }

    /// A layer that is here only by name goes on as it came.
    fn remote_layer(&mut self, imported: &Imported<'_>, index: usize, bytes: bool) -> Result<usize> {
        let remote = &imported.layers[index];
        let mut described = remote.described.clone();
        if let Some(number) = self.numbers.get(&means(&described)) {
            return Ok(*number);
        }
        if !bytes || !self.wants(&described.diff_id) {
            described.archive = None;
        }
        let from = &imported.origins[remote.origin];
        for blob in described.rows.iter().chain(&described.archive) {
            forward(self.built.engine, from, blob, self.target, self.job)?;
        }
        Ok(self.number(described))
    }

    /// As a blob that is there, or here, already; else made now.
    fn archive(&mut self, row: &LayerRow) -> Result<Descriptor> {
        let engine = self.built.engine;
        let known = self.to.form.candidates(engine, &row.diff_id)?;
        for blob in &known {
            if self.target.has(blob)? {
                return Ok(blob.clone());
            }
        }
        for blob in known {
            if engine.blobs.contains(&blob.digest)? {
                self.target.blob(&blob, &mut |out| {
                    std::io::copy(&mut engine.blobs.read(&blob.digest)?, out)
                        .map(drop)
                        .context(|| "copying a blob")
                })?;
                return Ok(blob);
            }
        }
        self.made(row)
    }

    fn made(&mut self, row: &LayerRow) -> Result<Descriptor> {
        let (engine, form) = (self.built.engine, &self.to.form);
        let stack = Stack::default().with(Layer::from(row));
        let mut replay = |out: &mut dyn Write| rootfs::replay(engine, &stack, 0, out, self.job);
        let media_type = form.layer(form.compression);
        if form.compression == Compression::None {
            let blob = Descriptor::new(media_type, *row.diff_id.digest(), row.tar_size);
            self.target.blob(&blob, &mut replay)?;
            return Ok(blob);
        }
        let (file, digest, size) = bundle::compressed(engine, form, &mut replay, self.job)?;
        let blob = Descriptor::new(media_type, digest, size);
        self.target.file(&blob, &file)?;
        // The next export need not make it again where this one went.
        engine.db.write(|index| {
            index.insert_blob_layer(&BlobLayer {
                blob: digest,
                diff_id: row.diff_id,
                compression: form::name(form.compression).to_owned(),
                size,
            })
        })?;
        Ok(blob)
    }
}

/// A blob from there to the target, which may have it.
pub(super) fn forward(
    engine: &Engine,
    from: &Origin,
    blob: &Descriptor,
    target: &mut Target<'_>,
    job: &Job,
) -> Result<()> {
    if target.has(blob)? {
        return Ok(());
    }
    let file = engine.unnamed_file()?;
    fetch(from, blob, &file, job)?;
    target.file(blob, &file)
}

/// A blob into an empty file, verified; the file is read from its beginning next.
pub(super) fn fetch(from: &Origin, blob: &Descriptor, mut file: &File, job: &Job) -> Result<()> {
    transfer::bring(job, &*from.source, &from.name, std::slice::from_ref(blob), |blob, stream| {
        stream.start()?;
        std::io::copy(stream, &mut { file }).map(drop).context(|| format!("storing {}", blob.digest.short()))
    })?;
    file.seek(SeekFrom::Start(0)).map(drop).context(|| "reading a file again")
}
