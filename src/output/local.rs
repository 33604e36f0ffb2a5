//! `type=local`: the image's files in a directory.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::fields::Fields;
use super::progress::{self, Work};
use super::{Entry, Image, Output, Product, Written, files};
use crate::error::{Context as _, Error, Kind, Result};
use crate::layer::{self, Form};

pub(super) const ENTRY: Entry = Entry { name: "local", read };

#[derive(Debug)]
struct Local {
    dir: PathBuf,
    /// A directory for each platform; `None`: where there are several.
    split: Option<bool>,
}

fn read(mut fields: Fields) -> Result<Box<dyn Output>> {
    let dir = fields.take("dest").filter(|dest| !dest.is_empty());
    let split = fields.flag("platform-split")?;
    match fields.take("mode").as_deref() {
        None | Some("" | "copy") => {}
        Some("delete") => {
            return Err(Error::unsupported(
                "`mode=delete` of the output type=local is not supported by this version",
            )
            .hint("write into a new directory, or empty it first"));
        }
        Some(other) => return Err(fields.wrong("mode", other, "copy")),
    }
    fields.refuse(&["attestation-prefix"])?;
    fields.finish()?;
    let Some(dir) = dir else {
        return Err(Error::invalid("the output type=local has no destination").hint("add dest=DIRECTORY"));
    };
    Ok(Box::new(Local { dir: dir.into(), split }))
}

impl Output for Local {
    fn describe(&self) -> String {
        format!("the directory `{}`", self.dir.display())
    }

    fn check(&self, _: usize) -> Result<()> {
        super::check_directory(&self.dir)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.dir)
    }

    fn write(&self, product: &Product<'_>) -> Result<Written> {
        let total = progress::layers_size(product);
        let work = Work::start(product.job, format!("Writing {}", self.describe()), Some(total));
        for image in product.images {
            let dir = match product.index && self.split != Some(false) {
                true => self.dir.join(files::directory(image)),
                false => self.dir.clone(),
            };
            unpack(product, image, &dir, &work).context(|| format!("writing `{}`", dir.display()))?;
        }
        Ok(Written::default())
    }
}

/// What is there already and not in the image stays.
fn unpack(product: &Product<'_>, image: &Image, dir: &Path, work: &Work<'_>) -> Result<()> {
    fs::create_dir_all(dir).context(|| format!("making the directory `{}`", dir.display()))?;
    let tree = crate::sys::dir::open_path(dir).context(|| format!("opening `{}`", dir.display()))?;
    let (mut reader, mut writer) = std::io::pipe().context(|| "making a pipe")?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || files::write(product, image, None, &mut writer, work));
        let (rows, recipe) = (&mut (), &mut std::io::sink());
        let applied = layer::apply(product.job, &mut reader, tree.as_fd(), Form::Whole, rows, recipe);
        // Nobody reads on: whoever writes must not wait for it.
        drop(reader);
        let read = reading.join();
        let read = read.unwrap_or_else(|_| Err(Error::internal("reading the image's files panicked")));
        match (read, applied) {
            // Who reads fails because who writes has gone.
            (_, Err(error)) if error.kind() != Kind::Invalid => Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(_)) => Ok(()),
        }
    })
}
