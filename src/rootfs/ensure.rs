//! A known layer on a stack that it has not stood on yet: made again from its recipe where the driver keeps whole stacks.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, OwnedFd};

use super::unpack::{Archive, place};
use super::{Layer, Made, Stack};
use crate::db::{Lease, SnapshotId};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::job::Job;
use crate::layer;
use crate::snapshot::driver::Shape;

/// Sees to it that there is a snapshot of `layer` on `parent`. Costs one query where there is. False: the layer's files are in
/// no tree any more, as its last stack was removed; it has to be made anew.
pub fn ensure(engine: &Engine, parent: &Stack, layer: &Layer, lease: &Lease, job: &Job) -> Result<bool> {
    // One tree serves every stack.
    if engine.snapshots.driver().shape() == Shape::Layered {
        return Ok(true);
    }
    let chain = engine.db.write(|index| index.add_chain(parent.chain(), layer.number))?;
    if engine.snapshots.find(&chain)?.is_some() {
        return Ok(true);
    }
    let Some(from) = holder(engine, layer)? else { return Ok(false) };
    let archive = Recipe { engine, layer, from, job };
    place(engine, &archive, None, Some(&layer.diff_id), parent, &Made::default(), lease, job)
        .context(|| format!("putting layer {} on another stack", layer.diff_id.short()))?;
    Ok(true)
}

/// A snapshot that has the layer on top.
pub(super) fn holder(engine: &Engine, layer: &Layer) -> Result<Option<SnapshotId>> {
    let chains = engine.db.read(|index| index.chains())?;
    for chain in chains.iter().filter(|chain| chain.layer == layer.number) {
        if let Some(id) = engine.snapshots.find(&chain.id)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The layer's archive, made again from its recipe and a tree that has its files.
pub(super) struct Recipe<'e> {
    pub(super) engine: &'e Engine,
    pub(super) layer: &'e Layer,
    pub(super) from: SnapshotId,
    pub(super) job: &'e Job,
}

impl Archive for Recipe<'_> {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        let path = self.engine.recipe_path(&self.layer.diff_id);
        let recipe = File::open(&path).context(|| format!("opening the recipe {}", path.display()))?;
        let tree = self.engine.snapshots.driver().tree(self.from)?.dir;
        let (reader, writer) = std::io::pipe().context(|| "making a pipe")?;
        let job = self.job.clone();
        let replaying = std::thread::spawn(move || replay(&job, recipe, &tree, writer));
        Ok(Box::new(Replayed { reader, replaying: Some(replaying) }))
    }
}

fn replay(job: &Job, mut recipe: File, tree: &OwnedFd, mut out: std::io::PipeWriter) -> Result<()> {
    layer::replay(job, &mut recipe, tree.as_fd(), &mut out).map(drop)
}

/// The end of the stream is reached only when the archive was what its recipe says.
struct Replayed {
    reader: std::io::PipeReader,
    replaying: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Read for Replayed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && !buffer.is_empty()
            && let Some(replaying) = self.replaying.take()
        {
            match replaying.join() {
                Ok(done) => done?,
                Err(_) => return Err(std::io::Error::other("replaying a recipe panicked")),
            }
        }
        Ok(count)
    }
}
