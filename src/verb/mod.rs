//! What the command line, and whatever else is a front door, can ask for: one flow per file.

pub mod bootstrap;
pub mod build;
pub mod history;
pub mod images;
pub mod import;
pub mod pull;
