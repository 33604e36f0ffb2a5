//! Steps of builds that failed, kept as containers that have ended.

use serde::{Deserialize, Serialize};

use super::create::record;
use super::{Config, is_idle};
use crate::db::{BuildId, ContainerId, ContainerRow, ContainerState, NewContainer};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{CacheKey, ChainId, Digest, ImageId};
use crate::snapshot::Draft;

/// As many are kept.
const MOST: usize = 3;

/// Which step it was, and what it saw beside its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStep {
    pub build: BuildId,
    /// As the build counted, from 1.
    pub number: usize,
    pub key: CacheKey,
    /// As written, on one line.
    pub instruction: String,
    pub mounts: Vec<StepMount>,
}

/// Closed. Temporary filesystems stand in the container's own configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepMount {
    /// Files of a build context in a directory of the host, where it has one.
    Files {
        dir: Option<String>,
        source: String,
        target: String,
    },
    /// Files of a stage or an image.
    Tree {
        chain: Option<ChainId>,
        source: String,
        target: String,
    },
    Cache {
        id: String,
        /// What a new one begins with.
        content: Option<Digest>,
        mode: u32,
        owner: (u32, u32),
        sharing: String,
        /// Below the cache's own directory.
        source: String,
        target: String,
        read_only: bool,
    },
    Secret {
        id: String,
        target: Option<String>,
        env: Option<String>,
        mode: u32,
        owner: (u32, u32),
    },
    Ssh {
        id: String,
        target: String,
    },
}

impl FailedStep {
    /// The label of such a container: BUILD/STEP.
    pub const LABEL: &str = "outcrop.failed-step";
}

/// All that are here, the latest first.
pub fn kept(engine: &Engine) -> Result<Vec<(FailedStep, ContainerRow)>> {
    let rows = engine.db.read(|index| index.containers())?;
    let mut kept = Vec::new();
    for row in rows.into_iter().filter(|row| row.state != ContainerState::Removing) {
        if let Some(step) = Config::of(&row)?.step {
            kept.push((step, row));
        }
    }
    kept.sort_by_key(|(step, _)| std::cmp::Reverse((step.build, step.number)));
    Ok(kept)
}

/// Makes the tree of a step that ended with `code` a container that has ended; of those from before, the oldest go.
pub fn adopt(
    engine: &Engine,
    draft: Draft<'_>,
    image: ImageId,
    config: &Config,
    code: i32,
) -> Result<ContainerRow> {
    let step = config.step.as_ref().ok_or_else(|| Error::internal("a container of no step"))?;
    let id = ContainerId::random();
    let name = format!("failed-{}-{}", step.build.0, step.number);
    let mut idle = Vec::new();
    for (_, row) in kept(engine)?.into_iter().skip(MOST - 1) {
        if is_idle(engine, &row)? {
            idle.push(row.id);
        }
    }
    let config = config.to_json()?;
    let row = draft.keep(|index, snapshot| {
        index.image(&image)?.ok_or_else(|| Error::not_found("the image it stands on is gone"))?;
        index.insert_container(&NewContainer {
            id: id.clone(),
            name,
            image,
            snapshot,
            auto_remove: false,
            config,
        })?;
        index.container_exited(&id, code)?;
        for old in &idle {
            // One that was started or removed meanwhile stays or is gone.
            if index.container(old)?.is_some_and(|row| row.state == ContainerState::Exited) {
                index.remove_container(old)?;
            }
        }
        let row = index.container(&id)?;
        row.ok_or_else(|| Error::internal("a container that was inserted is not there"))
    })?;
    if let Err(error) = record(engine, &row) {
        engine.db.write(|index| index.remove_container(&id))?;
        return Err(error);
    }
    Ok(row)
}
