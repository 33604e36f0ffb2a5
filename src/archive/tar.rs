//! Archives of images: a tar with an OCI layout, or with what `docker save` wrote before it wrote one (moby, image/spec/spec.md,
//! "Combined Image JSON + Filesystem Changeset Format"; before 1.10 spec/v1.md), as a [`crate::transfer::Source`].
//!
//! A name means the image of its digest: [`Tar::images`] lists them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;

use super::entries;
use super::layout::by_digest;
use super::v1;
use super::write::{NAME, REF_NAME, named};
use crate::error::{Context as _, Error, Result};
use crate::image::{
    Compression, Descriptor, DiffId, Digest, Document, Hasher, ImageConfig, Index, MAX_CONFIG, MAX_MANIFEST,
    Manifest, MediaType, Reference,
};
use crate::job::Job;
use crate::sys::part::Part;
use crate::transfer::Source;

const BLOCK: u64 = 512;
/// Of members; an image has some ten.
const MOST: usize = 1 << 20;
/// Links in a row.
const MAX_LINKS: usize = 8;

/// An image, or an index, of an archive.
#[derive(Clone, Debug)]
pub struct Image {
    pub digest: Digest,
    pub names: Vec<Reference>,
    /// The archive has a manifest for it; else one was made for the reading alone.
    pub is_own: bool,
}

/// A tar that is not compressed, its members found.
pub struct Tar {
    file: File,
    members: HashMap<String, Member>,
    /// What is nowhere in the archive as it is.
    made: HashMap<Digest, Vec<u8>>,
    /// Blobs that have other names than their digests.
    blobs: HashMap<Digest, (u64, u64)>,
    images: Vec<Image>,
    /// Of `index.json`.
    listed: Vec<Descriptor>,
}

