//! `save`: images into an archive that `load`, Docker and whatever reads OCI layouts understand, with their manifests.

use std::io::Write;
use std::path::Path;

use super::images;
use super::kept::{self, Part, Shipment};
use crate::archive::{DockerImage, LayoutDir, LayoutTar, named};
use crate::engine::Engine;
use crate::error::{Context as _, Kind, Result};
use crate::image::{Compression, Descriptor, MAX_CONFIG, Reference};
use crate::job::Job;
use crate::output::{Form, again, form};
use crate::registry;
use crate::rootfs;
use crate::transfer::{Fill, Sink};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout with what `docker load` reads.
    Docker,
    /// An OCI layout alone.
    Oci,
}

/// Names or ids; an image goes under each name that it was asked for by. Layers whose compressed form was dropped are fetched
/// as `registry` says.
pub fn save(
    engine: &Engine,
    texts: &[String],
    registry: &registry::Options,
    out: &mut (dyn Write + Send),
    format: Format,
    job: &Job,
) -> Result<()> {
    let shipments = shipments(engine, texts, registry, job)?;
    let mut tar = LayoutTar::new(out)?;
    let (list, docker) = ship_all(engine, shipments, &mut tar, job)?;
    let docker = if format == Format::Docker { docker } else { Vec::new() };
    tar.finish(list, &docker).map(drop)
}

/// The same archive, compressed.
pub fn save_compressed(
    engine: &Engine,
    texts: &[String],
    registry: &registry::Options,
    out: &mut (dyn Write + Send),
    format: Format,
    compression: Compression,
    job: &Job,
) -> Result<()> {
    let mut encoder = form::encoder(compression).encoder(Box::new(out), None, job.budget.threads)?;
    save(engine, texts, registry, &mut *encoder, format, job)?;
    encoder.finish().context(|| "compressing the archive")
}

/// Into an OCI layout in a directory, made if need be; one that is there is added to.
pub fn save_directory(
    engine: &Engine,
    texts: &[String],
    registry: &registry::Options,
    dir: &Path,
    job: &Job,
) -> Result<()> {
    let shipments = shipments(engine, texts, registry, job)?;
    let mut layout = LayoutDir::open(dir)?;
    let (list, _) = ship_all(engine, shipments, &mut layout, job)?;
    layout.finish(list)
}

/// What was asked for, all of it found before anything is written.
fn shipments(
    engine: &Engine,
    texts: &[String],
    registry: &registry::Options,
    job: &Job,
) -> Result<Vec<(Option<Reference>, Shipment)>> {
    let mut shipments = Vec::new();
    for text in texts {
        let row = images::resolve(engine, text)?;
        let (name, shipment) = kept::named(engine, &row.id, text)?;
        for part in &shipment.parts {
            for n in 0..part.manifest.layers.len() {
                let id = || format!("saving layer {}", part.stack.layers()[n].diff_id.short());
                bring_back(engine, part, n, registry, job).context(id)?;
            }
        }
        shipments.push((name, shipment));
    }
    Ok(shipments)
}

/// The bytes of layer `n` of a manifest, which were dropped: from where they were seen, or made again if they come out the
/// same.
pub(super) fn bring_back(
    engine: &Engine,
    part: &Part,
    n: usize,
    registry: &registry::Options,
    job: &Job,
) -> Result<()> {
    let blob = &part.manifest.layers[n];
    let compression = blob.media_type.compression().unwrap_or(Compression::None);
    if compression == Compression::None || engine.blobs.is_here(&blob.digest)? {
        return Ok(());
    }
    let lost = match again::fetch_again(engine, blob, registry, job) {
        Ok(true) => return Ok(()),
        Ok(false) => None,
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        Err(error) => Some(error),
    };
    let mut replay = |out: &mut dyn Write| rootfs::replay(engine, &part.stack, n, out, job);
    compress_again(engine, blob, compression, &mut replay, job)
        .map_err(|other| lost.map_or(other, |lost| again::is_gone(blob, Some(lost))))
}

fn ship_all(
    engine: &Engine,
    shipments: Vec<(Option<Reference>, Shipment)>,
    sink: &mut dyn Sink,
    job: &Job,
) -> Result<(Vec<Descriptor>, Vec<DockerImage>)> {
    let (mut list, mut docker) = (Vec::<Descriptor>::new(), Vec::<DockerImage>::new());
    for (name, shipment) in shipments {
        let entry = ship(engine, shipment, name.as_ref(), sink, &mut docker, job)?;
        list.push(match &name {
            Some(name) => named(entry, name),
            None => entry,
        });
    }
    Ok((list, docker))
}

