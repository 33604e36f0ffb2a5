//! What a build writes into the index: cache records, intermediate images, its own steps.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::difference::Difference;
use super::image;
use super::mounts::caches::Identity;
use super::stage::StepResult;
use crate::db::{
    BuildId, BuildStep, CacheRecord, KeyKind, LayerRow, NewCacheRecord, NewImage, Origin, RecordId,
    StepOutcome, Time, Writer,
};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{CacheKey, ContentId, Digest, ImageConfig, ImageId};
use crate::job::StepAt;
use crate::plan::{self, Action, Step};
use crate::rootfs::{Layer, Stack};

/// What a build tells of itself, gathered: one small transaction at its end in place of two for every step.
#[derive(Default)]
pub struct Notes(Mutex<Gathered>);

#[derive(Default)]
struct Gathered {
    used: Vec<RecordId>,
    caches: Vec<Identity>,
    steps: Vec<BuildStep>,
}

impl Notes {
    fn gather(&self, note: impl FnOnce(&mut Gathered)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The keys that steps are found under on the stacks they stand on, in the steps' order, each once.
    pub fn keys(&self) -> Vec<CacheKey> {
        let gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<&BuildStep> = gathered.steps.iter().collect();
        steps.sort_by_key(|step| step.n);
        let mut seen = HashSet::new();
        steps
            .into_iter()
            .filter_map(|step| step.key)
            .map(|(_, key)| key)
            .filter(|key| seen.insert(*key))
            .collect()
    }

    /// A step has this cache mounted, whether it runs or not.
    pub(super) fn cache(&self, identity: Identity) {
        self.gather(|notes| {
            if !notes.caches.contains(&identity) {
                notes.caches.push(identity);
            }
        });
    }

    /// The cache mounts of all steps, in an order of their own.
    pub fn caches(&self) -> Vec<Identity> {
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner).caches.clone();
        caches.sort_by_key(Identity::name);
        caches
    }

    /// The build begins anew: what it told so far is void.
    pub fn start_again(&self) {
        self.gather(|notes| notes.steps.clear());
    }

    pub fn write(&self, index: &Writer<'_>, build: BuildId) -> Result<()> {
        let gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for record in &gathered.used {
            index.cache_record_used(*record)?;
        }
        for step in &gathered.steps {
            index.add_build_step(build, step)?;
        }
        Ok(())
    }
}

/// As many records of one step are looked at.
const MOST_RECORDS: u32 = 16;

#[derive(Clone)]
pub(super) struct Hit {
    pub(super) layer: Option<Layer>,
    pub(super) created: String,
    /// Whose step it was.
    pub(super) build: Option<BuildId>,
}

/// A record of the same step on another stack, which shows what the step saw.
pub(super) struct Elsewhere {
    pub(super) hit: Hit,
    /// What it saw.
    pub(super) reads: String,
    pub(super) made_at: Time,
}

/// The newest record under the key, with its layer, which is all there; one that is older than `newest` does not count.
pub(super) fn look_up(
    engine: &Engine,
    key: &CacheKey,
    newest: Option<Duration>,
    notes: &Notes,
) -> Result<Option<Hit>> {
    engine.db.read(|index| {
        let Some(record) = index.cached(KeyKind::Chain, key)? else { return Ok(None) };
        if newest.is_some_and(|newest| age(&record) > newest) {
            return Ok(None);
        }
        let layer = match record.layer {
            Some(number) => match index.layer(number)? {
                Some(row) => Some(Layer::from(&row)),
                None => return Ok(None),
            },
            None => None,
        };
        notes.gather(|notes| notes.used.push(record.id));
        Ok(Some(Hit { layer, created: record.created, build: record.build }))
    })
}

/// The newest record of the step that what it saw does not speak against, with its layer; `holds` says so.
pub(super) fn look_up_elsewhere(
    engine: &Engine,
    step: &CacheKey,
    newest: Option<Duration>,
    notes: &Notes,
    holds: impl Fn(&str, Option<&Layer>) -> Result<bool>,
) -> Result<Option<Elsewhere>> {
    let known = engine.db.read(|index| {
        let mut known = Vec::new();
        for record in index.cached_step(step, MOST_RECORDS)? {
            if record.reads.is_none() || newest.is_some_and(|newest| age(&record) > newest) {
                continue;
            }
            let layer = match record.layer {
                Some(number) => match index.layer(number)? {
                    Some(row) if !row.leans => Some(Layer::from(&row)),
                    _ => continue,
                },
                None => None,
            };
            known.push((record, layer));
        }
        Ok(known)
    })?;
    for (record, layer) in known {
        let Some(reads) = record.reads else { continue };
        if holds(&reads, layer.as_ref())? {
            notes.gather(|notes| notes.used.push(record.id));
            let hit = Hit { layer, created: record.created, build: record.build };
            return Ok(Some(Elsewhere { hit, reads, made_at: record.made_at }));
        }
    }
    Ok(None)
}

/// Why a record under the key does not count, where it is its age.
pub(super) fn expired(engine: &Engine, key: &CacheKey, newest: Duration) -> Result<Option<Difference>> {
    let record = engine.db.read(|index| index.cached(KeyKind::Chain, key))?;
    let age = record.map(|record| age(&record)).filter(|age| *age > newest);
    Ok(age.map(|age| Difference::Expired { age: age.as_secs(), most: newest.as_secs() }))
}

