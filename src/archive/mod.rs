//! Images in files: an OCI layout in a directory, as a [`crate::transfer::Source`].

mod layout;

pub use layout::Layout;
