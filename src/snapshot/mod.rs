//! Snapshots: names, parents, drafts and leases over numbered trees that a driver keeps.

pub mod driver;
