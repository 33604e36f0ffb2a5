//! Images as pure data: names, digests, descriptors, manifests, configs. No I/O.

mod config;
mod descriptor;
mod digest;
mod history;
mod index;
mod json;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use descriptor::{Descriptor, PlatformEntry};
pub use digest::{CacheKey, ChainId, ContentId, DiffId, Digest, Hasher, ImageId, LayerId};
pub use history::Step;
pub use index::Index;
pub use manifest::{Document, MAX_CONFIG, MAX_MANIFEST, Manifest};
pub use media_type::{Compression, MediaType};
pub use platform::Platform;
pub use reference::Reference;
