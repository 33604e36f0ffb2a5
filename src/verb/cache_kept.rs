//! What the build cache keeps besides its records: directories of `RUN --mount=type=cache`, files of the web, git
//! repositories.

use crate::build::mounts::caches::{self, Place};
use crate::context::kept::{self, Fetched, Origin};
use crate::db::Time;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::verb::cache::Kind;
use crate::verb::disk_usage::tree_bytes;

#[derive(Clone, Debug)]
pub struct Kept {
    pub kind: Kind,
    pub name: String,
    /// The id of a cache, or where it came from.
    pub description: String,
    pub bytes: u64,
    pub made_at: Time,
    pub used_at: Time,
    /// A build has it now.
    pub in_use: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Place(Place),
    Fetched(Fetched),
}

/// The least recently used first.
pub fn list(engine: &Engine) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for place in caches::list(engine)? {
        all.push(Kept {
            kind: Kind::CacheMount,
            name: place.name(),
            description: place.identity.shown().to_owned(),
            bytes: tree_bytes(&place.data())?,
            made_at: place.made_at,
            used_at: place.used_at,
            in_use: place.in_use(engine)?,
            what: What::Place(place),
        });
    }
    for fetched in kept::list(engine)? {
        all.push(Kept {
            kind: match fetched.origin {
                Origin::Web => Kind::Http,
                Origin::Git => Kind::GitCheckout,
            },
            name: fetched.name(),
            description: fetched.addresses.join(" "),
            bytes: fetched.bytes,
            made_at: fetched.made_at,
            used_at: fetched.used_at,
            in_use: fetched.in_use(engine)?,
            what: What::Fetched(fetched),
        });
    }
    all.sort_by(|a, b| (a.used_at, &a.name).cmp(&(b.used_at, &b.name)));
    Ok(all)
}

/// By name, or its beginning, six digits at least.
pub fn find(engine: &Engine, name: &str) -> Result<Option<Kept>> {
    let mut all = list(engine)?;
    if let Some(at) = all.iter().position(|one| one.name == name) {
        return Ok(Some(all.swap_remove(at)));
    }
    let mut fitting = all.into_iter().filter(|one| name.len() >= 6 && one.name.starts_with(name));
    match (fitting.next(), fitting.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(Error::conflict(format!("several things in the cache begin with `{name}`"))
            .hint("name one in full, as `outcrop cache ls` shows it")),
    }
}

impl Kept {
    /// False: it is in use, or gone.
    pub fn remove(&self, engine: &Engine) -> Result<bool> {
        match &self.what {
            What::Place(place) => place.remove(engine),
            What::Fetched(fetched) => fetched.remove(engine),
        }
    }
}

/// Removes those of `going` that nobody uses now: their names, and the bytes that become free.
pub(super) fn remove<'k>(
    engine: &Engine,
    going: impl IntoIterator<Item = &'k Kept>,
) -> Result<(Vec<String>, u64)> {
    let (mut names, mut freed) = (Vec::new(), 0);
    for one in going {
        if one.remove(engine)? {
            names.push(one.name.clone());
            freed += one.bytes;
        }
    }
    Ok((names, freed))
}
