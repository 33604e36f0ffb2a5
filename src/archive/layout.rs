//! The OCI image layout (image-spec image-layout.md): `oci-layout`, `index.json` and `blobs/<algorithm>/<hex>`.
//!
//! A name means the entry of `index.json` that
//! 1. has its digest, where the name holds one (or any manifest of the layout with that digest);
//! 2. is annotated with that name in full (`io.containerd.image.name`, `org.opencontainers.image.ref.name`);
//! 3. is annotated with its tag, as skopeo and umoci write it;
//! 4. is alone and has no name.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;

use super::entries::{self, names_of};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Descriptor, Digest, Document, Index, MAX_MANIFEST, MediaType, Reference};
use crate::job::Job;
use crate::sys::part::Part;
use crate::transfer::Source;

/// A layout on disk. What it holds is read when asked for: it may be written to meanwhile.
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// `NotFound` or `Invalid` when the directory holds no layout of a version known here.
    pub fn open(dir: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let layout = Layout { dir: dir.to_owned() };
        let raw = small_file(&dir.join("oci-layout")).map_err(|error| {
            let hint = "a layout is a directory with `oci-layout`, `index.json` and `blobs`";
            if error.kind() == Kind::NotFound { error.hint(hint) } else { error }
        })?;
        let marker: Marker = serde_json::from_slice(&raw)
            .context(|| format!("reading {}", dir.join("oci-layout").display()))?;
        if marker.image_layout_version.split('.').next() != Some("1") {
            return Err(Error::unsupported(format!(
                "{} has version `{}`; only 1 is known",
                layout.place(),
                marker.image_layout_version
            )));
        }
        Ok(layout)
    }

    /// The entries of `index.json`, in its order.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        let path = self.dir.join("index.json");
        let raw = small_file(&path)?;
        Ok(Index::parse(&raw).context(|| format!("reading {}", path.display()))?.manifests)
    }

    /// What there is to load, each once.
    pub fn images(&self) -> Result<Vec<super::Image>> {
        let mut images: Vec<super::Image> = Vec::new();
        for entry in self.entries()?.into_iter().filter(entries::is_image) {
            // A tag alone is no name.
            let full = names_of(&entry).find(|text| text.contains(['/', ':']));
            let name: Option<Reference> = full.and_then(|text| text.parse().ok());
            match images.iter_mut().find(|known| known.digest == entry.digest) {
                Some(known) => known.names.extend(name),
                None => images.push(super::Image {
                    digest: entry.digest,
                    names: name.into_iter().collect(),
                    is_own: true,
                }),
            }
        }
        Ok(images)
    }

    /// What is copied under this name, its tag or digest; without one, the only image of the layout.
    pub fn find(&self, text: Option<&str>) -> Result<Descriptor> {
        entries::choose(&self.entries()?, text, &self.place())
    }

    fn entry(&self, name: &Reference) -> Result<Descriptor> {
        let entries = self.entries()?;
        if let Some(digest) = name.digest() {
            return match entries.into_iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Ok(entry),
                None => self.unlisted(digest),
            };
        }
        let named = |entry: &&Descriptor| {
            names_of(entry).any(|text| text.parse().is_ok_and(|n: Reference| n == *name))
        };
        let tagged = |entry: &&Descriptor| names_of(entry).any(|text| Some(text) == name.tag());
        let found =
            [entries.iter().filter(named).collect::<Vec<_>>(), entries.iter().filter(tagged).collect()];
        match found.iter().find(|found| !found.is_empty()).map(Vec::as_slice) {
            Some([one]) => Ok((*one).clone()),
            Some(many) => Err(Error::conflict(format!(
                "`{}` names {} images in {}",
                name.familiar(),
                many.len(),
                self.place()
            ))
            .hint("name one by its digest: NAME@sha256:...")),
            None => match entries.iter().filter(|entry| entries::is_image(entry)).collect::<Vec<_>>()[..] {
                [one] if names_of(one).next().is_none() => Ok(one.clone()),
                _ => Err(self.absent(name, &entries)),
            },
        }
    }

    /// A manifest that an index of the layout lists, or nothing does.
    fn unlisted(&self, digest: &Digest) -> Result<Descriptor> {
        let raw = small_file(&self.blob_path(digest))?;
        Ok(Descriptor::of(Document::parse(&raw, None)?.media_type(), &raw))
    }

    fn absent(&self, name: &Reference, entries: &[Descriptor]) -> Error {
        let names: Vec<&str> = entries.iter().flat_map(|entry| names_of(entry).take(1)).collect();
        let error = Error::not_found(format!("{} does not have `{}`", self.place(), name.familiar()));
        if names.is_empty() { error } else { error.hint(format!("it has {}", names.join(", "))) }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }
}

