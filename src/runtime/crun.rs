//! crun, in C: the fastest of the three.

use super::Entry;
use super::oci::Oci;

pub(super) const ENTRY: Entry = Entry { name: "crun", open: |place| Oci::open("crun", place) };
