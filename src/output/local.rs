//! `type=local`: the image's files in a directory.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use super::fields::Fields;
use super::progress::{self, Work};
use super::{Entry, Image, Output, Product, Written, files};
use crate::error::{Context as _, Error, Kind, Result};
use crate::layer::{self, Form, Row, RowSink};
use crate::sys::{dir, tree};

pub(super) const ENTRY: Entry = Entry { name: "local", read };

#[derive(Debug)]
struct Local {
    dir: PathBuf,
    /// A directory for each platform; `None`: where there are several.
    split: Option<bool>,
    /// `mode=delete`: what is there and not in the result goes.
    delete: bool,
}

fn read(mut fields: Fields) -> Result<Box<dyn Output>> {
    let dir = fields.take("dest").filter(|dest| !dest.is_empty());
    let split = fields.flag("platform-split")?;
    let delete = match fields.take("mode").as_deref() {
        None | Some("" | "copy") => false,
        Some("delete") => true,
        Some(other) => return Err(fields.wrong("mode", other, "copy or delete")),
    };
    fields.refuse(&["attestation-prefix"])?;
    fields.finish()?;
    let Some(dir) = dir else {
        return Err(Error::invalid("the output type=local has no destination").hint("add dest=DIRECTORY"));
    };
    Ok(Box::new(Local { dir: dir.into(), split, delete }))
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

    fn deletes(&self) -> Option<&Path> {
        self.delete.then_some(&*self.dir)
    }

    fn write(&self, product: &Product<'_>) -> Result<Written> {
        let total = progress::layers_size(product);
        let work = Work::start(product.job, format!("Writing {}", self.describe()), Some(total));
        let mut kept = Kept::default();
        for image in product.images {
            let dir = match product.index && self.split != Some(false) {
                true => self.dir.join(files::directory(image)),
                false => self.dir.clone(),
            };
            kept.enter(product.index && self.split != Some(false), image);
            unpack(product, image, &dir, &mut kept, &work)
                .context(|| format!("writing `{}`", dir.display()))?;
        }
        if self.delete {
            kept.delete_others(&self.dir)
                .context(|| format!("deleting in `{}` what is not in the result", self.dir.display()))?;
        }
        Ok(Written::default())
    }
}

/// The paths that the result has.
#[derive(Default)]
struct Kept {
    /// The directory of the image that is written, with a slash; or empty.
    below: Vec<u8>,
    paths: HashSet<Vec<u8>>,
}

impl Kept {
    fn enter(&mut self, split: bool, image: &Image) {
        self.below.clear();
        if split {
            self.below = files::directory(image).into_bytes();
            self.paths.insert(self.below.clone());
            self.below.push(b'/');
        }
    }

    fn delete_others(&self, dir: &Path) -> Result<()> {
        let root = crate::sys::dir::open_path(dir).context(|| "opening it")?;
        self.delete_below(root.as_fd(), &mut Vec::new())
    }

    /// No link is followed: what is no directory itself is not looked into.
    fn delete_below(&self, dir: BorrowedFd<'_>, path: &mut Vec<u8>) -> Result<()> {
        let here = |path: &[u8]| format!("looking at `{}`", path.escape_ascii());
        let open = dir::open_dir(dir, c".").context(|| here(path))?;
        for name in dir::names(open.as_fd()).context(|| here(path))? {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if !self.paths.contains(&path[..]) {
                tree::remove(open.as_fd(), &name)
                    .context(|| format!("deleting `{}`", path.escape_ascii()))?;
            } else if let Ok(inner) = dir::open_dir(open.as_fd(), &name) {
                self.delete_below(inner.as_fd(), path)?;
            }
            path.truncate(length);
        }
        Ok(())
    }
}

impl RowSink for Kept {
    fn row(&mut self, row: Row) -> Result<()> {
        self.paths.insert([&self.below[..], &row.path].concat());
        Ok(())
    }
    fn forget(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// What is there already and not in the image stays.
fn unpack(product: &Product<'_>, image: &Image, dir: &Path, kept: &mut Kept, work: &Work<'_>) -> Result<()> {
    fs::create_dir_all(dir).context(|| format!("making the directory `{}`", dir.display()))?;
    let tree = crate::sys::dir::open_path(dir).context(|| format!("opening `{}`", dir.display()))?;
    let (mut reader, mut writer) = std::io::pipe().context(|| "making a pipe")?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || files::write(product, image, None, &mut writer, work));
        let recipe = &mut std::io::sink();
        let applied = layer::apply(product.job, &mut reader, tree.as_fd(), Form::Whole, kept, recipe);
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