fn ship(
    engine: &Engine,
    shipment: Shipment,
    name: Option<&Reference>,
    sink: &mut dyn Sink,
    docker: &mut Vec<DockerImage>,
    job: &Job,
) -> Result<Descriptor> {
    let whole = shipment.missing.is_empty();
    let mut tops = Vec::new();
    let index = shipment.index.filter(|_| whole);
    let parts = match &index {
        Some(_) => shipment.parts,
        None => vec![Shipment::own(shipment.parts, &shipment.image, engine)?],
    };
    for mut part in parts {
        let top = ship_part(engine, &mut part, sink, job)?;
        let image = DockerImage {
            config: *part.image.id.digest(),
            names: name.cloned().into_iter().collect(),
            layers: part.manifest.layers.iter().map(|layer| layer.digest).collect(),
        };
        // One name has one image there.
        let is_own = part.image.id == shipment.image;
        if is_own {
            match docker.iter_mut().find(|known| known.config == image.config && known.layers == image.layers)
            {
                Some(known) => known.names.extend(image.names),
                None => docker.push(image),
            }
        }
        tops.push(top);
    }
    match index {
        None => Ok(tops.remove(0)),
        Some((index, raw)) => {
            let top = Descriptor::of(index.media_type(), &raw);
            put(sink, &top, &raw)?;
            Ok(top)
        }
    }
}

fn ship_part(engine: &Engine, part: &mut Part, sink: &mut dyn Sink, job: &Job) -> Result<Descriptor> {
    let made = part.raw.is_none();
    if made {
        part.manifest.layers =
            (0..part.stack.layers().len()).map(|n| as_it_is(engine, part, n)).collect::<Result<_>>()?;
    }
    for (n, layer) in part.manifest.layers.iter().enumerate() {
        let id = part.stack.layers()[n].diff_id.short();
        ship_layer(engine, part, n, layer, sink, job).context(|| format!("saving layer {id}"))?;
    }
    let config = engine.blobs.read_all(part.image.id.digest(), MAX_CONFIG)?;
    put(sink, &part.manifest.config, &config)?;
    let raw = part.raw.get_or_insert_with(|| part.manifest.to_bytes());
    let top = Descriptor::of(part.manifest.media_type(), raw);
    put(sink, &top, raw)?;
    Ok(top)
}

/// Compressed if it is here so; else the plain archive, which costs nothing to make.
fn as_it_is(engine: &Engine, part: &Part, n: usize) -> Result<Descriptor> {
    let layer = &part.stack.layers()[n];
    let form = Form::plain(true);
    for blob in form.candidates(engine, &layer.diff_id)? {
        if blob.media_type.compression() != Some(Compression::None) && engine.blobs.contains(&blob.digest)? {
            return Ok(blob);
        }
    }
    let size = engine.db.read(|index| index.layer(layer.number))?.map_or(0, |row| row.tar_size);
    Ok(Descriptor::new(form.layer(Compression::None), *layer.diff_id.digest(), size))
}

fn ship_layer(
    engine: &Engine,
    part: &Part,
    n: usize,
    blob: &Descriptor,
    sink: &mut dyn Sink,
    job: &Job,
) -> Result<()> {
    if !engine.blobs.is_here(&blob.digest)? {
        let mut replay = |out: &mut dyn Write| rootfs::replay(engine, &part.stack, n, out, job);
        match blob.media_type.compression() {
            None | Some(Compression::None) => return sink.blob(blob, &mut replay),
            Some(compression) => compress_again(engine, blob, compression, &mut replay, job)?,
        }
    }
    sink.blob(blob, &mut |out| {
        let mut reader = engine.blobs.read(&blob.digest)?;
        std::io::copy(&mut reader, out).map(drop).context(|| "copying a blob")
    })
}

/// Its bytes are gone; ours come out the same again.
fn compress_again(
    engine: &Engine,
    blob: &Descriptor,
    compression: Compression,
    replay: &mut Fill<'_>,
    job: &Job,
) -> Result<()> {
    let mut writer = engine.blobs.writer(Some(blob.digest), Some(blob.size))?;
    let mut encoder = form::encoder(compression).encoder(Box::new(&mut writer), None, job.budget.threads)?;
    replay(&mut encoder)?;
    encoder.finish().context(|| "compressing a layer")?;
    writer.commit(None).map(drop).map_err(|other| again::is_gone(blob, Some(other)))
}

fn put(sink: &mut dyn Sink, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
    sink.blob(blob, &mut |out| out.write_all(bytes).context(|| "writing a document of an image"))
}