#[derive(Clone)]
enum Member {
    /// First byte and size.
    File(u64, u64),
    Link(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Tar {
    /// `file` must be seekable.
    pub fn open(file: File, job: &Job) -> Result<Tar> {
        let members = members(&file, job)?;
        let (made, blobs) = (HashMap::new(), HashMap::new());
        let mut tar = Tar { file, members, made, blobs, images: Vec::new(), listed: Vec::new() };
        let docker: Vec<Entry> = match tar.small("manifest.json", MAX_MANIFEST)? {
            Some(raw) => serde_json::from_slice(&raw).context(|| "reading the archive's manifest.json")?,
            None => Vec::new(),
        };
        if tar.members.contains_key("index.json") {
            tar.list_layout(&docker)?;
        } else if !docker.is_empty() {
            for entry in &docker {
                tar.make(entry, job)?;
            }
        } else {
            let images = v1::images(&tar, job)?;
            if images.is_empty() {
                let error =
                    Error::invalid("there is no image in the archive: neither index.json nor manifest.json");
                return Err(error.hint("`outcrop import` makes an image of the tar of a root filesystem"));
            }
            for image in images {
                tar.add(image.config, &image.layers, image.names, job)?;
            }
        }
        Ok(tar)
    }

    /// In the archive's order.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// What is copied under this name, its tag or digest; without one, the only image of the archive.
    pub fn find(&self, text: Option<&str>) -> Result<Descriptor> {
        let mut all = self.listed.clone();
        for image in &self.images {
            let raw = self.made.get(&image.digest);
            let listed = self.listed.iter().find(|entry| entry.digest == image.digest).cloned();
            let made = || raw.map(|raw| Descriptor::of(MediaType::OciManifest, raw));
            let Some(entry) = listed.or_else(made) else { continue };
            match image.names.as_slice() {
                [] if raw.is_some() => all.push(entry),
                names => all.extend(names.iter().map(|name| named(entry.clone(), name))),
            }
        }
        entries::choose(&all, text, &self.place())
    }

    /// Whether the manifest of this digest is the archive's own; else it was made for the reading alone.
    pub fn is_own(&self, digest: &Digest) -> bool {
        !self.made.contains_key(digest)
    }

    fn list_layout(&mut self, docker: &[Entry]) -> Result<()> {
        let raw = self.small("index.json", MAX_MANIFEST)?.unwrap_or_default();
        let index = Index::parse(&raw).context(|| "reading the archive's index.json")?;
        self.listed = index.manifests;
        for entry in self.listed.clone().into_iter().filter(entries::is_image) {
            let mut names = Vec::new();
            let said = entry.annotations.get(NAME).or_else(|| {
                // A tag alone is no name.
                entry.annotations.get(REF_NAME).filter(|text| text.contains(['/', ':']))
            });
            names.extend(said.and_then(|text| text.parse().ok()));
            if let Some(config) = self.config_of(&entry)? {
                let same = docker.iter().filter(|other| other.config.ends_with(&config.hex()));
                for text in same.flat_map(|other| other.repo_tags.iter().flatten()) {
                    names.extend(text.parse().ok().filter(|name| !names.contains(name)));
                }
            }
            match self.images.iter_mut().find(|known| known.digest == entry.digest) {
                Some(known) => names.into_iter().for_each(|name| {
                    if !known.names.contains(&name) {
                        known.names.push(name);
                    }
                }),
                None => self.images.push(Image { digest: entry.digest, names, is_own: true }),
            }
        }
        Ok(())
    }

    fn config_of(&self, entry: &Descriptor) -> Result<Option<Digest>> {
        let Some(raw) = self.small(&blob_name(&entry.digest), MAX_MANIFEST)? else { return Ok(None) };
        Ok(match Document::parse(&raw, None) {
            Ok(Document::Image(manifest)) => Some(manifest.config.digest),
            _ => None,
        })
    }

    /// A manifest of an image that has none.
    fn make(&mut self, entry: &Entry, job: &Job) -> Result<()> {
        let absent = |name: &str| Error::invalid(format!("the archive names `{name}` and does not hold it"));
        let raw = self.small(&entry.config, MAX_CONFIG)?.ok_or_else(|| absent(&entry.config))?;
        let config =
            ImageConfig::parse(&raw).context(|| format!("reading `{}` of the archive", entry.config))?;
        if config.rootfs.diff_ids.len() != entry.layers.len() {
            return Err(Error::invalid(format!(
                "the archive has {} layers for an image of {}",
                entry.layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in std::iter::zip(&entry.layers, config.rootfs.diff_ids) {
            let (at, size) = self.find_member(name).ok_or_else(|| absent(name))?;
            layers.push(Place { at, size, diff_id });
        }
        let names = entry.repo_tags.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        self.add(raw, &layers, names, job)
    }

    fn add(&mut self, config: Vec<u8>, places: &[Place], names: Vec<Reference>, job: &Job) -> Result<()> {
        let mut layers = Vec::new();
        for Place { at, size, diff_id } in places {
            let (at, size) = (*at, *size);
            let compression = self.compression(at, size)?;
            // A plain layer's digest is known; it is proved when it is read.
            let digest = match compression {
                Compression::None => *diff_id.digest(),
                Compression::Gzip | Compression::Zstd => hash(self.part(at, size)?, job)?,
            };
            self.blobs.insert(digest, (at, size));
            layers.push(Descriptor::new(MediaType::OciLayer(compression), digest, size));
        }
        let manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, &config), layers);
        self.made.insert(manifest.config.digest, config);
        let raw = manifest.to_bytes();
        let digest = Digest::of(&raw);
        self.made.insert(digest, raw);
        match self.images.iter_mut().find(|known| known.digest == digest) {
            Some(known) => known.names.extend(names),
            None => self.images.push(Image { digest, names, is_own: false }),
        }
        Ok(())
    }

    fn compression(&self, at: u64, size: u64) -> Result<Compression> {
        let mut head = [0; 4];
        let head = &mut head[..usize::try_from(size.min(4)).expect("it is small")];
        self.file.read_exact_at(head, at).context(|| READING)?;
        Ok(match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        })
    }

    pub(super) fn find_member(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = plain(name);
        for _ in 0..MAX_LINKS {
            match self.members.get(&name)? {
                Member::File(at, size) => return Some((*at, *size)),
                Member::Link(to) => name = to.clone(),
            }
        }
        None
    }

    pub(super) fn member_names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    pub(super) fn small(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some((at, size)) = self.find_member(name) else { return Ok(None) };
        if size > most {
            return Err(Error::invalid(format!("`{name}` of the archive has {size} bytes")));
        }
        let mut raw = vec![0; usize::try_from(size).expect("it is small")];
        self.file.read_exact_at(&mut raw, at).context(|| READING)?;
        Ok(Some(raw))
    }

    pub(super) fn part(&self, at: u64, size: u64) -> Result<Part> {
        Part::of(&self.file, at, at + size).context(|| READING)
    }

    fn blob_at(&self, digest: &Digest) -> Option<(u64, u64)> {
        self.blobs.get(digest).copied().or_else(|| self.find_member(&blob_name(digest)))
    }

    fn absent(&self, digest: &Digest) -> Error {
        Error::not_found(format!("the archive does not hold {digest}"))
            .hint("it may hold images for some platforms of an index alone; choose with --platform")
    }
}

/// A layer in the archive, compressed or not.
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) size: u64,
    pub(super) diff_id: DiffId,
}

pub(super) fn hash(mut bytes: impl Read, job: &Job) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        job.check()?;
        match bytes.read(&mut buffer).context(|| READING)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

const READING: &str = "reading the archive";

impl Source for Tar {
    fn place(&self) -> String {
        "the archive".into()
    }

    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        by_digest(self, job, name)
    }

    fn manifest(&self, _: &Job, _: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        if let Some(made) = self.made.get(&wanted.digest) {
            return Ok(made.clone());
        }
        let raw = self.small(&blob_name(&wanted.digest), MAX_MANIFEST)?;
        raw.ok_or_else(|| self.absent(&wanted.digest))
    }

