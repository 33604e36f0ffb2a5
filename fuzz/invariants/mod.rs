//! What must hold for every input: asserted by the fuzz targets, and by `tests/corpus.rs` for the inputs that are kept.

pub mod archive;
pub mod config;
pub mod dockerfile;
pub mod expand;
pub mod ignore;
pub mod names;
pub mod wildcard;

/// A target's name and its assertions.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 7] = [
    ("archive", archive::check),
    ("config", config::check),
    ("dockerfile", dockerfile::check),
    ("expand", expand::check),
    ("ignore", ignore::check),
    ("names", names::check),
    ("wildcard", wildcard::check),
];
