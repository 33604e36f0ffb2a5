//! `copy`: an image from one place to another, blob by blob, through the store only where that is one of them.
//!
//! What the source has goes byte for byte, so digests stay. Where that cannot be, a note says so: Docker archives have
//! no manifests of their own, and what reads them may not know zstd.

mod bytes;
mod daemon;
mod from;
mod into_store;
pub(super) mod kept;
pub(super) mod listed;
mod parcel;
mod place;
mod recoded;
mod referrers;
mod send;
mod storage;
mod temp;
mod to_archive;
mod to_directory;
mod to_registry;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use self::daemon::Daemon;
use self::from::Opened;
use self::parcel::{Parcel, Which, gather, parsed};
use self::referrers::Referrer;
use self::send::{Beside, From, Receiver, send};
use self::storage::Helper;
use self::temp::Temp;
use self::to_archive::{Named, ToArchive};
use self::to_directory::{ToFlat, ToLayout};
use self::to_registry::ToRegistry;
use crate::archive::{LayoutDir, NewFlatDir};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Compression, Descriptor, Document as Parsed, Platform, Reference};
use crate::job::{Event, Job};
use crate::output::Destination;
use crate::registry::{self, Registry};

pub use place::Place;

#[derive(Clone)]
pub struct Options {
    /// Of an index; `None`: this machine's.
    pub platform: Option<Platform>,
    /// The index, with all it lists.
    pub all: bool,
    /// What refers to the image goes along.
    pub referrers: bool,
    /// Rather an error than another digest.
    pub exact: bool,
    pub from: registry::Options,
    pub to: registry::Options,
    /// The Docker daemon's socket.
    pub docker: PathBuf,
    /// For what has to wait on its way.
    pub temp: PathBuf,
    /// Where helper programs are looked for.
    pub path: OsString,
}

/// `engine` is needed where one of the places is the store. What the manifest, or the index, is over there.
pub fn copy(
    engine: Option<&Engine>,
    from: &Place,
    to: &Place,
    options: &Options,
    job: &Job,
) -> Result<Descriptor> {
    if options.all && options.platform.is_some() {
        return Err(Error::invalid("--platform and --all-platforms: which of them?").hint("give one"));
    }
    check(from, to, options)?;
    job.report(Event::Copying { from: from.to_string(), to: to.to_string() });
    let opened = from::open(engine, from, options, job)?;
    let copied = match to {
        Place::Store(name) => {
            let engine = engine.ok_or_else(|| Error::internal("a copy into the store, without one"))?;
            let taken = into_store::Taken {
                source: &*opened.source,
                name: &opened.name,
                origin: opened.origin(),
                own: !opened.made,
            };
            let platform = options.platform.clone().unwrap_or_else(Platform::host);
            into_store::take(engine, &taken, &name.parse()?, options.all, &platform, job)?
        }
        _ => elsewhere(engine, &opened, to, options, job)?,
    };
    let (digest, size) = (copied.digest.to_string(), copied.size);
    job.report(Event::Pushed { tag: to.to_string(), digest, size });
    Ok(copied)
}

/// Before anything is moved.
fn check(from: &Place, to: &Place, options: &Options) -> Result<()> {
    match (from, to) {
        (Place::Store(_), Place::Store(_)) => {
            return Err(Error::invalid("both places are names of the store")
                .hint("`outcrop tag` gives an image another name; docker://NAME is at a registry"));
        }
        (_, Place::Registry(name)) if name.digest().is_some() => {
            return Err(Error::invalid(format!(
                "`{}` holds a digest: nothing can be copied to it",
                name.familiar()
            ))
            .hint("name a tag; the manifest that it has gets its digest there by itself"));
        }
        (_, Place::Daemon(name)) => drop(tag_of(name)?),
        (_, Place::DockerArchive(_, Some(name))) => drop(tag_of(name)?),
        _ => {}
    }
    let one = match to {
        Place::DockerArchive(..) => "a Docker archive",
        Place::Daemon(_) => "a Docker daemon",
        Place::Storage(_) => "containers-storage",
        _ => return Ok(()),
    };
    match options.all {
        true => Err(Error::unsupported(format!("{one} takes the image for one platform"))
            .hint("leave out --all-platforms; --platform chooses another than this machine's")),
        false => Ok(()),
    }
}

/// A name with a tag, as Docker keeps images by.
fn tag_of(name: &str) -> Result<Reference> {
    let name: Reference = name.parse()?;
    match name.digest() {
        None => Ok(name),
        Some(_) => {
            Err(Error::invalid(format!("`{}` holds a digest: no image can be given it", name.familiar()))
                .hint("name a tag"))
        }
    }
}

