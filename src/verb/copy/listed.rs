//! One image that a manifest list names, to the list's registry.

use super::parcel::{Which, gather};
use super::send::{From, send as send_parcel};
use super::to_registry::ToRegistry;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Reference};
use crate::job::Job;
use crate::registry::{self, Registry};
use crate::transfer::Source;

pub(in crate::verb) struct Listed<'l> {
    pub(in crate::verb) source: &'l dyn Source,
    /// Its name at a registry, if it comes from one.
    pub(in crate::verb) home: Option<&'l Reference>,
    pub(in crate::verb) descriptor: &'l Descriptor,
    pub(in crate::verb) raw: &'l [u8],
}

/// `to`: its digest in the list's repository.
pub(in crate::verb) fn send(
    engine: &Engine,
    listed: &Listed<'_>,
    to: &Reference,
    options: &registry::Options,
    job: &Job,
) -> Result<()> {
    let at = match listed.home {
        Some(home) => home.clone(),
        None => "place/image".parse()?,
    };
    let name = at.with_digest(listed.descriptor.digest);
    let parcel = gather(job, listed.source, &name, Which::All)?;
    if parcel.top().raw != listed.raw {
        return Err(Error::corrupt(format!(
            "the manifest {} came with other bytes",
            listed.descriptor.digest
        )));
    }
    let beside = listed.home.filter(|home| home.host() == to.host()).map(|home| home.path().to_owned());
    let receiver =
        ToRegistry { registry: Registry::of(to, options)?, name: to, beside, engine: Some(engine) };
    let from = From { source: listed.source, name: &name };
    send_parcel(job, &from, &parcel, &[], Box::new(receiver))
}
