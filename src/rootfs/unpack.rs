//! An archive becomes a layer: unpacked where the driver keeps it, published once the digest is proved.
//!
//! With a Layered driver most layers can be unpacked before what lies below is known ([`prepare`], side by side); one
//! that leans on what lies below, and every layer of a Stacked driver, is unpacked in its turn ([`place`]).

use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use super::{Layer, Made, Stack};
use crate::db::{LayerSlot, Lease, NewLayer};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{ContentId, DiffId};
use crate::job::Job;
use crate::layer::{self, Applied};
use crate::snapshot::driver::Shape;
use crate::snapshot::{Draft, Place, Purpose};

/// A tar, uncompressed, that can be read from its beginning as often as it takes.
pub trait Archive: Sync {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>>;
    /// A tree that has its files at the paths that it says, to share their blocks with.
    fn files(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A layer that is unpacked and has no place in a stack yet.
pub struct Prepared<'e> {
    slot: LayerSlot,
    applied: Applied,
    content_id: ContentId,
    row_count: u64,
    draft: Draft<'e>,
}

/// Unpacks a layer that may stand on anything. `None`: it has to wait for its turn.
pub fn prepare<'e>(
    engine: &'e Engine,
    archive: &dyn Archive,
    lease: &Lease,
    job: &Job,
) -> Result<Option<Prepared<'e>>> {
    match engine.snapshots.driver().shape() {
        Shape::Stacked => Ok(None),
        Shape::Layered => apply(engine, archive, draft(engine, &Stack::default())?, lease, job).map(Some),
    }
}

/// Gives a layer its place on `parent`. `expected` is what the image's config promises.
#[expect(clippy::too_many_arguments, reason = "each is a different thing, and none goes with another")]
pub fn place(
    engine: &Engine,
    archive: &dyn Archive,
    prepared: Option<Prepared<'_>>,
    expected: Option<&DiffId>,
    parent: &Stack,
    made: &Made<'_>,
    lease: &Lease,
    job: &Job,
) -> Result<Layer> {
    let stands_alone = |prepared: &Prepared<'_>| !prepared.applied.leans || parent.chain().is_none();
    let prepared = match prepared.filter(stands_alone) {
        Some(prepared) => prepared,
        None => apply(engine, archive, draft(engine, parent)?, lease, job)?,
    };
    if let Some(expected) = expected {
        prepared.is(expected)?;
    }
    if let (Some(path), None) = (&prepared.applied.dangling, parent.chain()) {
        return Err(Error::invalid(format!(
            "a hard link to `{}`, which is in no layer",
            String::from_utf8_lossy(path)
        ))
        .hint("this layer belongs on top of another one, or is damaged"));
    }
    // On nothing, too: it is no layer for other stacks then.
    let leans = prepared.applied.leans;
    let new = NewLayer { base: parent.chain().copied(), leans, ..prepared.as_layer(made) };
    super::publish(engine, prepared.draft, prepared.slot, &new, parent)
}

/// A layer for whoever wants it, in no stack yet. Given back where it has to wait for its turn.
pub fn publish_alone<'e>(
    prepared: Prepared<'e>,
    expected: &DiffId,
    made: &Made<'_>,
) -> Result<Result<Layer, Prepared<'e>>> {
    prepared.is(expected)?;
    if prepared.applied.leans {
        return Ok(Err(prepared));
    }
    let new = prepared.as_layer(made);
    let Prepared { slot, draft, .. } = prepared;
    super::publish_free(draft, slot, &new).map(Ok)
}

impl Prepared<'_> {
    fn is(&self, expected: &DiffId) -> Result<()> {
        match self.applied.diff_id {
            found if found == *expected => Ok(()),
            found => Err(Error::corrupt(format!(
                "a layer's archive is {found}, where the image's config promises {expected}"
            ))),
        }
    }

    /// On nothing.
    fn as_layer(&self, made: &Made<'_>) -> NewLayer {
        NewLayer {
            number: self.slot.number(),
            diff_id: self.applied.diff_id,
            base: None,
            leans: false,
            content_id: self.content_id,
            size: self.applied.bytes,
            tar_size: self.applied.size,
            row_count: self.row_count,
            made_by: made.instruction.map(str::to_owned),
            build: made.build,
        }
    }
}

fn draft<'e>(engine: &'e Engine, parent: &Stack) -> Result<Draft<'e>> {
    engine.snapshots.draft(parent.chain(), Purpose::Layer)
}

/// One pass: unpack, hash, rows, recipe.
fn apply<'e>(
    engine: &'e Engine,
    archive: &dyn Archive,
    draft: Draft<'e>,
    lease: &Lease,
    job: &Job,
) -> Result<Prepared<'e>> {
    let slot = engine.db.reserve_layer(lease)?;
    let mut recipe = RecipeFile::create(engine, &slot)?;
    let mut rows = slot.rows()?;
    let mut tar = archive.open()?;
    let (applied, mounted) = {
        let place = draft.place()?;
        let (tree, form) = (place.as_fd(), place.form());
        let applied =
            layer::apply_sharing(job, &mut tar, archive.files(), tree, form, &mut rows, recipe.out())?;
        (applied, matches!(place, Place::Mounted(_)))
    };
    drop(tar);
    let row_count = rows.finish()?;
    if mounted {
        let tree = draft.tree()?;
        layer::settle(tree.dir.as_fd(), tree.form, engine.db.rows(slot.number()))?;
    }
    let content_id = layer::content_id(engine.db.rows(slot.number()))?;
    recipe.keep(&slot, &applied.diff_id)?;
    Ok(Prepared { slot, applied, content_id, row_count, draft })
}

/// A recipe being written: under the layer's number until its digest is known.
pub(super) struct RecipeFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl RecipeFile {
    pub(super) fn create(engine: &Engine, slot: &LayerSlot) -> Result<Self> {
        let dir = engine.root.join("layers");
        let path = dir.join(format!("making-{}", slot.number()));
        let say = || format!("writing the recipe {}", path.display());
        std::fs::create_dir_all(&dir).context(say)?;
        let out = BufWriter::new(File::create(&path).context(say)?);
        Ok(RecipeFile { path, out })
    }

    pub(super) fn out(&mut self) -> &mut BufWriter<File> {
        &mut self.out
    }

    /// Gives it its name; an equal one that is there is replaced by the same bytes.
    pub(super) fn keep(mut self, slot: &LayerSlot, diff_id: &DiffId) -> Result<()> {
        let say = || format!("keeping the recipe of layer {}", diff_id.short());
        self.out.flush().context(say)?;
        slot.keep_recipe(&self.path, diff_id)
    }
}

impl Drop for RecipeFile {
    fn drop(&mut self) {
        // Gone already once it has its name.
        drop(std::fs::remove_file(&self.path));
    }
}