/// Since the step ran. A clock that was set back makes it new.
fn age(record: &CacheRecord) -> Duration {
    let nanoseconds = Time::now().0.saturating_sub(record.made_at.0);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// What the step made once before of this content, wherever it stood then.
pub(super) fn made_before(engine: &Engine, step: &CacheKey, content: &ContentId) -> Result<Option<Hit>> {
    made(engine, step, |row| row.content_id == *content)
}

/// What a step of this key made last, wherever it stood.
pub(super) fn made_last(engine: &Engine, step: &CacheKey) -> Result<Option<Hit>> {
    made(engine, step, |_| true)
}

fn made(engine: &Engine, step: &CacheKey, counts: impl Fn(&LayerRow) -> bool) -> Result<Option<Hit>> {
    engine.db.read(|index| {
        for record in index.cached_step(step, MOST_RECORDS)? {
            let Some(number) = record.layer else { continue };
            if let Some(row) = index.layer(number)?.filter(|row| !row.leans && counts(row)) {
                let layer = Some(Layer::from(&row));
                return Ok(Some(Hit { layer, created: record.created, build: record.build }));
            }
        }
        Ok(None)
    })
}

/// A step on a stack, as its records say.
pub(super) struct New<'n> {
    pub(super) key: CacheKey,
    pub(super) step: CacheKey,
    pub(super) key_text: String,
    pub(super) instruction: &'n str,
}

/// What it came to.
pub(super) struct Came<'c> {
    pub(super) layer: Option<&'c Layer>,
    pub(super) created: &'c str,
    /// What it saw of what it stands on, where that is known.
    pub(super) reads: Option<String>,
    /// When it ran; `None`: now.
    pub(super) made_at: Option<Time>,
}

impl New<'_> {
    pub(super) fn record(&self, came: Came<'_>, build: BuildId) -> NewCacheRecord {
        NewCacheRecord {
            kind: KeyKind::Chain,
            key: self.key,
            key_text: self.key_text.clone(),
            step: self.step,
            reads: came.reads,
            instruction: self.instruction.to_owned(),
            layer: came.layer.map(|layer| layer.number),
            created: came.created.to_owned(),
            image: None,
            build: Some(build),
            made_at: came.made_at,
        }
    }
}

/// Only for a step that ran, or whose layer stands on this stack as it would have come to.
pub(super) fn remember(engine: &Engine, new: &New<'_>, came: Came<'_>, build: BuildId) -> Result<()> {
    let record = new.record(came, build);
    engine.db.write(|index| index.insert_cache_record(&record)).map(drop)
}

/// The image after a step; there already on a hit of the same build.
pub fn publish_image(
    engine: &Engine,
    config: &ImageConfig,
    parent: Option<ImageId>,
    stack: &Stack,
    build: BuildId,
) -> Result<ImageId> {
    let bytes = image::to_bytes(config);
    let id = ImageId(Digest::of(&bytes));
    let usable = engine.db.read(|index| index.image(&id))?.is_some_and(|row| row.durable && !row.condemned);
    if usable {
        return Ok(id);
    }
    let staged = engine.blobs.stage(&bytes)?;
    let last = config.history.last();
    engine.db.write(|index| {
        staged.publish(index, None)?;
        let mut below = None;
        for layer in stack.layers() {
            below = Some(engine.snapshots.stand(index, below.as_ref(), layer.number)?.0);
        }
        index.insert_image(&NewImage {
            id,
            parent,
            chain: below,
            platform: config.platform().to_string(),
            created: config.created.clone(),
            created_by: last.and_then(|entry| entry.created_by.clone()),
            origin: Origin::Built,
            build: Some(build),
        })
    })?;
    Ok(id)
}

pub(super) fn note_step(
    notes: &Notes,
    at: &StepAt,
    step: &Step,
    result: &StepResult,
    image: ImageId,
    took: Duration,
) {
    let outcome = if result.hit { StepOutcome::Hit } else { StepOutcome::Ran };
    let step = BuildStep {
        n: at.number as u64,
        stage: at.stage.clone(),
        lines: lines(&step.at),
        instruction: step.created_by.clone(),
        outcome,
        key: Some((result.kind, result.key)),
        reason: result
            .reason
            .as_ref()
            .map(|reason| serde_json::to_string(reason).expect("differences are plain data")),
        image: Some(image),
        layer: result.layer.as_ref().map(|layer| layer.number),
        took,
    };
    notes.gather(|notes| notes.steps.push(step));
}

/// A step that failed has neither key nor image to tell. The output of one with secrets may show them: it is not kept.
pub(super) fn note_failure(notes: &Notes, at: &StepAt, step: &Step, problem: &Error, took: Duration) {
    let secret = matches!(&step.action, Action::Run(run)
        if run.mounts.iter().any(|mount| matches!(mount, plan::Mount::Secret(_))));
    let said = problem.to_string();
    let said = if secret { said.lines().next().unwrap_or_default().to_owned() } else { said };
    let step = BuildStep {
        n: at.number as u64,
        stage: at.stage.clone(),
        lines: lines(&step.at),
        instruction: step.created_by.clone(),
        outcome: StepOutcome::Failed,
        key: None,
        reason: Some(said),
        image: None,
        layer: None,
        took,
    };
    notes.gather(|notes| notes.steps.push(step));
}

/// `3` or `3-5`.
pub(super) fn lines(at: &plan::At) -> String {
    match at.lines {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}
