//! An image whose layers are compressed otherwise than its source has them: plain ones with gzip, for places where bytes
//! count; zstd undone, for those who do not know it. Its manifest is made anew.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::bytes::Bytes;
use super::parcel::{Blob, Document, Parcel, parsed};
use super::send::From;
use super::temp::Temp;
use crate::error::{Context as _, Error, Result};
use crate::image::{Compression, Descriptor, Digest, Document as Parsed, Hasher, MediaType, Reference};
use crate::job::{Event, Job, LayerOutcome, Phase};
use crate::layer::compress;
use crate::output::{Beat, form};
use crate::sys::part::Part;
use crate::transfer::{self, Source};

/// The inner source, with some layers in another form.
pub(super) struct Recoded<'s> {
    inner: &'s dyn Source,
    files: HashMap<Digest, (File, u64)>,
    documents: HashMap<Digest, Vec<u8>>,
}

/// Layers compressed `from` are to be `to`. `None`: there are none.
pub(super) fn recoded<'s>(
    job: &Job,
    source: &From<'s>,
    parcel: &Parcel,
    from: Compression,
    to: Compression,
    temp: &Temp,
) -> Result<Option<(Recoded<'s>, Parcel)>> {
    let Parsed::Image(mut manifest) = parsed(parcel.top())? else {
        return Err(Error::internal("an index is compressed anew"));
    };
    let is_meant = |layer: &&Descriptor| layer.media_type.compression() == Some(from);
    let mut wanted: Vec<Descriptor> = manifest.layers.iter().filter(is_meant).cloned().collect();
    wanted.sort_by_key(|layer| layer.digest);
    wanted.dedup_by_key(|layer| layer.digest);
    if wanted.is_empty() {
        return Ok(None);
    }
    let done = Mutex::new(HashMap::new());
    let stop = AtomicBool::new(false);
    let one = |layer: &Descriptor| {
        let id = layer.digest.short();
        job.report(Event::LayerStarted { layer: id.clone(), total: Some(layer.size) });
        let made = recode(job, source, layer, to, temp);
        let how = if made.is_ok() { LayerOutcome::Converted } else { LayerOutcome::Failed };
        job.report(Event::LayerDone { layer: id.clone(), how });
        let made = made.context(|| format!("compressing {id} anew"))?;
        done.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.digest, made);
        Ok(())
    };
    transfer::guarded(job, source.source, || transfer::side_by_side(job, &wanted, &stop, one))?;
    let mut files = HashMap::new();
    for (digest, (file, new)) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for layer in manifest.layers.iter_mut().filter(|layer| layer.digest == digest) {
            (layer.media_type, layer.digest, layer.size) = (new.media_type.clone(), new.digest, new.size);
        }
        files.insert(new.digest, (file, new.size));
    }
    let raw = manifest.to_bytes();
    let top = Document { descriptor: Descriptor::of(manifest.media_type(), &raw), raw };
    let mut blobs = vec![Blob { descriptor: manifest.config.clone(), is_layer: false }];
    for layer in &manifest.layers {
        if !blobs.iter().any(|known| known.descriptor.digest == layer.digest) {
            blobs.push(Blob { descriptor: layer.clone(), is_layer: true });
        }
    }
    let documents = [(top.descriptor.digest, top.raw.clone())].into();
    let recoded = Recoded { inner: source.source, files, documents };
    Ok(Some((recoded, Parcel { documents: vec![top], blobs })))
}

fn recode(
    job: &Job,
    from: &From<'_>,
    layer: &Descriptor,
    to: Compression,
    temp: &Temp,
) -> Result<(File, Descriptor)> {
    let doing = || "compressing a layer";
    let bytes = Bytes::of(job, from.source, from.name, layer);
    let id = layer.digest.short();
    let beat = Beat::new(job, &id, Phase::Compressing, Some(layer.size));
    let mut out = Hashed { file: temp.file()?, hasher: Hasher::new(), size: 0 };
    let is_plain = layer.media_type.compression() == Some(Compression::None);
    match is_plain {
        true => {
            let mut encoder = form::encoder(to).encoder(Box::new(&mut out), None, job.budget.threads)?;
            bytes.write_to(&mut encoder, &|done| beat.tell(done))?;
            encoder.finish().context(doing)?;
        }
        false => {
            // All of it is proved first: a decoder need not read to the end.
            let mut stored = temp.file()?;
            bytes.write_to(&mut stored, &|done| beat.tell(done))?;
            let stored = Part::of(&stored, 0, layer.size).context(doing)?;
            let (_, mut plain) = compress::decoder(Box::new(stored))?;
            let mut encoder = form::encoder(to).encoder(Box::new(&mut out), None, job.budget.threads)?;
            io::copy(&mut plain, &mut encoder).context(doing)?;
            encoder.finish().context(doing)?;
        }
    }
    let Hashed { file, hasher, size } = out;
    let media_type = match layer.media_type {
        MediaType::DockerLayer(_) if to != Compression::Zstd => MediaType::DockerLayer(to),
        _ => MediaType::OciLayer(to),
    };
    Ok((file, Descriptor::new(media_type, hasher.finish(), size)))
}

struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Recoded<'_> {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        self.inner.resolve(job, name)
    }

    fn manifest(&self, job: &Job, name: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        match self.documents.get(&wanted.digest) {
            Some(made) => Ok(made.clone()),
            None => self.inner.manifest(job, name, wanted),
        }
    }

    fn blob<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        match self.files.get(&wanted.digest) {
            Some((file, size)) => {
                Ok(Box::new(Part::of(file, offset, *size).context(|| "reading a compressed layer")?))
            }
            None => self.inner.blob(job, name, wanted, offset),
        }
    }

    fn interrupt(&self) {
        self.inner.interrupt();
    }
}
