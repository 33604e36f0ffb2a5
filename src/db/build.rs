//! Builds and what became of their steps.

use super::cache::KeyKind;
use super::ids::{BuildId, LayerNumber, words};
use super::lease::Lease;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::Result;
use crate::image::{CacheKey, ImageId};

words! {
    BuildStatus {
        Running = "running",
        Done = "done",
        Failed = "failed",
        Cancelled = "cancelled",
        /// Its process died.
        Killed = "killed",
    }
}
words! {
    StepOutcome {
        Hit = "hit",
        Ran = "ran",
        Failed = "failed",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRow {
    pub id: BuildId,
    pub started_at: Time,
    pub finished_at: Option<Time>,
    pub status: BuildStatus,
    /// As the user named it.
    pub context: String,
    pub dockerfile: String,
    /// JSON.
    pub options: String,
    pub image: Option<ImageId>,
}

#[derive(Clone, Debug)]
pub struct NewBuild {
    pub context: String,
    pub dockerfile: String,
    /// JSON.
    pub options: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildStep {
    /// As people count: from 1.
    pub n: u64,
    pub stage: Option<String>,
    /// `3` or `3-5`.
    pub lines: String,
    pub instruction: String,
    pub outcome: StepOutcome,
    /// The key that hit, or under which the result was stored.
    pub key: Option<(KeyKind, CacheKey)>,
    /// Of a step that ran, why it missed: JSON (`build::difference`); of one that failed, its error in words.
    pub reason: Option<String>,
    pub image: Option<ImageId>,
    pub layer: Option<LayerNumber>,
    pub took: std::time::Duration,
}

const COLUMNS: &str =
    "select id, started_at, finished_at, status, context, dockerfile, options, image from build";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow {
        id: row.get(0)?,
        started_at: row.get(1)?,
        finished_at: row.get(2)?,
        status: row.get(3)?,
        context: row.get(4)?,
        dockerfile: row.get(5)?,
        options: row.get(6)?,
        image: row.get(7)?,
    })
}

impl Reader<'_> {
    pub fn build(&self, id: BuildId) -> Result<Option<BuildRow>> {
        self.one(&format!("{COLUMNS} where id = ?1"), (id,), row)
    }

    /// The latest first.
    pub fn builds(&self, limit: u32) -> Result<Vec<BuildRow>> {
        self.all(&format!("{COLUMNS} order by id desc limit ?1"), (limit,), row)
    }

    /// The latest finished build of the same Dockerfile with the same context.
    pub fn previous_build(&self, context: &str, dockerfile: &str) -> Result<Option<BuildRow>> {
        self.one(
            &format!(
                "{COLUMNS} where context = ?1 and dockerfile = ?2 and status <> 'running' order by id desc limit 1"
            ),
            (context, dockerfile),
            row,
        )
    }

    pub fn build_steps(&self, build: BuildId) -> Result<Vec<BuildStep>> {
        self.all(
            "select n, stage, lines, instruction, outcome, key_kind, key, reason, image, layer, took_ns
             from build_step where build = ?1 order by n",
            (build,),
            |row| {
                let key = row.get::<_, Option<KeyKind>>(5)?.zip(row.get(6)?);
                Ok(BuildStep {
                    n: row.get(0)?,
                    stage: row.get(1)?,
                    lines: row.get(2)?,
                    instruction: row.get(3)?,
                    outcome: row.get(4)?,
                    key,
                    reason: row.get(7)?,
                    image: row.get(8)?,
                    layer: row.get(9)?,
                    took: std::time::Duration::from_nanos(row.get(10)?),
                })
            },
        )
    }
}

impl Writer<'_> {
    /// Running, as long as the lease is held.
    pub fn start_build(&self, new: &NewBuild, lease: &Lease) -> Result<BuildId> {
        self.exec(
            "insert into build (started_at, status, context, dockerfile, options, lease)
             values (?1, 'running', ?2, ?3, ?4, ?5)",
            (Time::now(), &new.context, &new.dockerfile, &new.options, lease.name()),
        )?;
        Ok(BuildId(self.last_id()))
    }

    pub fn add_build_step(&self, build: BuildId, step: &BuildStep) -> Result<()> {
        let took = u64::try_from(step.took.as_nanos()).unwrap_or(u64::MAX >> 1);
        self.exec(
            "insert into build_step (build, n, stage, lines, instruction, outcome, key_kind, key, reason, image,
                 layer, took_ns)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            rusqlite::params![
                build,
                step.n,
                step.stage,
                step.lines,
                step.instruction,
                step.outcome,
                step.key.map(|key| key.0),
                step.key.map(|key| key.1),
                step.reason,
                step.image,
                step.layer,
                took,
            ],
        )
        .map(drop)
    }

    pub fn finish_build(&self, build: BuildId, status: BuildStatus, image: Option<&ImageId>) -> Result<()> {
        self.exec(
            "update build set status = ?2, image = ?3, finished_at = ?4, lease = null where id = ?1",
            (build, status, image, Time::now()),
        )
        .map(drop)
    }

    /// Forgets all builds but the latest.
    pub fn trim_builds(&self, keep: u32) -> Result<usize> {
        self.exec(
            "delete from build where status <> 'running' and id <= (select max(id) from build) - ?1",
            (keep,),
        )
    }
}
