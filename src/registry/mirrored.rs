//! A registry with mirrors before it, as one [`Source`]: the first that has what is asked for gives it.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::hosts::Mirror;
use super::{Options, Registry};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Reference};
use crate::job::Job;
use crate::transfer::{Given, Source};

/// Where the images of this name come from: its mirrors, then the registry itself.
pub fn source(name: &Reference, options: &Options) -> Result<Box<dyn Source>> {
    let rule = options.hosts.rule(name)?;
    let itself = match &rule.location {
        None => Place::of(&name.name(), rule.insecure, options)?,
        Some(location) => Place::of(location, rule.insecure, options)?,
    };
    if rule.mirrors.is_empty() && rule.location.is_none() {
        return Ok(Box::new(itself.registry));
    }
    // What is given is for the registry; a mirror is somebody else.
    let others = Options { credentials: None, ..options.clone() };
    let mirror = |mirror: &Mirror| {
        let place = Place::of(&mirror.location, mirror.insecure, &others)?;
        Ok(Place { tags: mirror.tags, digests: mirror.digests, ..place })
    };
    let mut places = rule.mirrors.iter().map(mirror).collect::<Result<Vec<_>>>()?;
    places.push(itself);
    Ok(Box::new(Mirrored { places }))
}

struct Mirrored {
    places: Vec<Place>,
}

struct Place {
    /// Without tag and digest.
    name: String,
    registry: Registry,
    tags: bool,
    digests: bool,
    /// It could not be reached.
    gone: AtomicBool,
}

impl Place {
    fn of(name: &str, insecure: bool, options: &Options) -> Result<Place> {
        let reference: Reference = name.parse()?;
        let mut options = options.clone();
        options.insecure |= insecure;
        let registry = Registry::of(&reference, &options)?;
        Ok(Place { name: name.to_owned(), registry, tags: true, digests: true, gone: AtomicBool::new(false) })
    }

    fn named(&self, name: &Reference) -> Result<Reference> {
        let tag = name.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = name.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}{tag}{digest}", self.name).parse()
    }
}

impl Mirrored {
    /// What a mirror does not know, nobody may have told it.
    fn itself(&self) -> Result<&Place> {
        self.places.last().ok_or_else(|| Error::internal("a registry without a place"))
    }

    /// The last one's error counts: it is the registry itself.
    fn first<'s, T>(
        &'s self,
        may: impl Fn(&Place) -> bool,
        ask: impl Fn(&'s Place) -> Result<T>,
    ) -> Result<T> {
        let mut last = None;
        for (n, place) in self.places.iter().enumerate() {
            let is_itself = n + 1 == self.places.len();
            if !is_itself && (!may(place) || place.gone.load(Ordering::Relaxed)) {
                continue;
            }
            match ask(place) {
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(error) => {
                    tracing::debug!(mirror = place.registry.place(), %error, "the next one is asked");
                    if error.kind() == Kind::Unavailable {
                        place.gone.store(true, Ordering::Relaxed);
                    }
                    last = Some(error);
                }
                found => return found,
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("a registry without a place")))
    }
}

impl Source for Mirrored {
    fn place(&self) -> String {
        self.places.last().map(|place| place.registry.place()).unwrap_or_default()
    }

    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        let by_digest = name.digest().is_some();
        let may = |place: &Place| if by_digest { place.digests } else { place.tags };
        self.first(may, |place| place.registry.resolve(job, &place.named(name)?))
    }

    fn manifest(&self, job: &Job, name: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        self.first(|place| place.digests, |place| place.registry.manifest(job, &place.named(name)?, wanted))
    }

    fn blob<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        self.first(|_| true, |place| place.registry.blob(job, &place.named(name)?, wanted, offset))
    }

    fn tagged(&self, job: &Job, name: &Reference, tag: &str) -> Result<Option<(Descriptor, Vec<u8>)>> {
        let itself = self.itself()?;
        itself.registry.tagged(job, &itself.named(name)?, tag)
    }

    fn tags(&self, job: &Job, name: &Reference) -> Result<Vec<String>> {
        let itself = self.itself()?;
        itself.registry.tags(job, &itself.named(name)?)
    }

    fn referrers(&self, job: &Job, name: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let itself = self.itself()?;
        itself.registry.referrers(job, &itself.named(name)?, subject)
    }

    fn part<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        part: Range<u64>,
    ) -> Result<Given<'a>> {
        self.first(|_| true, |place| place.registry.part(job, &place.named(name)?, wanted, part.clone()))
    }

    fn interrupt(&self) {
        self.places.iter().for_each(|place| place.registry.interrupt());
    }
}
