//! An image of the store as a source: with the manifest that it is known by elsewhere, else with a new one, the same one
//! that a push would give it.

use std::collections::HashMap;
use std::io::{self, Read, Seek as _};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Compression, Descriptor, Digest, MAX_MANIFEST, Platform, Reference};
use crate::job::Job;
use crate::output;
use crate::registry;
use crate::rootfs;
use crate::sys::part::Part as FilePart;
use crate::transfer::{self, Source};
use crate::verb::kept::{self, Part, Shipment};
use crate::verb::{images, push, save};

pub(in crate::verb) struct Kept<'e> {
    engine: &'e Engine,
    job: Job,
    /// How those are spoken to that have what was dropped here.
    registry: registry::Options,
    place: String,
    top: (Descriptor, Vec<u8>),
    parts: Vec<Part>,
    documents: HashMap<Digest, Vec<u8>>,
}

/// `platform`: of the images of an index that one; `all`: the index, where all of its images are here.
pub(super) fn open<'e>(
    engine: &'e Engine,
    text: &str,
    all: bool,
    platform: Option<&Platform>,
    registry: &registry::Options,
    job: &Job,
) -> Result<Kept<'e>> {
    let row = images::resolve(engine, text)?;
    let (_, shipment) = kept::named(engine, &row.id, text)?;
    let index = match (shipment.index, all) {
        (Some(index), true) if shipment.missing.is_empty() => Some(index),
        (Some(_), true) => {
            return Err(Error::not_found(format!("not all images of the index `{text}` are here"))
                .hint("without --all-platforms the image for one platform is copied"));
        }
        (_, false) | (None, true) => None,
    };
    let mut parts = match (&index, platform) {
        (Some(_), _) => shipment.parts,
        (None, None) => vec![Shipment::own(shipment.parts, &shipment.image, engine)?],
        (None, Some(platform)) => vec![for_platform(shipment.parts, platform, text)?],
    };
    let mut documents = HashMap::new();
    let mut sent = Vec::new();
    for part in &mut parts {
        let manifest = settle(engine, part, job)?;
        documents.insert(manifest.digest, part.raw.clone().expect("it was just settled"));
        sent.push(manifest);
    }
    let top = match index {
        Some((index, raw)) => push::renewed(index, raw, &parts, &sent),
        None => {
            let own = sent.remove(0);
            let raw = documents[&own.digest].clone();
            (own, raw)
        }
    };
    let place = format!("the store's `{text}`");
    Ok(Kept { engine, job: job.clone(), registry: registry.clone(), place, top, parts, documents })
}

fn for_platform(parts: Vec<Part>, platform: &Platform, text: &str) -> Result<Part> {
    let wanted = platform.normal();
    let here: Vec<String> = parts.iter().map(|part| part.image.platform.clone()).collect();
    let fits = |part: &Part| part.image.platform.parse::<Platform>().is_ok_and(|own| own.normal() == wanted);
    parts.into_iter().find(fits).ok_or_else(|| {
        Error::not_found(format!("the image for {platform} of `{text}` is not here"))
            .hint(format!("here is {}", here.join(", ")))
    })
}

/// Its layers are blobs that others can be given, and its manifest names them.
pub(in crate::verb) fn settle(engine: &Engine, part: &mut Part, job: &Job) -> Result<Descriptor> {
    if let Some(form) = push::form(part, None, None) {
        let numbers: Vec<usize> = (0..part.stack.layers().len()).collect();
        let made = Mutex::new(HashMap::new());
        let stop = AtomicBool::new(false);
        let stack = &part.stack;
        let one = |n: &usize| {
            let diff_id = stack.layers()[*n].diff_id;
            let known = form.candidates(engine, &diff_id)?;
            let mut here = None;
            for blob in known {
                if here.is_none() && engine.blobs.contains(&blob.digest)? {
                    here = Some(blob);
                }
            }
            let blob = match here {
                Some(blob) => blob,
                None => output::compress(engine, stack, *n, &form, &diff_id.short(), job)
                    .context(|| format!("compressing layer {}", diff_id.short()))?,
            };
            made.lock().unwrap_or_else(PoisonError::into_inner).insert(*n, blob);
            Ok(())
        };
        transfer::side_by_side(job, &numbers, &stop, one)?;
        let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        part.manifest.layers = numbers.iter().map(|n| made.remove(n).expect("each was made")).collect();
        part.manifest.config.media_type = form.config();
        part.manifest.media_type = Some(form.manifest());
        part.raw = Some(part.manifest.to_bytes());
    }
    let raw = part.raw.as_ref().expect("made above, or as it came");
    Ok(Descriptor::of(part.manifest.media_type(), raw))
}

impl<'e> Kept<'e> {
    /// With the manifest that it has.
    pub(in crate::verb) fn of(
        engine: &'e Engine,
        mut part: Part,
        registry: &registry::Options,
        job: &Job,
    ) -> Result<Kept<'e>> {
        let raw = part.raw.get_or_insert_with(|| part.manifest.to_bytes()).clone();
        let top = (Descriptor::of(part.manifest.media_type(), &raw), raw);
        let documents = [(top.0.digest, top.1.clone())].into();
        let (registry, place, parts) = (registry.clone(), "the store".into(), vec![part]);
        Ok(Kept { engine, job: job.clone(), registry, place, top, parts, documents })
    }

    /// Bytes that the store does not keep are made again, into a file of theirs.
    fn again(&self, wanted: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let place = self.parts.iter().find_map(|part| {
            let n = part.manifest.layers.iter().position(|layer| layer.digest == wanted.digest)?;
            Some((part, n))
        });
        let absent = || Error::not_found(format!("the store has no blob {}", wanted.digest));
        let (part, n) = place.ok_or_else(absent)?;
        let replay = |out: &mut dyn io::Write| rootfs::replay(self.engine, &part.stack, n, out, &self.job);
        match wanted.media_type.compression() {
            None | Some(Compression::None) => {
                let mut file = self.engine.unnamed_file()?;
                replay(&mut file)?;
                file.rewind().context(|| "reading a layer that was made again")?;
                Ok(Box::new(FilePart::of(&file, 0, wanted.size).context(|| "reading a layer")?))
            }
            Some(_) => {
                save::bring_back(self.engine, part, n, &self.registry, &self.job)?;
                Ok(Box::new(self.engine.blobs.read(&wanted.digest)?))
            }
        }
    }
}

impl Source for Kept<'_> {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn resolve(&self, _: &Job, _: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        Ok(self.top.clone())
    }

    fn manifest(&self, _: &Job, _: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        match self.documents.get(&wanted.digest) {
            Some(raw) => Ok(raw.clone()),
            None => self.engine.blobs.read_all(&wanted.digest, MAX_MANIFEST),
        }
    }

    fn blob<'a>(
        &'a self,
        _: &'a Job,
        _: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        let mut bytes: Box<dyn Read + Send> = match self.engine.blobs.is_here(&wanted.digest)? {
            true => Box::new(self.engine.blobs.read(&wanted.digest)?),
            false => self.again(wanted)?,
        };
        io::copy(&mut bytes.by_ref().take(offset), &mut io::sink()).context(|| "reading a blob")?;
        Ok(bytes)
    }
}
