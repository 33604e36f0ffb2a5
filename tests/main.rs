//! The one integration-test binary. `house::no_test_file_is_forgotten` checks that every file here is listed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod archive;
mod bake;
mod build;
mod cache;
mod cache_flags;
mod check;
mod checks;
mod cli;
mod contexts;
mod corpus;
mod differential;
mod dockerfile;
mod drafts;
mod faults;
mod foreign;
mod house;
mod judge;
mod judge_kit;
mod language;
mod layer;
mod mounts;
mod output;
mod registry;
mod registry_kit;
mod remote;
mod run;
mod run_flags;
mod runtime;
mod sandbox;
mod secret_guard;
mod snapshot;
mod store;
mod styles;
mod verbs;
mod web_kit;
