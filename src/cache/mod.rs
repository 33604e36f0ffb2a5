//! What builds know, moved between machines: records, the rows of layers, and their bytes.
//!
//! A cache is an OCI manifest. Its config is an index ([`document`]) of records and layers; its blobs are a layer's rows
//! and its archive, each named by the index. [`Imported`] reads the index alone: a record is a hit with a layer that is
//! not here. Rows come when a tree is walked for a key, bytes when a step stands on the layer or an output needs it.
//! [`export`] writes what a build came to; what the other side has is not written again.

mod base;
mod bring;
mod deferred;
mod document;
mod elsewhere;
mod export;
mod import;
mod inline;
mod mount_files;
mod mounts;
mod options;
mod origin;
mod packs;
mod rows;
mod target;

pub use base::Bring;
pub use export::{Built, export};
pub use import::{Imported, RemoteHit};
pub use inline::{forget as forget_inline, inline};
pub use mounts::MountDir;
pub use options::{From, Mode, Options, To, parse_from, parse_to};