fn elsewhere(
    engine: Option<&Engine>,
    opened: &Opened<'_>,
    to: &Place,
    options: &Options,
    job: &Job,
) -> Result<Descriptor> {
    let host = Platform::host();
    let which = match options.all {
        true => Which::All,
        false => Which::One(options.platform.as_ref().unwrap_or(&host)),
    };
    let from = From { source: &*opened.source, name: &opened.name };
    let parcel = gather(job, from.source, from.name, which)
        .context(|| format!("looking for it at {}", from.source.place()))?;
    let temp = Temp { dir: &options.temp };
    let wants = match to {
        // Older ones know no zstd.
        Place::DockerArchive(..) | Place::Daemon(_) => Some((Compression::Zstd, Compression::None)),
        Place::Registry(_) | Place::Layout(..) | Place::OciArchive(..) if opened.made => {
            Some((Compression::None, Compression::Gzip))
        }
        _ => None,
    };
    let docker = matches!(to, Place::DockerArchive(..) | Place::Daemon(_));
    if docker && let Parsed::Image(manifest) = parsed(parcel.top())? {
        manifest.check_runnable()?;
    }
    let recoded = match (wants, parsed(parcel.top())?) {
        (Some((old, new)), Parsed::Image(_)) => recoded::recoded(job, &from, &parcel, old, new, &temp)?,
        _ => None,
    };
    match &recoded {
        Some((source, changed)) => {
            say_changed(&parcel, changed, opened.made, options, job)?;
            let from = From { source, name: &opened.name };
            deliver(engine, opened, &from, changed, &[], to, options, job)
        }
        None => {
            let keeps = matches!(to, Place::Registry(_) | Place::Layout(..) | Place::OciArchive(..));
            let referrers = match options.referrers && keeps {
                true => referrers::of(job, &from, &parcel).map_err(|cause| {
                    let place = from.source.place();
                    Error::new(cause.kind(), format!("looking for what refers to it at {place}"))
                        .hint("--no-referrers copies the image alone, without its signatures and SBOMs")
                        .because(cause)
                })?,
                false => Vec::new(),
            };
            deliver(engine, opened, &from, &parcel, &referrers, to, options, job)
        }
    }
}

/// `made`: there was no manifest to keep.
fn say_changed(old: &Parcel, new: &Parcel, made: bool, options: &Options, job: &Job) -> Result<()> {
    let (old, new) = (old.top().descriptor.digest, new.top().descriptor.digest);
    if old == new || made {
        return Ok(());
    }
    let said =
        format!("the manifest {} cannot be kept there: its layers are compressed with zstd", old.short());
    match options.exact {
        true => {
            Err(Error::unsupported(said)
                .hint("copy to oci: or oci-archive:, or leave out --preserve-digests"))
        }
        false => {
            job.report(Event::Note(format!("{said}; it is {} now", new.short())));
            Ok(())
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "each end and what goes between them")]
fn deliver(
    engine: Option<&Engine>,
    opened: &Opened<'_>,
    from: &From<'_>,
    parcel: &Parcel,
    referrers: &[Referrer],
    to: &Place,
    options: &Options,
    job: &Job,
) -> Result<Descriptor> {
    let archive = |out: &mut (dyn Write + Send), named: Named| {
        send(job, from, parcel, referrers, Box::new(ToArchive::new(out, named)?))
    };
    let go = |receiver: Box<dyn Receiver + '_>| send(job, from, parcel, referrers, receiver);
    match to {
        Place::Registry(name) => {
            let beside = opened.home.as_ref().filter(|home| home.host() == name.host());
            go(Box::new(ToRegistry {
                registry: Registry::of(name, &options.to)?,
                name,
                beside: beside.map(|home| home.path().to_owned()),
                engine,
            }))?;
        }
        Place::Layout(dir, name) => {
            let layout = LayoutDir::open(dir)?;
            go(Box::new(ToLayout { layout, name: name.clone(), beside: Beside::default() }))?;
        }
        Place::Flat(dir) => go(Box::new(ToFlat { dir: NewFlatDir::make(dir)? }))?,
        Place::OciArchive(file, name) => {
            Destination::File(file.clone()).write(None, |out| archive(out, Named::Oci(name.clone())))?;
        }
        Place::DockerArchive(file, name) => {
            let name = name.as_deref().map(tag_of).transpose()?;
            Destination::File(file.clone()).write(None, |out| archive(out, Named::Docker(name)))?;
        }
        Place::Daemon(name) => {
            let name = tag_of(name)?;
            let daemon = Daemon { socket: &options.docker };
            daemon.load(|out| archive(out, Named::Docker(Some(name))))?;
        }
        Place::Storage(name) => {
            let helper = Helper::find(&options.path)?;
            let dir = Temp { dir: &options.temp }.directory()?;
            let flat = dir.path().join("image");
            go(Box::new(ToFlat { dir: NewFlatDir::make(&flat)? }))?;
            helper.put(&flat, name, job)?;
        }
        Place::Store(_) => return Err(Error::internal("the store is no elsewhere")),
    }
    Ok(parcel.top().descriptor.clone())
}
