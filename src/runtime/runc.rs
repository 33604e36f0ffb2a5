//! runc, the reference, in Go.

use super::Entry;
use super::oci::Oci;

pub(super) const ENTRY: Entry = Entry { name: "runc", open: |place| Oci::open("runc", place) };
