//! Images as pure data: names, digests, descriptors, manifests, configs. No I/O.

mod config;
mod digest;
mod platform;

pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use digest::{CacheKey, ChainId, ContentId, DiffId, Digest, Hasher, ImageId, LayerId};
pub use platform::Platform;
