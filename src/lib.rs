//! outcrop, the engine: Dockerfiles become content-addressed layers; layers become images; images run.
//!
//! The rooms below stand in reading order, and look downward only: a room may use what stands below it,
//! never what stands above. `tests/house.rs` checks it.

pub mod verb;

pub mod build;
pub mod bake;
pub mod dockerfile;
pub mod context;
pub mod plan;
pub mod cache;
pub mod output;

pub mod container;
pub mod network;
pub mod rootfs;
pub mod engine;
pub mod archive;
pub mod registry;
pub mod store;
pub mod transfer;

pub mod snapshot;
pub mod db;
pub mod layer;
pub mod runtime;

pub mod job;
pub mod image;
pub mod sys;
pub mod size;
pub mod error;
