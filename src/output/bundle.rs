//! Images on their way out: layers in the wanted form, configs, manifests, the index.
//!
//! Everything is a function of the images, the form and the annotations, so two times the same makes the same bytes;
//! what comes compressed from elsewhere stays as it came.

use std::fs::File;
use std::io::Write;

use super::annotation::{self, Annotation, Level};
use super::form::{self, Form};
use super::progress::Work;
use super::{Image, Product, again};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Compression, Descriptor, DiffId, Digest, Hasher, Index, MAX_CONFIG, Manifest};
use crate::job::Job;
use crate::rootfs;
use crate::sys::part::Part;
use crate::transfer::{Fill, Sink};

/// What was sent.
pub(super) struct Sent {
    /// The manifest, or the index, as the list of a layout shows it.
    pub(super) top: Descriptor,
    /// In the order of the product's.
    pub(super) images: Vec<SentImage>,
}

pub(super) struct SentImage {
    pub(super) manifest: Descriptor,
    pub(super) layers: Vec<(Descriptor, DiffId)>,
}

/// Layers, configs, manifests, index, each before what names it.
pub(super) fn send(
    product: &Product<'_>,
    form: &Form,
    own: &[Annotation],
    sink: &mut dyn Sink,
    work: &Work<'_>,
) -> Result<Sent> {
    // What is said with the output itself wins.
    let annotations: Vec<&Annotation> = product.annotations.iter().chain(own).collect();
    let platforms: Vec<_> = product.images.iter().map(|image| image.platform.clone()).collect();
    annotation::check(&annotations, &platforms, product.index)?;
    let mut images = Vec::new();
    let mut entries = Vec::new();
    for image in product.images {
        let sent = send_image(product, image, form, &annotations, sink, work)?;
        let mut entry = sent.manifest.clone();
        entry.platform = Some(image.config.platform().into());
        let of_entry = annotations.iter().copied();
        entry.annotations = annotation::of(of_entry, Level::ManifestDescriptor, Some(&image.platform));
        entries.push(entry);
        images.push(sent);
    }
    let top = match (product.index, entries.len()) {
        (false, 1) => entries.remove(0),
        _ => {
            let mut index = Index::new(entries);
            index.media_type = Some(form.index());
            index.annotations = annotation::of(annotations.iter().copied(), Level::Index, None);
            let bytes = index.to_bytes();
            let mut top = Descriptor::of(form.index(), &bytes);
            put(sink, &top, &bytes)?;
            top.annotations = annotation::of(annotations.iter().copied(), Level::IndexDescriptor, None);
            top
        }
    };
    Ok(Sent { top, images })
}

fn send_image(
    product: &Product<'_>,
    image: &Image,
    form: &Form,
    annotations: &[&Annotation],
    sink: &mut dyn Sink,
    work: &Work<'_>,
) -> Result<SentImage> {
    let mut layers = Vec::new();
    for (n, layer) in image.stack.layers().iter().enumerate() {
        product.job.check()?;
        let descriptor = send_layer(product, image, n, form, sink, work)
            .context(|| format!("exporting layer {}", layer.diff_id.short()))?;
        layers.push((descriptor, layer.diff_id));
    }
    let raw = config(product, image)?;
    let config = Descriptor::of(form.config(), &raw);
    put(sink, &config, &raw)?;
    let mut manifest = Manifest::new(config, layers.iter().map(|(layer, _)| layer.clone()).collect());
    manifest.media_type = Some(form.manifest());
    manifest.annotations =
        annotation::of(annotations.iter().copied(), Level::Manifest, Some(&image.platform));
    let bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(form.manifest(), &bytes);
    put(sink, &descriptor, &bytes)?;
    Ok(SentImage { manifest: descriptor, layers })
}

/// Of an image that is not in the store it is made again.
fn config(product: &Product<'_>, image: &Image) -> Result<Vec<u8>> {
    let made = image.config.to_bytes();
    match Digest::of(&made) == *image.id.digest() {
        true => Ok(made),
        false => product.engine.blobs.read_all(image.id.digest(), MAX_CONFIG),
    }
}

fn put(sink: &mut dyn Sink, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    sink.blob(descriptor, &mut |out| out.write_all(bytes).context(|| "writing a document of an image"))
}

fn send_layer(
    product: &Product<'_>,
    image: &Image,
    n: usize,
    form: &Form,
    sink: &mut dyn Sink,
    work: &Work<'_>,
) -> Result<Descriptor> {
    let Product { engine, job, .. } = *product;
    let layer = &image.stack.layers()[n];
    // It is there by now, and its bytes need not pass here.
    if let Some(blob) = form.distant(product.elsewhere, layer) {
        return Ok(blob);
    }
    let candidates = form.candidates(engine, &layer.diff_id)?;
    let lost = match known(product, &candidates)? {
        Ok(blob) => {
            let mut copy = |out: &mut dyn Write| {
                let mut reader = engine.blobs.read(&blob.digest)?;
                std::io::copy(&mut reader, &mut work.watch(out)).map(drop).context(|| "copying a blob")
            };
            sink.blob(&blob, &mut copy)?;
            return Ok(blob);
        }
        Err(lost) => lost,
    };
    let mut replay = |out: &mut dyn Write| rootfs::replay(engine, &image.stack, n, &mut work.watch(out), job);
    if form.compression == Compression::None {
        let row = engine.db.read(|index| index.layer(layer.number))?;
        let size = row.map_or(0, |row| row.tar_size);
        let descriptor = Descriptor::new(form.layer(Compression::None), *layer.diff_id.digest(), size);
        sink.blob(&descriptor, &mut replay)?;
        return Ok(descriptor);
    }
    // Its digest stands before its bytes, so these wait in a file.
    let (file, digest, size) = compressed(engine, form, &mut replay, job)?;
    again::warn_of_another(&digest, &candidates, lost.as_ref(), &layer.diff_id.short(), job);
    let descriptor = Descriptor::new(form.layer(form.compression), digest, size);
    let mut copy = |out: &mut dyn Write| {
        let mut whole = Part::of(&file, 0, size).context(|| "reading a compressed layer")?;
        std::io::copy(&mut whole, out).map(drop).context(|| "copying a compressed layer")
    };
    sink.blob(&descriptor, &mut copy)?;
    Ok(descriptor)
}

/// The first form of a layer that is here; one that was dropped comes again, so that it keeps its name. Else why not.
fn known(product: &Product<'_>, candidates: &[Descriptor]) -> Result<Result<Descriptor, Option<Error>>> {
    for blob in candidates {
        if product.engine.blobs.contains(&blob.digest)? {
            return Ok(Ok(blob.clone()));
        }
    }
    again::first_again(product.engine, candidates, product.registry, product.job)
}

/// In a file, with its digest and size.
pub(crate) fn compressed(
    engine: &Engine,
    form: &Form,
    fill: &mut Fill<'_>,
    job: &Job,
) -> Result<(File, Digest, u64)> {
    let doing = || "compressing a layer";
    let file = engine.unnamed_file()?;
    let mut hashed = Hashed { file: &file, hasher: Hasher::new(), size: 0 };
    let mut encoder =
        form::encoder(form.compression).encoder(Box::new(&mut hashed), form.level, job.budget.threads)?;
    fill(&mut encoder)?;
    encoder.finish().context(doing)?;
    let Hashed { hasher, size, .. } = hashed;
    Ok((file, hasher.finish(), size))
}

struct Hashed<'f> {
    file: &'f File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
