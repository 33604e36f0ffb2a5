//! What only the kernel can do: the one room with `unsafe` in it.

pub mod device_filter;
pub mod dir;
pub mod mount;
pub mod namespace;
pub mod process;
mod overlay;
pub mod part;
pub mod tree;
pub mod zfs;
