//! A layer as a set of changes, as rows, and as a tar.
//!
//! [`pack`] makes the archive of what changed; [`apply`] writes an archive's changes into a directory; [`scan`]
//! reads one without writing; [`replay`] makes an archive again, bit for bit, from its recipe and the files.
//!
//! Out: `pack` -> `walk` finds what changed -> `archive` writes it (`header`). In: `unpack` reads members (`read`,
//! `fields`), knows what they mean and what came before (`seen`), and tells a `target`: the disk (`apply`), or nobody
//! (`scan`). Both hash on threads of their own (`hashing`) and write down a `recipe` as they go.

pub mod compress;

mod apply;
mod archive;
mod compare;
mod content;
mod fields;
mod hashing;
mod header;
mod linked;
mod newest;
mod pack;
mod read;
mod recipe;
mod row;
mod scan;
mod seen;
mod settle;
mod target;
mod touched;
mod tree;
mod twins;
mod unpack;
mod verify;
mod walk;

use std::thread::{Builder, Scope, ScopedJoinHandle};

pub use apply::{Applied, apply, apply_sharing};
pub use compare::{Kinship, compare};
pub use content::content_id;
pub use header::plain_header;
pub use newest::Newest;
pub use pack::{Changes, PackOptions, Packed, Part, Root, Watch, pack};
pub use recipe::{Replayed, replay};
pub(crate) use row::is_at_or_below;
pub use row::{Form, Kind, Row, RowSink};
pub use scan::{Scanned, scan};
pub use settle::settle;
pub use touched::Touched;
pub(crate) use tree::split;
pub use unpack::check_path;
pub use verify::{Difference, Extras, Finding, Findings, verify};

/// A thread that may pack or unpack: directories in each other take 2 to 5 KB of its stack each, without optimization more
/// than a thread has.
pub fn spawn<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    work: impl FnOnce() -> T + Send + 's,
) -> ScopedJoinHandle<'s, T> {
    let thread = Builder::new().stack_size(16 << 20);
    thread.spawn_scoped(scope, work).expect("a thread can be started, as `Scope::spawn` says")
}
