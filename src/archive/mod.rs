//! Images in files: an OCI layout in a directory, as a [`crate::transfer::Source`]; layouts in a directory and in a tar, as
//! [`crate::transfer::Sink`]s.

mod layout;
mod write;

pub use layout::Layout;
pub use write::{DockerImage, LayoutDir, LayoutTar, Listed, NAME, REF_NAME, named};
