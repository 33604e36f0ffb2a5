//! What only the kernel can do: the one room with `unsafe` in it.

pub mod block;
pub mod btrfs;
pub mod child;
pub mod device_filter;
pub mod dir;
pub mod dm;
pub mod durable;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod quota;
mod overlay;
pub mod part;
pub mod thin;
pub mod tree;
pub mod zfs;
