//! What was fetched and is kept, in `<root>/cache/web` and `<root>/cache/git`, for those who list or remove it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{git, trim, web};
use crate::db::{Time, random_name};
use crate::engine::Engine;
use crate::error::{Context as _, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Web,
    Git,
}

#[derive(Clone, Debug)]
pub struct Fetched {
    pub origin: Origin,
    /// Where it came from, as far as that was written down; without passwords.
    pub addresses: Vec<String>,
    pub bytes: u64,
    pub made_at: Time,
    pub used_at: Time,
    /// Itself, and behind it the notes about it.
    paths: Vec<PathBuf>,
}

impl Fetched {
    pub fn name(&self) -> String {
        self.file_name().chars().take(12).collect()
    }

    fn file_name(&self) -> String {
        self.paths[0].file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Files of the web are never: who reads one has a name of its own for it.
    pub fn in_use(&self, engine: &Engine) -> Result<bool> {
        match self.origin {
            Origin::Web => Ok(false),
            Origin::Git => Ok(git::lease(engine, &self.file_name())?.is_none()),
        }
    }

    /// False: it is in use, or gone.
    pub fn remove(&self, engine: &Engine) -> Result<bool> {
        let _held = match self.origin {
            Origin::Web => None,
            Origin::Git => match git::lease(engine, &self.file_name())? {
                None => return Ok(false),
                held => held,
            },
        };
        let mut gone = false;
        for (at, path) in self.paths.iter().enumerate() {
            match fs::rename(path, engine.root.join("trash").join(random_name())) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                moved => {
                    moved.context(|| format!("removing {}", path.display()))?;
                    gone |= at == 0;
                }
            }
        }
        Ok(gone)
    }
}

/// All of the store. What goes away meanwhile is left out.
pub fn list(engine: &Engine) -> Result<Vec<Fetched>> {
    let mut all = files(&engine.root.join(web::PLACE))?;
    for path in entries(&engine.root.join(git::PLACE))? {
        let address = fs::read_to_string(path.join(git::COMPLETE)).unwrap_or_default();
        let Some(used_at) = modified_at(&path) else { continue };
        all.push(Fetched {
            origin: Origin::Git,
            addresses: Some(address).filter(|address| !address.is_empty()).into_iter().collect(),
            bytes: trim::size(&path),
            made_at: modified_at(&path.join(git::COMPLETE)).unwrap_or(used_at),
            used_at,
            paths: vec![path],
        });
    }
    Ok(all)
}

/// Each with the notes that name it; a note about what is not here stands for itself.
fn files(dir: &Path) -> Result<Vec<Fetched>> {
    let (notes, bodies): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(dir)?.into_iter().partition(|path| path.extension().is_some_and(|name| name == "json"));
    let mut about: HashMap<PathBuf, Vec<(PathBuf, Option<String>)>> = HashMap::new();
    for note in notes {
        let told = web::told(&note);
        let body = told.as_ref().map(|(digest, _)| dir.join(digest.hex())).filter(|body| body.exists());
        let address = told.and_then(|(_, address)| address);
        about.entry(body.unwrap_or_else(|| note.clone())).or_default().push((note, address));
    }
    for body in bodies {
        about.entry(body).or_default();
    }
    let file = |(itself, mut notes): (PathBuf, Vec<(PathBuf, Option<String>)>)| {
        notes.sort();
        let used_at = modified_at(&itself)?;
        let made_at = notes.iter().filter_map(|(note, _)| modified_at(note)).min().unwrap_or(used_at);
        let others = notes.iter().map(|(note, _)| note.clone()).filter(|note| *note != itself);
        let paths: Vec<PathBuf> = [itself.clone()].into_iter().chain(others).collect();
        Some(Fetched {
            origin: Origin::Web,
            addresses: notes.into_iter().filter_map(|(_, address)| address).collect(),
            bytes: paths.iter().map(|path| trim::size(path)).sum(),
            made_at: made_at.min(used_at),
            used_at,
            paths,
        })
    };
    Ok(about.into_iter().filter_map(file).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("listing {}", dir.display());
    match fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.context(doing)?.map(|entry| Ok(entry.context(doing)?.path())).collect(),
    }
}

/// `None` where there is nothing, or nothing that the index could hold.
pub fn modified_at(path: &Path) -> Option<Time> {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok().map(Time)
}
