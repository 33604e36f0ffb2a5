//! `system adopt`: images, names and volumes out of Docker's data root, which stays as it is.
//!
//! Every layer's archive is made again and goes the way of `load`, so its digest is proved; what does not prove is refused by
//! name, with the images that have it.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::archive::{Config, DockerLayer, DockerRoot, Volume};
use crate::container::MakingVolume;
use crate::db::{LayerNumber, NewImage, Origin, Reader};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{ChainId, ContentId, DiffId, Digest, ImageId, Reference};
use crate::job::{Event, Job, LayerOutcome};
use crate::rootfs::{self, Archive, Layer, Made, Stack};
use crate::sys;
use crate::verb::pull::is_here;

/// What came over, or would.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    pub images: Vec<AdoptedImage>,
    /// Layers that were read.
    pub layers: usize,
    /// Bytes of their files.
    pub bytes: u64,
    pub volumes: Vec<String>,
    /// What did not come over though it should, as sentences.
    pub refused: Vec<String>,
    /// What is not taken, as sentences.
    pub left: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct AdoptedImage {
    pub id: ImageId,
    pub names: Vec<Reference>,
    /// It was here before.
    pub known: bool,
}

/// Takes all that is there and not here. Of a data root that a dockerd is at work in, images alone: they do not change.
pub fn adopt(engine: &Engine, dir: &Path, dry_run: bool, job: &Job) -> Result<Adopted> {
    let root = DockerRoot::open(dir)?;
    let in_use = root.is_in_use()?;
    if in_use {
        job.warn(format!(
            "a dockerd is at work in {}: its images are taken as they are now, its volumes are not",
            dir.display()
        ));
    }
    let (images, unreadable) = root.images()?;
    let mut adopting = Adopting {
        engine,
        root: &root,
        dry_run,
        job,
        references: root.references()?,
        chains: HashMap::new(),
        done: Adopted { refused: unreadable, ..Adopted::default() },
    };
    job.report(Event::Copying { from: dir.display().to_string(), to: engine.root.display().to_string() });
    let outcome = images.iter().try_for_each(|image| adopting.image(image));
    let mut done = adopting.done;
    engine.sweep_after(outcome)?;
    volumes(engine, &root, in_use, dry_run, &mut done, job)?;
    let containers = root.containers()?;
    if !containers.is_empty() {
        done.left.push(format!(
            "{}: {} (`docker commit` makes an image of what one has written)",
            count(containers.len(), "container"),
            containers.join(", ")
        ));
    }
    Ok(done)
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

struct Adopting<'a> {
    engine: &'a Engine,
    root: &'a DockerRoot,
    dry_run: bool,
    job: &'a Job,
    references: Vec<(Reference, ImageId)>,
    /// Stacks that were looked at: `Err` says which layer is wrong, and how.
    chains: HashMap<ChainId, Result<Stack, String>>,
    done: Adopted,
}

impl Adopting<'_> {
    fn image(&mut self, image: &Config) -> Result<()> {
        self.job.check()?;
        let known = is_here(self.engine, &image.id)?;
        let names: Vec<Reference> =
            self.references.iter().filter(|(_, id)| *id == image.id).map(|(name, _)| name.clone()).collect();
        if !known {
            match self.stack(image)? {
                Ok(stack) if !self.dry_run => self.publish(image, &stack)?,
                Ok(_) => {}
                Err(why) => {
                    let said = names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ");
                    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
                    self.done.refused.push(format!("image {}{said}: {why}", image.id.short()));
                    return Ok(());
                }
            }
        }
        let moved = match self.dry_run {
            true => self.engine.db.read(|index| moved(index, image, &names))?,
            false => self.name(image, &names)?,
        };
        for (name, from) in moved {
            let tense = if self.dry_run { "would move" } else { "moved" };
            self.job.warn(format!(
                "{name} named {} here and {tense} to Docker's {}: `outcrop rollback {name}` brings it back",
                from.short(),
                image.id.short()
            ));
        }
        self.done.images.push(AdoptedImage { id: image.id, names, known });
        Ok(())
    }

    /// Its layers, each brought over if it is not here.
    fn stack(&mut self, image: &Config) -> Result<Result<Stack, String>> {
        let mut stack = Stack::default();
        for diff_id in &image.config.rootfs.diff_ids {
            let chain = ChainId::on(stack.chain(), diff_id);
            if !self.chains.contains_key(&chain) {
                let placed = self.layer(image, &stack, &chain, diff_id);
                let placed = match placed {
                    Ok(stack) => Ok(stack),
                    // What stopped us says nothing of the layer.
                    Err(error)
                        if matches!(error.kind(), Kind::Cancelled | Kind::Unavailable | Kind::Internal) =>
                    {
                        return Err(error).context(|| format!("adopting layer {}", diff_id.short()));
                    }
                    Err(error) => Err(format!("its layer {}: {}", diff_id.short(), error.one_line())),
                };
                self.chains.insert(chain, placed);
            }
            match &self.chains[&chain] {
                Ok(placed) => stack = placed.clone(),
                Err(why) => return Ok(Err(why.clone())),
            }
        }
        Ok(Ok(stack))
    }

    /// The stack with the layer on it.
    fn layer(&mut self, image: &Config, below: &Stack, chain: &ChainId, diff_id: &DiffId) -> Result<Stack> {
        let (engine, job) = (self.engine, self.job);
        let short = diff_id.short();
        let lease = engine.db.lease()?;
        let known = engine.db.read(|index| index.find_layer(diff_id, below.chain()))?;
        if let Some(row) = known
            && (self.dry_run || rootfs::ensure(engine, below, &(&row).into(), &lease, job)?)
        {
            if !self.dry_run {
                below.stands(engine, &(&row).into())?;
            }
            job.report(Event::LayerDone { layer: short, how: LayerOutcome::AlreadyExists });
            return Ok(below.with((&row).into()));
        }
        let there = self.root.layer(image, chain, diff_id)?;
        self.done.layers += 1;
        self.done.bytes += there.size;
        if self.dry_run {
            return Ok(below.with(nothing(diff_id)));
        }
        job.report(Event::LayerStarted { layer: short.clone(), total: Some(there.size) });
        let made = Made { instruction: instruction(image, below.layers().len()), ..Made::default() };
        let archive = There { tree: there.tree()?, layer: &there };
        let placed = rootfs::prepare(engine, &archive, &lease, job).and_then(|ready| {
            rootfs::place(engine, &archive, ready, Some(diff_id), below, &made, &lease, job)
        });
        let how = if placed.is_ok() { LayerOutcome::Copied } else { LayerOutcome::Failed };
        job.report(Event::LayerDone { layer: short, how });
        Ok(below.with(placed?))
    }

    /// Visible, not yet durable.
    fn publish(&self, image: &Config, stack: &Stack) -> Result<()> {
        let parent = match image.parent {
            Some(parent) => self.engine.db.read(|index| index.image(&parent))?.map(|row| row.id),
            None => None,
        };
        self.engine.blobs.put(&image.raw, None)?;
        self.engine.db.write(|index| {
            index.insert_image(&NewImage {
                id: image.id,
                parent,
                chain: stack.chain().copied(),
                platform: image.config.platform().to_string(),
                created: image.config.created.clone(),
                created_by: image.config.history.last().and_then(|last| last.created_by.clone()),
                origin: Origin::Loaded,
                build: None,
            })
        })?;
        Ok(())
    }

    /// Once all of it is on disk. Names that were another image's, and which.
    fn name(&self, image: &Config, names: &[Reference]) -> Result<Vec<(String, ImageId)>> {
        self.engine.barrier(|durable| {
            let moved = moved(durable, image, names)?;
            for name in names {
                match name.digest() {
                    Some(digest) => durable.add_repo_digest(&name.name(), digest, &image.id)?,
                    None => {
                        durable.move_tag(&name.to_string(), &image.id, None, "adopt", None)?;
                    }
                }
            }
            Ok(moved)
        })
    }
}

