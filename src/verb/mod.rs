//! What the command line, and whatever else is a front door, can ask for: one flow per file.

pub mod bootstrap;
pub mod build;
mod build_results;
pub mod cache;
pub mod call;
pub mod change;
pub mod commit;
mod container_inspect;
pub mod create;
pub mod diff;
pub mod check;
mod check_leftovers;
mod check_rows;
pub mod disk_usage;
pub mod explain;
pub mod export;
pub mod history;
pub mod image_prune;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod layers;
pub mod log;
pub mod ps;
pub mod pull;
pub mod rebuild;
pub mod rm;
pub mod rmi;
pub mod rollback;
pub mod start;
pub mod system_prune;
pub mod tag;
pub mod undo;

pub use container_inspect::container_inspect;
