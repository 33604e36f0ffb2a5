//! Images in files: an OCI layout in a directory and archives of images, as [`crate::transfer::Source`]s; layouts in a directory and in a tar, as
//! [`crate::transfer::Sink`]s.

mod layout;
mod making;
mod tar;
mod write;

pub use layout::Layout;
pub use tar::{Image, Tar};
pub use write::{DockerImage, LayoutDir, LayoutTar, Listed, NAME, REF_NAME, named};
