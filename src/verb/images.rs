//! Images by what a person writes (a name, a name with a digest, an id or the beginning of one), and all of them as
//! lists show them.

use std::collections::{HashMap, HashSet};

use crate::db::{ContainerState, ImageRow, Reader, RepoDigest, Time};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{ImageConfig, ImageId, MAX_CONFIG, Reference};
use crate::verb::history;

/// The image that `text` names here. `NotFound` when there is none, `Invalid` when the beginning of an id fits several.
pub fn resolve(engine: &Engine, text: &str) -> Result<ImageRow> {
    find(engine, text)?.ok_or_else(|| missing(text))
}

/// `None` when there is none. An image that only a history shows so far is brought about.
pub fn find(engine: &Engine, text: &str) -> Result<Option<ImageRow>> {
    if let Some(named) = engine.db.read(|index| by_name(index, text))? {
        return Ok(Some(named));
    }
    let Some(hex) = id_digits(text) else { return Ok(None) };
    let mut found = engine.db.read(|index| index.images_by_prefix(hex))?;
    if found.len() > 1 {
        return Err(ambiguous(text, found.len()));
    }
    match found.pop() {
        Some(found) => Ok(Some(found)),
        None => history::find(engine, hex)?.map(|id| row(engine, &id)).transpose(),
    }
}

/// The image that has this name now.
fn by_name(index: &Reader<'_>, text: &str) -> Result<Option<ImageRow>> {
    let Ok(name) = text.parse::<Reference>() else { return Ok(None) };
    let id = match (name.tag(), name.digest()) {
        (_, Some(digest)) => index.images_of_digest(&name.name(), digest)?.first().copied(),
        (Some(_), None) => index.tag(&name.to_string())?.map(|tag| tag.image),
        (None, None) => None,
    };
    id.map_or(Ok(None), |id| index.image(&id))
}

/// The hex digits of what may be an id or the beginning of one.
pub(super) fn id_digits(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex =
        !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then_some(hex)
}

pub(super) fn missing(text: &str) -> Error {
    Error::not_found(format!("No such image: {text}"))
}

pub(super) fn ambiguous(text: &str, count: usize) -> Error {
    Error::invalid(format!("`{text}` is the beginning of {count} image ids")).hint("write more of its digits")
}

/// Of an image known to be here.
pub fn row(engine: &Engine, id: &ImageId) -> Result<ImageRow> {
    engine.db.read(|index| index.image(id))?.ok_or_else(|| missing(&id.to_string()))
}

/// The config of an image that is here, and its bytes.
pub fn config(engine: &Engine, id: &ImageId) -> Result<(ImageConfig, Vec<u8>)> {
    let say = || format!("reading the config of image {}", id.short());
    let bytes = engine.blobs.read_all(id.digest(), MAX_CONFIG).context(say)?;
    Ok((ImageConfig::parse(&bytes).context(say)?, bytes))
}

/// An image as lists show it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub row: ImageRow,
    /// As its config says; `None` where it says nothing that can be read.
    pub created: Option<Time>,
    /// In order.
    pub tags: Vec<Reference>,
    pub digests: Vec<RepoDigest>,
    /// It has no name, and another image stands on it.
    pub intermediate: bool,
    /// That use it.
    pub containers: usize,
}

impl Listed {
    /// It has no name, and no image stands on it.
    pub fn dangling(&self) -> bool {
        self.tags.is_empty() && self.digests.is_empty() && !self.intermediate
    }
}

/// All, intermediate ones too, the latest first.
pub fn list(engine: &Engine) -> Result<Vec<Listed>> {
    let (rows, tags, digests, containers) = engine
        .db
        .read(|index| Ok((index.images()?, index.tags()?, index.repo_digests()?, index.containers()?)))?;
    let parents: HashSet<ImageId> = rows.iter().filter_map(|row| row.parent).collect();
    let mut names: HashMap<ImageId, Vec<Reference>> = HashMap::new();
    for tag in tags {
        names.entry(tag.image).or_default().push(tag.name.parse()?);
    }
    let mut manifests: HashMap<ImageId, Vec<RepoDigest>> = HashMap::new();
    for digest in digests {
        manifests.entry(digest.image).or_default().push(digest);
    }
    let mut users: HashMap<ImageId, usize> = HashMap::new();
    for container in containers.into_iter().filter(|row| row.state != ContainerState::Removing) {
        *users.entry(container.image).or_default() += 1;
    }
    let listed = rows.into_iter().map(|row| {
        let tags = names.remove(&row.id).unwrap_or_default();
        let digests = manifests.remove(&row.id).unwrap_or_default();
        Listed {
            created: created(&row),
            intermediate: tags.is_empty() && digests.is_empty() && parents.contains(&row.id),
            containers: users.get(&row.id).copied().unwrap_or_default(),
            tags,
            digests,
            row,
        }
    });
    let mut listed: Vec<Listed> = listed.collect();
    // Of equal times the row that came last goes first, as it did.
    listed.sort_by_key(|image| std::cmp::Reverse(image.created));
    Ok(listed)
}

/// When the image was made, as its config says.
pub fn created(row: &ImageRow) -> Option<Time> {
    row.created.as_deref().and_then(|text| text.parse().ok())
}
