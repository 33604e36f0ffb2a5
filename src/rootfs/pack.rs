//! A draft that was written to becomes a layer.

use std::collections::HashMap;

use super::unpack::RecipeFile;
use super::{Layer, Stack};
use crate::db::{BuildId, Lease, NewLayer};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{ContentId, Digest};
use crate::job::Job;
use crate::layer::{self, PackOptions, Row, RowSink, Watch};
use crate::snapshot::Draft;

/// What the index says of a new layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made<'m> {
    pub instruction: Option<&'m str>,
    pub build: Option<BuildId>,
    /// Seconds since 1970: no time in the layer is later (SOURCE_DATE_EPOCH).
    pub epoch: Option<i64>,
}

#[derive(Debug)]
pub enum Outcome {
    Layer(Layer),
    /// A file is not what it was when it was hashed for the key; the draft is gone.
    Differs(String),
}

/// What is known of a layer before it is made.
#[derive(Default)]
pub struct Known<'k> {
    /// Files, by path, whose digests are known and must come out so.
    pub files: HashMap<&'k [u8], Option<Digest>>,
    /// A layer of this content that the same step made before and that can stand here: it is taken in place of the new one.
    pub twin: Option<&'k Twin<'k>>,
    /// Sees what goes into the layer; its error is the end of it.
    pub watch: Option<&'k mut Watch<'k>>,
}

/// Finds a layer of a content.
pub type Twin<'t> = dyn Fn(&ContentId) -> Result<Option<Layer>> + 't;

/// Hashes what changed, writes its rows and recipe, and publishes it: not durable yet.
pub fn pack(
    engine: &Engine,
    draft: Draft<'_>,
    parent: &Stack,
    made: &Made<'_>,
    known: Known<'_>,
    lease: &Lease,
    job: &Job,
) -> Result<Outcome> {
    let say = || "making a layer of what changed";
    let slot = engine.db.reserve_layer(lease)?;
    let mut recipe = RecipeFile::create(engine, &slot)?;
    let mut rows = slot.rows()?;
    let always = known.files.keys().map(|path| path.to_vec()).collect();
    let mut checked = Checked { rows: &mut rows, expected: known.files, differs: None };
    let options =
        PackOptions { clamp: made.epoch, stamp: true, always, watch: known.watch, ..PackOptions::default() };
    let packed = {
        let compared = draft.compare()?;
        layer::pack(job, compared.changes(true), options, &mut checked, recipe.out()).context(say)?
    };
    if let Some(path) = checked.differs {
        return Ok(Outcome::Differs(String::from_utf8_lossy(&path).into_owned()));
    }
    let row_count = rows.finish()?;
    let content_id = layer::content_id(engine.db.rows(slot.number())).context(say)?;
    if let Some(twin) = known.twin.and_then(|twin| twin(&content_id).transpose()) {
        return twin.map(Outcome::Layer);
    }
    recipe.keep(&slot, &packed.diff_id)?;
    let new = NewLayer {
        number: slot.number(),
        diff_id: packed.diff_id,
        base: None,
        leans: false,
        content_id,
        size: packed.bytes,
        tar_size: packed.size,
        row_count,
        made_by: made.instruction.map(str::to_owned),
        build: made.build,
    };
    super::publish(engine, draft, slot, &new, parent).map(Outcome::Layer)
}

/// Hands rows on, and looks whether the copied files are the ones that were hashed, and whether the layer can be read again.
struct Checked<'c> {
    rows: &'c mut dyn RowSink,
    expected: HashMap<&'c [u8], Option<Digest>>,
    differs: Option<Vec<u8>>,
}

impl RowSink for Checked<'_> {
    fn row(&mut self, row: Row) -> Result<()> {
        if let Some(Some(expected)) = self.expected.get(&row.path[..])
            && row.digest.is_some_and(|digest| digest != *expected)
        {
            self.differs.get_or_insert_with(|| row.path.clone());
        }
        layer::check_path(&row.path)?;
        self.rows.row(row)
    }
    fn replace(&mut self, row: Row) -> Result<()> {
        self.rows.replace(row)
    }
    fn forget(&mut self, path: &[u8]) -> Result<()> {
        self.rows.forget(path)
    }
}
