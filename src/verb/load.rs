//! `load`: images from archives and layouts, under the names that these say, with the manifests that they came with.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::Path;

use super::pull;
use crate::archive::{self, FlatDir, Layout, Tar};
use crate::db::Origin;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{ImageId, Platform, Reference};
use crate::job::Job;
use crate::layer::compress;
use crate::transfer::{self, Source};

/// An image that is here now.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub image: ImageId,
    pub names: Vec<Reference>,
}

/// Told of each image once it is here: those before one that fails stay.
pub type Told<'t> = &'t mut dyn FnMut(Loaded);

/// An archive, compressed in whatever way, or a layout in a directory.
pub fn load_path(engine: &Engine, path: &Path, platform: &Platform, told: Told<'_>, job: &Job) -> Result<()> {
    let doing = || format!("opening `{}`", path.display());
    if std::fs::metadata(path).context(doing)?.is_dir() {
        if FlatDir::is(path) {
            let flat = FlatDir::open(path)?;
            let image = archive::Image { digest: flat.top()?.digest, names: Vec::new(), is_own: true };
            return load_all(engine, &flat, &[image], platform, told, job);
        }
        let layout = Layout::open(path)?;
        let images = layout.images()?;
        return load_all(engine, &layout, &images, platform, told, job);
    }
    load(engine, File::open(path).context(doing)?, platform, told, job)
}

/// The same from a stream.
pub fn load(engine: &Engine, input: File, platform: &Platform, told: Told<'_>, job: &Job) -> Result<()> {
    let tar = Tar::open(plain(engine, input, job)?, job)?;
    load_all(engine, &tar, tar.images(), platform, told, job)
}

/// A file that can be read anywhere, and is not compressed.
fn plain(engine: &Engine, mut input: File, job: &Job) -> Result<File> {
    let doing = || "reading the archive";
    if input.stream_position().is_ok() && input.metadata().context(doing)?.is_file() {
        let mut head = [0; 6];
        let count = (&input).take(6).read(&mut head).context(doing)?;
        input.seek(SeekFrom::Start(0)).context(doing)?;
        if is_plain(&head[..count])? {
            return Ok(input);
        }
    }
    decoded(input, engine.unnamed_file()?, job)
}

/// Of a file's first bytes.
pub(super) fn is_plain(head: &[u8]) -> Result<bool> {
    Ok(compress::detect(head)?.name() == "none")
}

/// All of it in `whole`, not compressed.
pub(super) fn decoded(input: File, mut whole: File, job: &Job) -> Result<File> {
    let doing = || "reading the archive";
    let mut decoded = compress::decoder(Box::new(input))?.1;
    let mut buffer = vec![0; 128 << 10];
    loop {
        job.check()?;
        match decoded.read(&mut buffer).context(doing)? {
            0 => break,
            count => {
                std::io::Write::write_all(&mut whole, &buffer[..count]).context(|| "keeping the archive")?
            }
        }
    }
    whole.seek(SeekFrom::Start(0)).context(doing)?;
    Ok(whole)
}

fn load_all(
    engine: &Engine,
    source: &dyn Source,
    images: &[archive::Image],
    platform: &Platform,
    told: Told<'_>,
    job: &Job,
) -> Result<()> {
    if images.is_empty() {
        return Err(Error::not_found(format!("there is no image in {}", source.place())));
    }
    for image in images {
        let any: Reference = "archive/image".parse::<Reference>()?.with_digest(image.digest);
        let found = transfer::find(job, source, &any, platform)?;
        engine.sweep_after(pull::take(
            engine,
            source,
            &found,
            &image.names,
            Origin::Loaded,
            image.is_own,
            job,
        ))?;
        told(Loaded { image: found.image, names: image.names.clone() });
    }
    engine.sweep()
}