/// A document, all of it.
pub(super) fn small_file(path: &Path) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    let (file, size) = regular(path)?;
    if size > MAX_MANIFEST {
        return Err(Error::invalid(format!("{} has {size} bytes", path.display())));
    }
    file.take(MAX_MANIFEST).read_to_end(&mut raw).context(|| format!("reading {}", path.display()))?;
    Ok(raw)
}

/// A file and its size. Opening a fifo that somebody put there must not block.
/// A blob in a file of its own, from `offset` on.
pub(super) fn blob_file(
    path: &Path,
    wanted: &Descriptor,
    offset: u64,
) -> Result<Box<dyn Read + Send + 'static>> {
    let (file, size) = regular(path)?;
    if size != wanted.size {
        return Err(Error::corrupt(format!(
            "{} has {size} bytes; its descriptor says {}",
            path.display(),
            wanted.size
        )));
    }
    let part = Part::of(&file, offset, size).context(|| format!("reading {}", path.display()))?;
    Ok(Box::new(part))
}

/// What a source without names is asked for: a manifest by its digest.
pub(super) fn by_digest(source: &dyn Source, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
    let digest =
        name.digest().ok_or_else(|| Error::internal(format!("{} is asked for a name", source.place())))?;
    let wanted = Descriptor::new(MediaType::Other(String::new()), *digest, 0);
    let raw = source.manifest(job, name, &wanted)?;
    let media_type = Document::parse(&raw, None)?.media_type();
    Ok((Descriptor::of(media_type, &raw), raw))
}

pub(super) fn regular(path: &Path) -> Result<(File, u64)> {
    let doing = || format!("opening {}", path.display());
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).expect("open's flags fit its own argument");
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).context(doing)?;
    let metadata = file.metadata().context(doing)?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{} is not a regular file", path.display())));
    }
    Ok((file, metadata.len()))
}

impl Source for Layout {
    fn place(&self) -> String {
        format!("the OCI layout {}", self.dir.display())
    }

    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        let entry = self.entry(name)?;
        let raw = self.manifest(job, name, &entry)?;
        entry.verify(&raw)?;
        Ok((Descriptor::of(entry.media_type, &raw), raw))
    }

    fn manifest(&self, _: &Job, _: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        small_file(&self.blob_path(&wanted.digest))
    }

    fn blob<'a>(
        &'a self,
        _: &'a Job,
        _: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        blob_file(&self.blob_path(&wanted.digest), wanted, offset)
    }

    fn tagged(&self, job: &Job, name: &Reference, tag: &str) -> Result<Option<(Descriptor, Vec<u8>)>> {
        let Some(entry) = entries::tagged(&self.entries()?, tag) else { return Ok(None) };
        let raw = self.manifest(job, name, &entry)?;
        Ok(Some((Descriptor::of(entry.media_type, &raw), raw)))
    }

    fn referrers(&self, _: &Job, _: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let read = |entry: &Descriptor| match small_file(&self.blob_path(&entry.digest)) {
            Err(absent) if absent.kind() == Kind::NotFound => Ok(None),
            raw => raw.map(Some),
        };
        entries::referrers(&self.entries()?, subject, read)
    }
}
