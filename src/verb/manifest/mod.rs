//! `manifest`: an index for several platforms, put together from images of the store and of registries.

mod lists;
mod push;

use self::lists::{Entry, List};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{
    Descriptor, Digest, Document, ImageConfig, Index, MAX_CONFIG, Manifest, PlatformEntry, Reference,
};
use crate::job::Job;
use crate::registry;
use crate::transfer::Source;
use crate::verb::copy::kept::settle;
use crate::verb::{images, kept};

pub use push::push;

/// What is said of an entry beyond what its image says itself.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    pub architecture: Option<String>,
    pub os: Option<String>,
    pub os_features: Vec<String>,
    pub os_version: Option<String>,
    pub variant: Option<String>,
    pub annotations: Vec<(String, String)>,
}

/// A manifest with its bytes.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: Reference,
    pub descriptor: Descriptor,
    pub raw: Vec<u8>,
}

/// What `inspect` finds under a name.
#[derive(Clone, Debug)]
pub enum Inspected {
    One(Box<Shown>),
    /// The index, and what it lists where that is known: always of a list here, of a registry's if `deep`.
    List(Vec<u8>, Vec<Shown>),
}

/// A list of this name from the images of these names. `amend`: one that is there is added to.
pub fn create(
    engine: &Engine,
    name: &Reference,
    texts: &[String],
    amend: bool,
    registry: &registry::Options,
    job: &Job,
) -> Result<()> {
    taggable(name)?;
    let refused = || {
        Error::conflict(format!("there is a manifest list `{}` already", name.familiar()))
            .hint("--amend adds to it, `outcrop manifest rm` removes it")
    };
    if !amend && lists::find(engine, name)?.is_some() {
        return Err(refused());
    }
    let mut entries = Vec::new();
    for text in texts {
        entries.push(entry(engine, text, registry, job).context(|| format!("adding `{text}`"))?);
    }
    engine.sweep()?;
    let lists = lists::lock(engine)?;
    let mut list = match lists.find(name)? {
        Some(_) if !amend => return Err(refused()),
        Some(known) => known,
        None => List { name: name.clone(), entries: Vec::new() },
    };
    for entry in entries {
        match list.entry(&entry.name) {
            Some(known) => *known = entry,
            None => list.entries.push(entry),
        }
    }
    lists.put(&list)
}

pub fn annotate(engine: &Engine, name: &Reference, text: &str, said: &Annotations) -> Result<()> {
    let lists = lists::lock(engine)?;
    let mut list = lists.find(name)?.ok_or_else(|| lists::absent(name))?;
    let of: Reference = text.parse()?;
    let names: Vec<String> = list.entries.iter().map(|entry| entry.name.familiar()).collect();
    let entry = list.entry(&of).ok_or_else(|| {
        Error::not_found(format!(
            "manifest for image {} does not exist in {}",
            of.familiar(),
            name.familiar()
        ))
        .hint(format!("it has {}", names.join(", ")))
    })?;
    let platform = entry.descriptor.platform.get_or_insert_with(PlatformEntry::default);
    let set = |field: &mut String, said: &Option<String>| {
        if let Some(said) = said {
            field.clone_from(said);
        }
    };
    set(&mut platform.architecture, &said.architecture);
    set(&mut platform.os, &said.os);
    set(&mut platform.variant, &said.variant);
    if said.os_version.is_some() {
        platform.os_version.clone_from(&said.os_version);
    }
    for feature in &said.os_features {
        if !platform.os_features.contains(feature) {
            platform.os_features.push(feature.clone());
        }
    }
    entry.descriptor.annotations.extend(said.annotations.iter().cloned());
    lists.put(&list)
}

pub fn remove(engine: &Engine, name: &Reference) -> Result<()> {
    lists::lock(engine)?.remove(name)
}

/// A list here, else what the registry has; nothing is pulled. `within`: one image of a list. `deep`: also the manifests that
/// an index of a registry lists.
pub fn inspect(
    engine: &Engine,
    name: &Reference,
    within: Option<&Reference>,
    deep: bool,
    registry: &registry::Options,
    job: &Job,
) -> Result<Inspected> {
    let here = lists::find(engine, name)?;
    let shown = |entry: Entry| Shown {
        name: entry.name,
        descriptor: entry.descriptor,
        raw: entry.manifest.into_bytes(),
    };
    if let Some(within) = within {
        let mut list = here.ok_or_else(|| lists::absent(name))?;
        let entry = list.entry(within).cloned();
        let absent = || Error::not_found(format!("No such manifest: {}", within.familiar()));
        return Ok(Inspected::One(Box::new(shown(entry.ok_or_else(absent)?))));
    }
    if let Some(list) = here {
        let raw = list.index().to_bytes();
        return Ok(Inspected::List(raw, list.entries.into_iter().map(shown).collect()));
    }
    let source = registry::source(name, registry)?;
    let (descriptor, raw) = source.resolve(job, name).map_err(|error| match error.kind() {
        Kind::NotFound => lists::absent(name).because(error),
        _ => error,
    })?;
    match Document::parse(&raw, Some(&descriptor.media_type))? {
        Document::Image(manifest) => {
            let media_type = manifest.media_type();
            let platform = match deep {
                true => platform(&config(&*source, name, &manifest, job)?),
                false => None,
            };
            let descriptor = Descriptor { media_type, platform, ..descriptor };
            Ok(Inspected::One(Box::new(Shown { name: name.clone(), descriptor, raw })))
        }
        Document::Index(index) => {
            let below = if deep { children(&*source, name, &index, job)? } else { Vec::new() };
            Ok(Inspected::List(raw, below))
        }
    }
}

