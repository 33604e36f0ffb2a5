//! An image in a directory as containers/image has it (its docs, containers-transports(5), "dir:"): `version`,
//! `manifest.json`, and each blob in a file named by its digest's hex digits. Manifests of an index are
//! `HEX.manifest.json`. Nothing is converted: whatever a manifest says stays.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::layout::{blob_file, by_digest, regular, small_file};
use super::making::{self, Making};
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Document, Reference};
use crate::job::Job;
use crate::transfer::{Counted, Fill, Source};

const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

/// One that is there.
pub struct FlatDir {
    dir: PathBuf,
}

impl FlatDir {
    /// Whether this directory is one, and no layout.
    pub fn is(dir: &Path) -> bool {
        dir.join("version").is_file()
            && dir.join("manifest.json").is_file()
            && !dir.join("oci-layout").exists()
    }

    pub fn open(dir: &Path) -> Result<Self> {
        regular(&dir.join("manifest.json"))?;
        Ok(FlatDir { dir: dir.to_owned() })
    }

    /// What it holds.
    pub fn top(&self) -> Result<Descriptor> {
        let raw = small_file(&self.dir.join("manifest.json"))?;
        Ok(Descriptor::of(Document::parse(&raw, None)?.media_type(), &raw))
    }
}

impl Source for FlatDir {
    fn place(&self) -> String {
        format!("the directory {}", self.dir.display())
    }

    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        by_digest(self, job, name)
    }

    fn manifest(&self, _: &Job, _: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        let top = small_file(&self.dir.join("manifest.json"))?;
        if Digest::of(&top) == wanted.digest {
            return Ok(top);
        }
        small_file(&self.dir.join(format!("{}.manifest.json", wanted.digest.hex())))
    }

    fn blob<'a>(
        &'a self,
        _: &'a Job,
        _: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        blob_file(&self.dir.join(wanted.digest.hex()), wanted, offset)
    }
}

/// One in the making: a directory that was not there, or was empty, or holds all but `manifest.json`, which comes
/// last: a copy that was killed leaves some of it.
pub struct NewFlatDir {
    dir: PathBuf,
}

impl NewFlatDir {
    pub fn make(dir: &Path) -> Result<Self> {
        let doing = || format!("making the directory {}", dir.display());
        fs::create_dir_all(dir).context(doing)?;
        making::sweep(dir);
        for entry in fs::read_dir(dir).context(doing)? {
            let name = entry.context(doing)?.file_name();
            let name = name.to_str().unwrap_or_default();
            let hex = name.strip_suffix(".manifest.json").unwrap_or(name);
            if name != "version" && Digest::from_hex(hex).is_none() {
                return Err(Error::conflict(format!("the directory {} is not empty", dir.display()))
                    .hint("name one that is empty, or none; it is made"));
            }
        }
        Ok(NewFlatDir { dir: dir.to_owned() })
    }

    pub fn put(&self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        self.write(&blob.digest.hex(), &mut |out| {
            let mut counted = Counted::new(out, blob.size);
            fill(&mut counted)?;
            counted.finish(blob)
        })
    }

    /// A manifest of the index.
    pub fn document(&self, document: &Descriptor, raw: &[u8]) -> Result<()> {
        let name = format!("{}.manifest.json", document.digest.hex());
        self.write(&name, &mut |out| out.write_all(raw).context(|| "writing a manifest"))
    }

    pub fn finish(&self, top: &[u8]) -> Result<()> {
        self.write("version", &mut |out| out.write_all(VERSION).context(|| "writing `version`"))?;
        self.write("manifest.json", &mut |out| out.write_all(top).context(|| "writing a manifest"))
    }

    fn write(&self, name: &str, fill: &mut Fill<'_>) -> Result<()> {
        let path = self.dir.join(name);
        let mut making = Making::of(&path)?;
        fill(making.file()).context(|| format!("writing {}", path.display()))?;
        making.finish()
    }
}
