//! Writing OCI layouts (image-spec image-layout.md), in a directory or in a tar; with `manifest.json` beside, the tar is
//! also what `docker load` reads (moby, image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format").
//!
//! The blobs are whatever the list at the end leads to: what stands beside images, such as attestations, goes the same way.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::Serialize;

use super::making::{self, Making};
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Hasher, Index, MAX_MANIFEST, Reference};
use crate::layer::plain_header;
use crate::transfer::{Counted, Fill, Sink};

/// The full name of an image, as containerd writes it.
pub const NAME: &str = "io.containerd.image.name";
/// Its tag (image-spec annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const BLOBS: &str = "blobs/sha256";
const BLOCK: usize = 512;

/// An entry of `index.json`: an image or an index, under a name or none.
pub type Listed = Descriptor;

/// The entry under what stands for a name in a layout: a tag, or whatever else was asked for.
pub fn tagged(mut entry: Descriptor, text: &str) -> Listed {
    entry.annotations.insert(REF_NAME.into(), text.into());
    entry
}

/// The entry under this name.
pub fn named(mut entry: Descriptor, name: &Reference) -> Listed {
    entry.annotations.insert(NAME.into(), name.to_string());
    if let Some(tag) = name.tag() {
        entry.annotations.insert(REF_NAME.into(), tag.into());
    }
    entry
}

/// An entry of `manifest.json`. Its blobs are in the layout.
#[derive(Clone, Debug)]
pub struct DockerImage {
    pub config: Digest,
    pub names: Vec<Reference>,
    /// Bottom first.
    pub layers: Vec<Digest>,
}

fn index_json(list: Vec<Listed>) -> Vec<u8> {
    Index::new(list).to_bytes()
}

fn manifest_json(images: &[DockerImage]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let entry = |image: &DockerImage| Entry {
        config: blob_name(&image.config),
        repo_tags: image.names.iter().map(Reference::familiar).collect(),
        layers: image.layers.iter().map(blob_name).collect(),
    };
    let entries: Vec<Entry> = images.iter().map(entry).collect();
    serde_json::to_vec(&entries).expect("it is plain data")
}

fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// A layout as a tar, in one pass. The same blobs in the same order make the same bytes.
pub struct LayoutTar<W: Write> {
    out: W,
    written: BTreeSet<Digest>,
}

impl<W: Write> LayoutTar<W> {
    pub fn new(out: W) -> Result<Self> {
        let mut tar = LayoutTar { out, written: BTreeSet::new() };
        for dir in ["blobs/", "blobs/sha256/"] {
            tar.put(&plain_header(dir, None)?)?;
        }
        Ok(tar)
    }

    /// `docker`: what `docker load` is to find; nothing for a layout alone.
    pub fn finish(mut self, list: Vec<Listed>, docker: &[DockerImage]) -> Result<W> {
        self.file("index.json", &index_json(list))?;
        if !docker.is_empty() {
            self.file("manifest.json", &manifest_json(docker))?;
        }
        self.file("oci-layout", MARKER)?;
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush().context(|| WRITING)?;
        Ok(self.out)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put(&plain_header(name, Some(bytes.len() as u64))?)?;
        self.put(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64).expect("below a block");
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context(|| WRITING)
    }
}

const WRITING: &str = "writing the archive";

impl<W: Write> Sink for LayoutTar<W> {
    fn blob(&mut self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        if !self.written.insert(blob.digest) {
            return Ok(());
        }
        self.put(&plain_header(&blob_name(&blob.digest), Some(blob.size))?)?;
        let mut counted = Counted::new(&mut self.out, blob.size);
        fill(&mut counted)?;
        counted.finish(blob)?;
        self.pad(blob.size)
    }
}

/// A layout in a directory, made if need be; one that is there is added to. Every file appears when it is whole, and
/// `index.json`, which names them, last. What somebody who died had not finished goes when it is opened.
pub struct LayoutDir {
    dir: PathBuf,
}