fn children(source: &dyn Source, name: &Reference, index: &Index, job: &Job) -> Result<Vec<Shown>> {
    let child = |entry: &Descriptor| {
        let raw = source.manifest(job, name, entry)?;
        entry.verify(&raw)?;
        Ok(Shown { name: name.clone().with_digest(entry.digest), descriptor: entry.clone(), raw })
    };
    index.manifests.iter().map(child).collect()
}

fn taggable(name: &Reference) -> Result<()> {
    match name.digest() {
        None => Ok(()),
        Some(_) => {
            Err(Error::invalid(format!("`{}` holds a digest: no list can be called so", name.familiar()))
                .hint("name a tag"))
        }
    }
}

/// An image of the store, else of its registry.
fn entry(engine: &Engine, text: &str, registry: &registry::Options, job: &Job) -> Result<Entry> {
    if let Some(entry) = of_store(engine, text, job)? {
        return Ok(entry);
    }
    let name: Reference = text.parse()?;
    let source = registry::source(&name, registry)?;
    let (descriptor, raw) = source.resolve(job, &name)?;
    let manifest = match Document::parse(&raw, Some(&descriptor.media_type))? {
        Document::Image(manifest) => *manifest,
        Document::Index(index) => {
            let digests: Vec<String> = index
                .manifests
                .iter()
                .filter_map(|entry| {
                    Some(format!("{} ({})", entry.digest, entry.platform.as_ref()?.platform()))
                })
                .collect();
            return Err(Error::unsupported(format!("`{text}` is an index, and an index lists images"))
                .hint(format!("name one of its images by digest: {}", digests.join(", "))));
        }
    };
    let config = config(&*source, &name, &manifest, job)?;
    let mut descriptor = Descriptor::of(manifest.media_type(), &raw);
    descriptor.platform = platform(&config);
    Ok(Entry { name, descriptor, manifest: text_of(raw)?, image: None })
}

fn of_store(engine: &Engine, text: &str, job: &Job) -> Result<Option<Entry>> {
    let Some(row) = images::find(engine, text)? else { return Ok(None) };
    let (_, shipment) = kept::named(engine, &row.id, text)?;
    let mut part = kept::Shipment::own(shipment.parts, &row.id, engine)?;
    let mut descriptor = settle(engine, &mut part, job)?;
    let name: Reference = match text.parse::<Reference>() {
        // What is named by its digest is that, or the registry's.
        Ok(name) if name.digest().is_some_and(|digest| *digest != descriptor.digest) => return Ok(None),
        Ok(name) => name,
        Err(_) => format!("image/{}", row.id.digest().short()).parse()?,
    };
    let config = ImageConfig::parse(&engine.blobs.read_all(row.id.digest(), MAX_CONFIG)?)?;
    descriptor.platform = platform(&config);
    let raw = part.raw.take().unwrap_or_default();
    Ok(Some(Entry { name, descriptor, manifest: text_of(raw)?, image: Some(row.id) }))
}

fn config(source: &dyn Source, name: &Reference, manifest: &Manifest, job: &Job) -> Result<ImageConfig> {
    manifest.check_runnable()?;
    ImageConfig::parse(&crate::transfer::read_config(job, source, name, &manifest.config)?)
}

/// As the config says it.
fn platform(config: &ImageConfig) -> Option<PlatformEntry> {
    let text = |key: &str| config.other.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let features = config.other.get("os.features").and_then(|value| value.as_array());
    let mut platform = PlatformEntry::from(config.platform());
    platform.os_version = text("os.version");
    platform.os_features =
        features.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect();
    Some(platform)
}

fn text_of(raw: Vec<u8>) -> Result<String> {
    let digest = Digest::of(&raw);
    String::from_utf8(raw)
        .map_err(|cause| Error::invalid(format!("the manifest {digest} is no text")).because(cause))
}
