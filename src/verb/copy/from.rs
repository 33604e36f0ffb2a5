//! A place as a source, and what the image is called there.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::daemon::Daemon;
use super::storage::Helper;
use super::temp::{Temp, TempDir};
use super::{Options, Place, kept};
use crate::archive::{FlatDir, Layout, Tar};
use crate::db::Origin;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Digest, Reference};
use crate::job::Job;
use crate::registry;
use crate::transfer::Source;
use crate::verb::load;

pub(super) struct Opened<'e> {
    pub(super) source: Box<dyn Source + 'e>,
    pub(super) name: Reference,
    /// Its manifest was made for the reading: its layers are as they lay there.
    pub(super) made: bool,
    /// The name at a registry.
    pub(super) home: Option<Reference>,
    _held: Option<TempDir>,
}

impl Opened<'_> {
    pub(super) fn origin(&self) -> Origin {
        if self.home.is_some() { Origin::Pulled } else { Origin::Loaded }
    }
}

pub(super) fn open<'e>(
    engine: Option<&'e Engine>,
    from: &Place,
    options: &Options,
    job: &Job,
) -> Result<Opened<'e>> {
    let temp = Temp { dir: &options.temp };
    let opened = |source: Box<dyn Source + 'e>, digest: Digest| -> Result<Opened<'e>> {
        // What is no registry knows no names: the digest is what counts.
        let name = "place/image".parse::<Reference>()?.with_digest(digest);
        Ok(Opened { source, name, made: false, home: None, _held: None })
    };
    let of_tar = |tar: Tar, text: Option<&str>| -> Result<Opened<'e>> {
        let digest = tar.find(text)?.digest;
        let made = !tar.is_own(&digest);
        Ok(Opened { made, ..opened(Box::new(tar), digest)? })
    };
    match from {
        Place::Registry(name) => Ok(Opened {
            source: registry::source(name, &options.from)?,
            name: name.clone(),
            made: false,
            home: Some(name.clone()),
            _held: None,
        }),
        Place::Layout(dir, text) => {
            let layout = Layout::open(dir)?;
            let digest = layout.find(text.as_deref())?.digest;
            opened(Box::new(layout), digest)
        }
        Place::OciArchive(file, text) | Place::DockerArchive(file, text) => {
            of_tar(Tar::open(plain(file, &temp, job)?, job)?, text.as_deref())
        }
        Place::Flat(dir) => flat(dir, &opened),
        Place::Daemon(name) => {
            let daemon = Daemon { socket: &options.docker };
            of_tar(Tar::open(daemon.save(name, &temp, job)?, job)?, None)
        }
        Place::Storage(name) => {
            let dir = temp.directory()?;
            let image = dir.path().join("image");
            Helper::find(&options.path)?.get(name, &image, job)?;
            // What it has are its layers, not their compressed forms: those of the manifest are made for the reading.
            Ok(Opened { made: true, _held: Some(dir), ..flat(&image, &opened)? })
        }
        Place::Store(text) => {
            let engine = engine.ok_or_else(|| Error::internal("a copy from the store, without one"))?;
            let kept = kept::open(engine, text, options.all, options.platform.as_ref(), &options.from, job)?;
            let digest = kept.resolve(job, &"place/image".parse()?)?.0.digest;
            opened(Box::new(kept), digest)
        }
    }
}

fn flat<'e>(
    dir: &Path,
    opened: &impl Fn(Box<dyn Source + 'e>, Digest) -> Result<Opened<'e>>,
) -> Result<Opened<'e>> {
    let flat = FlatDir::open(dir)?;
    let digest = flat.top()?.digest;
    opened(Box::new(flat), digest)
}

/// A file that can be read anywhere, and is not compressed.
fn plain(path: &Path, temp: &Temp<'_>, job: &Job) -> Result<File> {
    let doing = || format!("opening `{}`", path.display());
    let mut file = File::open(path).context(doing)?;
    if file.metadata().context(doing)?.is_dir() {
        return Err(Error::invalid(format!("`{}` is a directory", path.display()))
            .hint("a layout in a directory is oci:DIR"));
    }
    let mut head = [0; 6];
    let count = file.by_ref().take(6).read(&mut head).context(doing)?;
    match load::is_plain(&head[..count])? && file.seek(SeekFrom::Start(0)).is_ok() {
        true => Ok(file),
        false => {
            drop(file);
            load::decoded(File::open(path).context(doing)?, temp.file()?, job)
        }
    }
}
