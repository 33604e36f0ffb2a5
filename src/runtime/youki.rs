//! youki, in Rust.

use super::Entry;
use super::oci::Oci;

pub(super) const ENTRY: Entry = Entry { name: "youki", open: |place| Oci::open("youki", place) };
