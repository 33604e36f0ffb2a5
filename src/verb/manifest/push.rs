//! A list to its registry: what it names first, from wherever that is, then the index under the name.

use super::lists::{self, Entry};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Document, Reference};
use crate::job::{Event, Job};
use crate::registry::{self, Registry};
use crate::transfer::Source;
use crate::verb::copy::kept::Kept;
use crate::verb::copy::listed::{self, Listed};
use crate::verb::{images, kept};

/// The index there. `told` hears of each manifest that it lists. `purge`: the list here goes.
pub fn push(
    engine: &Engine,
    name: &Reference,
    purge: bool,
    options: &registry::Options,
    told: &mut dyn FnMut(&Reference, &Descriptor) -> Result<()>,
    job: &Job,
) -> Result<Descriptor> {
    let list = lists::find(engine, name)?.ok_or_else(|| lists::absent(name))?;
    for entry in &list.entries {
        let complete = |platform: &crate::image::PlatformEntry| {
            !platform.os.is_empty() && !platform.architecture.is_empty()
        };
        if !entry.descriptor.platform.as_ref().is_some_and(complete) {
            return Err(Error::invalid(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.name.familiar()
            ))
            .hint("`outcrop manifest annotate --os OS --arch ARCH` says them"));
        }
    }
    let registry = Registry::of(name, options)?;
    job.report(Event::Pushing { repository: name.name() });
    for entry in &list.entries {
        let at = name.clone().with_digest(entry.descriptor.digest);
        if !registry.has_manifest(job, name, &entry.descriptor.digest)? {
            let sent = send(engine, entry, &at, options, job);
            engine.sweep_after(sent).context(|| format!("pushing `{}`", entry.name.familiar()))?;
        }
        told(&at, &entry.descriptor)?;
    }
    let index = list.index();
    let raw = index.to_bytes();
    let top = Descriptor::of(index.media_type(), &raw);
    registry.push_manifest(job, name, &name.selector(), &top, &raw)?;
    if purge {
        lists::lock(engine)?.remove(name)?;
    }
    Ok(top)
}

fn send(
    engine: &Engine,
    entry: &Entry,
    to: &Reference,
    options: &registry::Options,
    job: &Job,
) -> Result<()> {
    let (raw, descriptor) = (entry.manifest.as_bytes(), &entry.descriptor);
    let listed = |source: &dyn Source, home: Option<&Reference>| {
        listed::send(engine, &Listed { source, home, descriptor, raw }, to, options, job)
    };
    match &entry.image {
        None => listed(&*registry::source(&entry.name, options)?, Some(&entry.name)),
        Some(id) => {
            let gone = |cause: Error| {
                Error::not_found(format!("the image {} is no longer here", id.short()))
                    .hint("`outcrop manifest create --amend` adds another in its place")
                    .because(cause)
            };
            images::row(engine, id).map_err(gone)?;
            let Document::Image(manifest) = Document::parse(raw, Some(&descriptor.media_type))? else {
                return Err(Error::internal("an index in a list"));
            };
            let part = kept::part(engine, *manifest, raw.to_vec())?;
            let part = part.ok_or_else(|| {
                Error::not_found(format!("the layers of the image {} are no longer here", id.short()))
            })?;
            listed(&Kept::of(engine, part, options, job)?, None)
        }
    }
}