impl LayoutDir {
    pub fn open(dir: &Path) -> Result<Self> {
        let layout = LayoutDir { dir: dir.to_owned() };
        let blobs = dir.join(BLOBS);
        fs::create_dir_all(&blobs).context(|| format!("making the directory {}", blobs.display()))?;
        making::sweep(dir);
        making::sweep(&blobs);
        layout.write("oci-layout", &mut |out| out.write_all(MARKER).context(|| WRITING))?;
        Ok(layout)
    }

    /// Takes a blob, as [`Sink::blob`]; of many threads, each another one.
    pub fn put(&self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        let mut checked = |out: &mut dyn Write| {
            let mut counted = Counted::new(out, blob.size);
            fill(&mut counted)?;
            counted.finish(blob)
        };
        self.write(&blob_name(&blob.digest), &mut checked)
    }

    /// Whether the blob is there, whole: its bytes are read.
    pub fn holds(&self, blob: &Descriptor) -> Result<bool> {
        let path = self.dir.join(blob_name(&blob.digest));
        if !self.has(blob) {
            return Ok(false);
        }
        let mut hasher = Hasher::new();
        let doing = || format!("reading {}", path.display());
        std::io::copy(&mut File::open(&path).context(doing)?, &mut HashOnly(&mut hasher)).context(doing)?;
        Ok(hasher.finish() == blob.digest)
    }

    /// Whether a file of this digest and size is there.
    pub fn has(&self, blob: &Descriptor) -> bool {
        let path = self.dir.join(blob_name(&blob.digest));
        fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == blob.size)
    }

    /// A name goes from what had it to what has it now; entries without a name stay, and stand once. Where an entry has
    /// a tag and no name, the tag is its name.
    pub fn finish(self, list: Vec<Listed>) -> Result<()> {
        let _turn = self.lock()?;
        let mut entries = self.entries()?;
        for new in list {
            let is_named = new.annotations.contains_key(NAME);
            let tag = |entry: &Descriptor| match entry.annotations.contains_key(NAME) {
                true => None,
                false => entry.annotations.get(REF_NAME).cloned(),
            };
            let name = |entry: &Descriptor| match is_named {
                true => entry.annotations.get(NAME).cloned(),
                false => tag(entry),
            };
            entries.retain(|old| match name(&new) {
                Some(taken) => name(old).as_ref() != Some(&taken),
                None => old.digest != new.digest || name(old).is_some(),
            });
            // A tag alone is what others look for: it means one.
            if let Some(taken) = tag(&new) {
                let has_it = |old: &&mut Descriptor| old.annotations.get(REF_NAME) == Some(&taken);
                for old in entries.iter_mut().filter(has_it) {
                    old.annotations.remove(REF_NAME);
                }
            }
            entries.push(new);
        }
        let json = index_json(entries);
        self.write("index.json", &mut |out| out.write_all(&json).context(|| WRITING))
    }

    fn entries(&self) -> Result<Vec<Descriptor>> {
        let path = self.dir.join("index.json");
        let doing = || format!("reading {}", path.display());
        let size = match fs::metadata(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found.context(doing)?.len(),
        };
        if size > MAX_MANIFEST {
            return Err(Error::invalid(format!("{} is too large for an index", path.display())));
        }
        Ok(Index::parse(&fs::read(&path).context(doing)?).context(doing)?.manifests)
    }

    /// In one piece.
    fn write(&self, name: &str, fill: &mut Fill<'_>) -> Result<()> {
        let path = self.dir.join(name);
        let mut making = Making::of(&path)?;
        fill(making.file()).context(|| format!("writing {}", path.display()))?;
        making.finish()
    }

    /// Others that add to the list wait until it is dropped. Where a directory cannot be locked (NFS) they do not.
    fn lock(&self) -> Result<File> {
        let doing = || format!("opening {}", self.dir.display());
        let dir = File::open(&self.dir).context(doing)?;
        let lock = || rustix::fs::flock(&dir, FlockOperation::LockExclusive);
        match rustix::io::retry_on_intr(lock) {
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(dir),
            Err(cause) => Err(cause).context(|| format!("locking {}", self.dir.display())),
        }
    }
}

impl Sink for LayoutDir {
    fn blob(&mut self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        self.put(blob, fill)
    }
}

struct HashOnly<'h>(&'h mut Hasher);

impl Write for HashOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