/// Names that are another image's, and which.
fn moved(index: &Reader<'_>, image: &Config, names: &[Reference]) -> Result<Vec<(String, ImageId)>> {
    let mut moved = Vec::new();
    for name in names.iter().filter(|name| name.digest().is_none()) {
        let tag = index.tag(&name.to_string())?.filter(|tag| tag.image != image.id);
        moved.extend(tag.map(|tag| (name.familiar(), tag.image)));
    }
    Ok(moved)
}

/// Of a layer that is not here, and will not be: its place in a stack is all that counts.
fn nothing(diff_id: &DiffId) -> Layer {
    Layer { number: LayerNumber(0), diff_id: *diff_id, content_id: ContentId(*diff_id.digest()), size: 0 }
}

/// The instruction that made the layer of this number.
fn instruction(image: &Config, number: usize) -> Option<&str> {
    let mut made = image.config.history.iter().filter(|entry| !entry.empty_layer);
    made.nth(number)?.created_by.as_deref()
}

/// A layer in Docker's data root.
struct There<'t> {
    tree: OwnedFd,
    layer: &'t DockerLayer,
}

impl Archive for There<'_> {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.layer.archive()?))
    }
    fn files(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tree.as_fd())
    }
}

/// Volumes that were given a name and are not here.
fn volumes(
    engine: &Engine,
    root: &DockerRoot,
    in_use: bool,
    dry_run: bool,
    done: &mut Adopted,
    job: &Job,
) -> Result<()> {
    let (mut nameless, mut waiting) = (0, Vec::new());
    for volume in root.volumes()? {
        job.check()?;
        let name = volume.name.clone();
        if is_nameless(&name) {
            nameless += 1;
        } else if volume.mounted {
            done.left.push(format!("volume {name}: it is a mount of something else"));
        } else if in_use {
            waiting.push(name);
        } else if engine.db.read(|index| index.volume(&name))?.is_some() {
            done.left.push(format!("volume {name}: there is one of this name here"));
        } else {
            if !dry_run {
                bring_volume(engine, &volume, job).context(|| format!("copying volume {name}"))?;
            }
            done.volumes.push(name);
        }
    }
    if !waiting.is_empty() {
        done.left.push(format!(
            "{}: {} (containers may be writing to them: stop dockerd and adopt again)",
            count(waiting.len(), "volume"),
            waiting.join(", ")
        ));
    }
    if nameless > 0 {
        done.left
            .push(format!("{}: they belong to its containers", count(nameless, "volume without a name")));
    }
    Ok(())
}

fn is_nameless(name: &str) -> bool {
    Digest::from_hex(name).is_some()
}

/// All of it, then its name.
fn bring_volume(engine: &Engine, volume: &Volume, job: &Job) -> Result<()> {
    let making = MakingVolume::begin(engine)?;
    let data = making.data();
    let from = sys::dir::open_path(&volume.data).context(|| format!("opening {}", volume.data.display()))?;
    let to = sys::dir::open_path(&data).context(|| format!("opening {}", data.display()))?;
    sys::tree::copy(from.as_fd(), to.as_fd(), job.budget.threads).context(|| "copying its files")?;
    engine.db.write_out()?;
    engine.db.write(|index| {
        if index.volume(&volume.name)?.is_some() || !making.give_name(engine, &volume.name)? {
            return Err(Error::conflict("another process made one of this name meanwhile"));
        }
        index.insert_volume(&volume.name, &BTreeMap::new(), false).map(drop)
    })
}
