//! What a build leaves, and the end of its record.

use std::fs::File;

use crate::build::{self, Notes};
use crate::db::{BuildId, BuildStatus, EpochGuard, Lease};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::image::{ImageId, Platform, Reference};
use crate::job::Job;
use crate::output::{self, Annotation, Elsewhere, Image, Keep, Output, Product, Written};
use crate::verb::build::Options;

/// What is to come of a build, besides the names.
#[derive(Debug, Default)]
pub struct Results {
    /// None: the image in the store.
    pub outputs: Vec<Box<dyn Output>>,
    pub annotations: Vec<Annotation>,
    /// Besides the one: the result is an index of the images for all.
    pub more_platforms: Vec<Platform>,
    /// All that is built on the base image is one layer.
    pub squash: bool,
    /// Where `dest=-` of an output goes.
    pub stream: Option<File>,
}

/// What was left.
pub(super) struct Left {
    pub(super) image: ImageId,
    pub(super) ran: usize,
    pub(super) written: Vec<Written>,
}

impl Left {
    fn keeps(&self) -> impl Iterator<Item = (&Keep, &Reference)> {
        self.written
            .iter()
            .filter_map(|written| written.keep.as_ref())
            .flat_map(|keep| keep.names.iter().map(move |name| (keep, name)))
    }

    /// In the store, each once.
    pub(super) fn names(&self) -> Vec<&Reference> {
        let mut names: Vec<&Reference> = Vec::new();
        for (_, name) in self.keeps() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Writes the outputs, in order; the names in the store come with `settle`.
pub(super) fn leave(
    engine: &Engine,
    options: &Options,
    platforms: &[Platform],
    outcomes: Vec<build::Outcome>,
    epoch: Option<i64>,
    elsewhere: &dyn Elsewhere,
    job: &Job,
) -> Result<Left> {
    let ran = outcomes.iter().map(|outcome| outcome.ran).sum();
    let images: Vec<Image> = std::iter::zip(platforms, outcomes)
        .map(|(platform, outcome)| Image {
            platform: platform.clone(),
            id: outcome.image,
            config: outcome.config,
            stack: outcome.stack,
        })
        .collect();
    let product = Product {
        engine,
        images: &images,
        index: images.len() > 1 || asks_for_an_index(options),
        names: &options.names,
        annotations: &options.results.annotations,
        epoch,
        stream: options.results.stream.as_ref(),
        registry: &options.registry,
        elsewhere,
        job,
    };
    let store = [output::store()];
    let outputs = match &options.results.outputs[..] {
        [] => &store,
        outputs => outputs,
    };
    let written = outputs.iter().map(|output| output.write(&product)).collect::<Result<_>>()?;
    let host = Platform::host().normal();
    let main = images.iter().find(|image| image.platform.normal() == host).unwrap_or(&images[0]);
    Ok(Left { image: main.id, ran, written })
}

/// BuildKit's build argument: an index also of one platform.
fn asks_for_an_index(options: &Options) -> bool {
    let said = options.build_args.get("BUILDKIT_MULTI_PLATFORM").map(String::as_str);
    matches!(said, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// One barrier for the whole build, then the names; none where nothing is new.
pub(super) fn settle(
    engine: &Engine,
    record: BuildId,
    held: (Lease, EpochGuard),
    notes: &Notes,
    left: Result<&Left, &Error>,
) -> Result<()> {
    let (status, left) = match left {
        Ok(left) => (BuildStatus::Done, Some(left)),
        Err(error) if error.kind() == Kind::Cancelled => (BuildStatus::Cancelled, None),
        Err(_) => (BuildStatus::Failed, None),
    };
    let image = left.map(|left| left.image);
    let keeps = || left.iter().flat_map(|left| left.keeps().map(|(keep, name)| (left.image, keep, name)));
    let (pending, stands) = engine.db.read(|index| {
        let mut stands = true;
        for (image, keep, name) in keeps() {
            stands &= index
                .tag(&name.to_string())?
                .is_some_and(|tag| tag.image == image && tag.target == keep.target);
        }
        Ok((!index.pending()?.is_empty(), stands))
    })?;
    if pending || !stands {
        engine.barrier(|durable| {
            for (image, keep, name) in keeps() {
                durable.move_tag(&name.to_string(), &image, keep.target.as_ref(), "build", None)?;
            }
            notes.write(durable, record)?;
            durable.finish_build(record, status, image.as_ref())
        })?;
    } else {
        engine.db.write(|index| {
            notes.write(index, record)?;
            index.finish_build(record, status, image.as_ref())
        })?;
    }
    drop(held);
    engine.sweep()
}
