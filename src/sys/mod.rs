//! What only the kernel can do: the one room with `unsafe` in it.

pub mod dir;
pub mod mount;
mod overlay;
pub mod tree;