    fn blob<'a>(
        &'a self,
        _: &'a Job,
        _: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        if let Some(made) = self.made.get(&wanted.digest) {
            let mut rest = io::Cursor::new(made);
            rest.set_position(offset);
            return Ok(Box::new(rest));
        }
        let (at, size) = self.blob_at(&wanted.digest).ok_or_else(|| self.absent(&wanted.digest))?;
        if size != wanted.size {
            return Err(Error::corrupt(format!(
                "{} has {size} bytes in the archive; its descriptor says {}",
                wanted.digest, wanted.size
            )));
        }
        let skipped = offset.min(size);
        Ok(Box::new(self.part(at + skipped, size - skipped)?))
    }

    fn tagged(&self, job: &Job, name: &Reference, tag: &str) -> Result<Option<(Descriptor, Vec<u8>)>> {
        let Some(entry) = entries::tagged(&self.listed, tag) else { return Ok(None) };
        let raw = self.manifest(job, name, &entry)?;
        Ok(Some((Descriptor::of(entry.media_type, &raw), raw)))
    }

    fn referrers(&self, _: &Job, _: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let read = |entry: &Descriptor| self.small(&blob_name(&entry.digest), MAX_MANIFEST);
        entries::referrers(&self.listed, subject, read)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// `./a//b/../c` as `a/c`.
fn plain(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// ustar, with the long names and sizes of GNU and pax (POSIX.1-2017, pax, "ustar Interchange Format").
fn members(file: &File, job: &Job) -> Result<HashMap<String, Member>> {
    let mut file = file.try_clone().context(|| READING)?;
    let length = file.seek(SeekFrom::End(0)).context(|| READING)?;
    let bad = |what: &str| Error::invalid(format!("this is no archive of images: {what}"));
    let mut members = HashMap::new();
    let (mut at, mut long, mut long_link, mut pax_size) = (0, None, None, None);
    while at + BLOCK <= length {
        job.check()?;
        let mut header = [0u8; 512];
        file.read_exact_at(&mut header, at).context(|| READING)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let sum: u64 =
            (0..512).map(|n| if (148..156).contains(&n) { 32 } else { u64::from(header[n]) }).sum();
        if octal(&header[148..156]) != Some(sum) {
            return Err(bad("a header has a wrong sum"));
        }
        let size =
            pax_size.take().or_else(|| octal(&header[124..136])).ok_or_else(|| bad("a size is no number"))?;
        let data = at + BLOCK;
        let next = size.checked_next_multiple_of(BLOCK).and_then(|size| data.checked_add(size));
        at = next
            .filter(|next| *next <= length || data + size <= length)
            .ok_or_else(|| bad("it was cut short"))?;
        let read = |most: u64| -> Result<Vec<u8>> {
            if size > most {
                return Err(bad("a name is too long"));
            }
            let mut bytes = vec![0; usize::try_from(size).expect("it is small")];
            file.read_exact_at(&mut bytes, data).context(|| READING)?;
            Ok(bytes)
        };
        match header[156] {
            b'L' => long = Some(text(&read(1 << 16)?)),
            b'K' => long_link = Some(text(&read(1 << 16)?)),
            b'x' => {
                for (key, value) in pax(&read(1 << 20)?) {
                    match key.as_str() {
                        "path" => long = Some(value),
                        "linkpath" => long_link = Some(value),
                        "size" => pax_size = value.parse().ok(),
                        _ => {}
                    }
                }
            }
            kind => {
                let prefix = match &header[257..263] == b"ustar\0" {
                    true => text(&header[345..500]),
                    false => String::new(),
                };
                let short = text(&header[..100]);
                let short = if prefix.is_empty() { short } else { format!("{prefix}/{short}") };
                let name = plain(&long.take().unwrap_or(short));
                let link = long_link.take().unwrap_or_else(|| text(&header[157..257]));
                let member = match kind {
                    b'0' | 0 | b'7' => Some(Member::File(data, size)),
                    b'1' => Some(Member::Link(plain(&link))),
                    b'2' => {
                        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                        Some(Member::Link(plain(&format!("{folder}/{link}"))))
                    }
                    _ => None,
                };
                if let Some(member) = member {
                    members.insert(name, member);
                }
                if members.len() > MOST {
                    return Err(bad("it has too many members"));
                }
            }
        }
    }
    Ok(members)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Octal digits, or GNU's binary form for what is large.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let bytes = field.iter().enumerate().map(|(n, byte)| if n == 0 { byte & 0x7f } else { *byte });
        return bytes.into_iter().try_fold(0u64, |sum, byte| Some(sum.checked_mul(256)? + u64::from(byte)));
    }
    let text = text(field);
    let digits = text.trim_matches(' ');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// `LENGTH KEY=VALUE\n`, one behind the other.
fn pax(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some(blank) = bytes.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&bytes[..blank]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.filter(|length| *length > blank + 1).and_then(|length| bytes.get(..length))
        else {
            break;
        };
        let pair = String::from_utf8_lossy(&record[blank + 1..record.len() - 1]).into_owned();
        found.extend(pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
        bytes = &bytes[record.len()..];
    }
    found
}
