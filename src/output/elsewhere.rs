//! Layers of an image that are not here, and need not come where a registry has them.

use std::fs::File;

use crate::error::Result;
use crate::image::Descriptor;
use crate::job::Job;
use crate::rootfs::Layer;

/// A layer as somebody else has it.
#[derive(Clone, Debug)]
pub struct Distant {
    pub blob: Descriptor,
    /// Host and repository, where a registry has it.
    pub at: Option<(String, String)>,
    /// It came with a base image: it stays as it came.
    pub of_base: bool,
}

/// Knows of layers that are not here. What it says of a layer stays so.
pub trait Elsewhere: Sync {
    /// `None`: the layer is here, or nobody has its bytes.
    fn distant(&self, layer: &Layer) -> Option<Distant>;

    /// The blob's bytes, in a file that nobody else sees; they are the layer's.
    fn fetch(&self, layer: &Layer, job: &Job) -> Result<File>;
}
