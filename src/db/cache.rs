//! Cache records: what a step came to. A record is a reference: it keeps its layer.

use super::ids::{BuildId, LayerNumber, RecordId, words};
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::Result;
use crate::image::{CacheKey, ImageId};

words! {
    /// What the key is made of, weakest last.
    KeyKind {
        /// The step, its inputs and the stack below it.
        Chain = "chain",
        /// The step and its inputs, wherever it stands.
        Content = "content",
        /// The step and what it was seen to read.
        Observed = "observed",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    pub id: RecordId,
    pub kind: KeyKind,
    pub key: CacheKey,
    /// The key as JSON, for people and for comparing.
    pub key_text: String,
    /// The key without what the step stands on.
    pub step: Option<CacheKey>,
    /// JSON: what the step was seen to read of what it stood on; `None`: all of it counts.
    pub reads: Option<String>,
    /// The instruction, canonical.
    pub instruction: String,
    /// `None`: the step makes no layer.
    pub layer: Option<LayerNumber>,
    /// What the image's config says; with it the image of a hit comes out equal.
    pub created: String,
    /// The image it made then; it may be gone.
    pub image: Option<ImageId>,
    pub build: Option<BuildId>,
    pub made_at: Time,
    pub last_used_at: Time,
    pub uses: u64,
}

#[derive(Clone, Debug)]
pub struct NewCacheRecord {
    pub kind: KeyKind,
    pub key: CacheKey,
    pub key_text: String,
    pub step: CacheKey,
    pub reads: Option<String>,
    pub instruction: String,
    pub layer: Option<LayerNumber>,
    pub created: String,
    pub image: Option<ImageId>,
    pub build: Option<BuildId>,
    /// When the step ran; `None`: now.
    pub made_at: Option<Time>,
}

const COLUMNS: &str = "select cache_record.id, kind, key, key_text, instruction, cache_record.layer, created, image, \
                       cache_record.build, cache_record.made_at, last_used_at, uses, step, reads from cache_record";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<CacheRecord> {
    Ok(CacheRecord {
        id: row.get(0)?,
        kind: row.get(1)?,
        key: row.get(2)?,
        key_text: row.get(3)?,
        instruction: row.get(4)?,
        layer: row.get(5)?,
        created: row.get(6)?,
        image: row.get(7)?,
        build: row.get(8)?,
        made_at: row.get(9)?,
        last_used_at: row.get(10)?,
        uses: row.get(11)?,
        step: row.get(12)?,
        reads: row.get(13)?,
    })
}

impl Reader<'_> {
    /// The newest valid record under the key whose layer, if it has one, is all there.
    pub fn cached(&self, kind: KeyKind, key: &CacheKey) -> Result<Option<CacheRecord>> {
        self.one(
            &format!(
                "{COLUMNS} left join layer on layer.id = cache_record.layer
                 where key = ?1 and kind = ?2 and valid = 1
                     and (pending_boot is null or pending_boot = ?3)
                 order by cache_record.id desc limit 1"
            ),
            (key, kind, self.db.boot()),
            row,
        )
    }

    /// What a step came to wherever it stood, the newest first: valid records whose layer, if they have one, is all there.
    pub fn cached_step(&self, step: &CacheKey, limit: u32) -> Result<Vec<CacheRecord>> {
        self.all(
            &format!(
                "{COLUMNS} left join layer on layer.id = cache_record.layer
                 where step = ?1 and valid = 1 and (pending_boot is null or pending_boot = ?2)
                 order by cache_record.id desc limit ?3"
            ),
            (step, self.db.boot(), limit),
            row,
        )
    }

    /// The newest records of an instruction, whatever their keys: what a miss is compared with.
    pub fn cache_records_of(&self, instruction: &str, limit: u32) -> Result<Vec<CacheRecord>> {
        self.all(
            &format!("{COLUMNS} where instruction = ?1 order by id desc limit ?2"),
            (instruction, limit),
            row,
        )
    }

    /// All valid ones, the latest first.
    pub fn cache_records(&self) -> Result<Vec<CacheRecord>> {
        self.all(&format!("{COLUMNS} where valid = 1 order by id desc"), (), row)
    }
}

impl Writer<'_> {
    pub fn insert_cache_record(&self, new: &NewCacheRecord) -> Result<RecordId> {
        let now = Time::now();
        self.exec(
            "insert into cache_record (kind, key, key_text, step, reads, instruction, layer, created, image, build,
                 made_at, last_used_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            rusqlite::params![
                new.kind,
                new.key,
                &new.key_text,
                new.step,
                &new.reads,
                &new.instruction,
                new.layer,
                &new.created,
                new.image,
                new.build,
                new.made_at.unwrap_or(now),
                now,
            ],
        )?;
        let id = RecordId(self.last_id());
        if let Some(layer) = new.layer {
            self.keep_layer(layer)?;
        }
        Ok(id)
    }

    pub fn cache_record_used(&self, id: RecordId) -> Result<()> {
        self.exec(
            "update cache_record set uses = uses + 1, last_used_at = ?2 where id = ?1",
            (id, Time::now()),
        )
        .map(drop)
    }

    /// It turned out wrong or too old: it is found no more, and keeps nothing.
    pub fn remove_cache_record(&self, id: RecordId) -> Result<()> {
        self.exec("delete from cache_record where id = ?1", (id,)).map(drop)
    }

    /// Those not used since. How many they were.
    pub fn remove_cache_records_unused_since(&self, time: Time) -> Result<usize> {
        self.exec("delete from cache_record where last_used_at < ?1", (time,))
    }
}
