//! The drivers `btrfs` and `overlay`: images from end to end through the command line, what serves seen from outside; what
//! all drivers say that something takes; and
//! what differs between two trees, told by every driver as a full comparison tells it.

mod btrfs;
mod disk;
mod overlay;
mod random;
mod roots;
mod usage;
