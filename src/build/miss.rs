//! Why a step missed: its key beside that of the nearest earlier record.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;

use super::difference::{Difference, Known, between};
use crate::context::Input;
use crate::context::listing::{self, Entry};
use crate::db::{BuildId, BuildStep, CacheRecord, KeyKind};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{CacheKey, Digest};

/// As many records of one instruction are compared.
const MOST_RECORDS: u32 = 16;
/// Bytes of a list that are read back; what is longer is not explained file by file.
const LONGEST_LIST: u64 = 256 << 20;

/// The last build of the same Dockerfile with the same context; looked up at the first miss.
pub struct Previous {
    context: String,
    dockerfile: String,
    before: BuildId,
    steps: OnceLock<Vec<BuildStep>>,
}

impl Previous {
    /// Before build `before`; the rest as [`crate::db::NewBuild`] names it.
    pub fn new(context: String, dockerfile: String, before: BuildId) -> Self {
        Previous { context, dockerfile, before, steps: OnceLock::new() }
    }

    /// Its number, if there is one.
    pub fn build(&self, engine: &Engine) -> Result<Option<BuildId>> {
        let build = engine.db.read(|index| index.previous_build(&self.context, &self.dockerfile))?;
        Ok(build.map(|build| build.id).filter(|id| *id < self.before))
    }

    pub(super) fn steps(&self, engine: &Engine) -> Result<&[BuildStep]> {
        if let Some(steps) = self.steps.get() {
            return Ok(steps);
        }
        let steps = match self.build(engine)? {
            Some(build) => engine.db.read(|index| index.build_steps(build))?,
            None => Vec::new(),
        };
        Ok(self.steps.get_or_init(|| steps))
    }
}

/// A step that found no record.
pub(super) struct Missed<'m> {
    /// Among all steps, from 1, and its stage.
    pub(super) n: u64,
    pub(super) stage: Option<&'m str>,
    pub(super) instruction: &'m str,
    pub(super) key: CacheKey,
    pub(super) key_text: &'m str,
}

/// What is different from the nearest earlier record, and whether the last build of this Dockerfile had the step.
pub(super) fn why(
    engine: &Engine,
    previous: &Previous,
    missed: &Missed<'_>,
) -> Result<(Vec<Difference>, bool)> {
    let steps = previous.steps(engine)?;
    let same =
        |step: &&BuildStep| step.instruction == missed.instruction && step.stage.as_deref() == missed.stage;
    let place = |step: &&BuildStep| step.n == missed.n && step.stage.as_deref() == missed.stage;
    let before = steps.iter().find(same).or_else(|| steps.iter().find(place));
    if before.is_some_and(|step| step.key.is_some_and(|(_, key)| key == missed.key)) {
        return Ok((vec![Difference::Forgotten], true));
    }
    let new: Value = serde_json::from_str(missed.key_text).context(|| "reading a cache key")?;
    let known = Store { engine };
    let (own, mut records) = engine.db.read(|index| {
        let own = match before.and_then(|step| step.key) {
            Some((_, key)) => index.cached(KeyKind::Chain, &key)?,
            None => None,
        };
        Ok((own, index.cache_records_of(missed.instruction, MOST_RECORDS)?))
    })?;
    // What stands on the same is nearer than what stands elsewhere; then the last build's own, then the newest.
    let on_same = |record: &CacheRecord| {
        serde_json::from_str::<Value>(&record.key_text)
            .is_ok_and(|old| old.get("parent") == new.get("parent"))
    };
    records.sort_by_key(|record| !on_same(record));
    let nearest = records
        .first()
        .filter(|record| on_same(record))
        .cloned()
        .or(own)
        .or_else(|| records.first().cloned());
    let Some(nearest) = nearest else { return Ok((vec![Difference::First], before.is_some())) };
    let old: Value = serde_json::from_str(&nearest.key_text).context(|| "reading a cache key")?;
    let mut found = between(&old, &new, &known);
    if found.is_empty() {
        found.push(Difference::Forgotten);
    }
    Ok((found, before.is_some()))
}

struct Store<'s> {
    engine: &'s Engine,
}

impl Known for Store<'_> {
    fn files(&self, digest: &Digest) -> Option<Vec<Entry>> {
        let file = File::open(place(self.engine, digest)).ok()?;
        let mut text = Vec::new();
        zstd::Decoder::new(file).ok()?.take(LONGEST_LIST).read_to_end(&mut text).ok()?;
        listing::read(&text).ok()
    }

    fn instruction(&self, content: &str) -> Option<String> {
        let content: Digest = content.parse().ok()?;
        self.engine.db.read(|index| index.instruction_of(&content.into())).ok()?
    }
}

fn place(engine: &Engine, digest: &Digest) -> PathBuf {
    engine.root.join("cache/inputs").join(digest.hex())
}

/// Keeps the list of what a source selected, for the explanations to come. It is nobody's truth, and may be lost.
pub(super) fn keep_list(engine: &Engine, input: &Input<'_>) -> Result<()> {
    let path = place(engine, &input.digest());
    if path.exists() {
        return Ok(());
    }
    let say = || format!("writing {}", path.display());
    let dir = path.parent().expect("it stands in a directory");
    std::fs::create_dir_all(dir).context(say)?;
    let draft = dir.join(format!(".{}-{}", std::process::id(), crate::db::ContainerId::random().short()));
    let written = (|| {
        let file = File::create_new(&draft).context(say)?;
        let mut out = zstd::Encoder::new(BufWriter::new(file), 1).context(say)?;
        listing::write(listing::entries(input), &mut out)?;
        out.finish().and_then(|mut file| file.flush()).context(say)?;
        std::fs::rename(&draft, &path).context(say)
    })();
    if written.is_err() {
        drop(std::fs::remove_file(&draft));
    }
    written
}

/// Removes the lists that no record's key names any more, and what a killed build left.
pub fn trim_lists(engine: &Engine) -> Result<()> {
    let dir = engine.root.join("cache/inputs");
    let entries = match std::fs::read_dir(&dir) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context(|| format!("listing {}", dir.display()))?,
    };
    let named: HashSet<String> = engine.db.read(|index| {
        let records = index.cache_records()?;
        let digests = records.iter().flat_map(|record| record.key_text.split("sha256:").skip(1));
        Ok(digests.filter_map(|rest| rest.get(..64)).map(str::to_owned).collect())
    })?;
    for entry in entries {
        let entry = entry.context(|| format!("listing {}", dir.display()))?;
        let name = entry.file_name();
        let needed = name.to_str().is_some_and(|name| named.contains(name));
        if !needed {
            drop(std::fs::remove_file(entry.path()));
        }
    }
    Ok(())
}
