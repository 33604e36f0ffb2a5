//! Images in files: an OCI layout in a directory, archives of images, and containers' plain directories, as
//! [`crate::transfer::Source`]s; layouts in a directory and in a tar, as [`crate::transfer::Sink`]s.

mod docker_root;
mod entries;
mod flat;
mod layout;
pub(crate) mod making;
mod skeleton;
mod tar;
mod v1;
mod write;

pub use docker_root::{Config, DockerRoot, Layer as DockerLayer, Volume};
pub use flat::{FlatDir, NewFlatDir};
pub use layout::Layout;
pub use tar::{Image, Tar};
pub use write::{DockerImage, LayoutDir, LayoutTar, Listed, NAME, REF_NAME, named, tagged};
