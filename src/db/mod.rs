//! The index of a store: names, relations and records in outcrop.db, the rows of every layer's files in files.db.
//!
//! A [`Db`] is one process's way in: `read`, `write`, `durable` and `barrier` run a closure in a transaction and hand
//! it a [`Reader`], a [`Writer`] or a [`Durable`], on which all look-ups and changes are methods.
//!
//! What keeps what: an image is kept by tags, containers and images that stand on it; a chain by images; a layer by
//! chains, cache records and the snapshots below a container; a blob by images (their configs), by what tags and
//! repository digests name, and by layers. What nothing keeps is condemned, and goes once nobody is left who may have
//! seen it (`epoch.rs`). So whoever works in an epoch may rely on all it saw, and making a reference to something
//! condemned brings it back, with all it stands on.
//!
//! What a process has under way, and nothing refers to yet, hangs on its lease (`lease.rs`); [`Db::sweep`] clears up
//! after the dead.

mod asking;
mod barrier;
mod blob;
mod build;
mod cache;
mod changes;
mod check;
mod container;
mod disk;
mod epoch;
mod event;
mod files;
mod ids;
mod image;
mod incoming;
mod intent;
mod layer;
mod lease;
mod liveness;
mod meta;
mod migrate;
mod open;
mod origins;
mod rebuild;
mod rows;
mod scratch;
mod snapshot;
mod strays;
mod sweep;
mod switch;
mod tag;
mod tag_log;
#[cfg(test)]
pub(crate) mod testing;
mod time;
mod transaction;
mod volume;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use rusqlite::Connection;

pub use barrier::Pending;
pub use blob::{BlobLayer, BlobRow};
pub use build::{BuildRow, BuildStatus, BuildStep, NewBuild, StepOutcome};
pub use cache::{CacheRecord, KeyKind, NewCacheRecord};
pub use changes::Changes;
pub use check::Fault;
pub use container::{ContainerRow, ContainerState, NewContainer, name_is_taken};
pub use epoch::EpochGuard;
pub use event::{EventRow, NewEvent};
pub use ids::{BuildId, ContainerId, Epoch, LayerNumber, RecordId, SnapshotId};
pub use image::{ImageRow, NewImage, Origin, RepoDigest};
pub use intent::Intent;
pub use layer::{ChainRow, LayerRow, NewLayer, Published};
pub use lease::{Lease, LeaseName, random_name};
pub use liveness::{Condemned, Usage};
pub use origins::{Seen, seen};
pub use rebuild::Rebuild;
pub use rows::{Found, LayerSlot, RowWriter, Rows};
pub use scratch::Scratch;
pub use snapshot::{Keyed, Sealed, SnapshotRow, SnapshotState};
pub use sweep::Swept;
pub use switch::{DriverAlone, DriverLock, Moved};
pub use tag::TagRow;
pub use tag_log::TagMove;
pub use time::Time;
pub use transaction::{Durable, Reader, Writer};
pub use volume::VolumeRow;

/// Cheap to clone; clones share one connection for each database.
#[derive(Clone)]
pub struct Db(Arc<Shared>);

struct Shared {
    root: PathBuf,
    locks: PathBuf,
    /// See [`Db::boot`].
    boot: String,
    /// What files.db must say of itself to belong to this index.
    pair: String,
    index: Mutex<Connection>,
    /// Who has the index's connection now.
    holder: Mutex<Option<ThreadId>>,
    rows_path: PathBuf,
    /// files.db, to write rows and to read them; opened when first needed.
    rows: Mutex<Option<Connection>>,
    row_reader: Mutex<Option<Connection>>,
    /// The epoch of the process; `None` when it holds leases in its place.
    epoch: Mutex<Option<EpochGuard>>,
    /// Locked, so that no other engine changes the tables under us. Open since before anything was seen: `disk.rs`.
    in_use: File,
    /// Somebody asked the disk when it was opened: nobody tells it what he was told.
    came_while_asked: bool,
}
