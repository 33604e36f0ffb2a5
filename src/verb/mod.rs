//! What the command line, and whatever else is a front door, can ask for: one flow per file.

pub mod bootstrap;
pub mod build;
pub mod disk_usage;
pub mod history;
pub mod image_prune;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod layers;
pub mod log;
pub mod pull;
pub mod rmi;
pub mod rollback;
pub mod system_prune;
pub mod tag;
pub mod undo;
