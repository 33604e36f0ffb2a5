//! `type=registry`: an image that is pushed. Not yet.

use super::fields::Fields;
use super::{Entry, Output};
use crate::error::{Error, Result};

pub(super) const ENTRY: Entry = Entry { name: "registry", read };

fn read(_: Fields) -> Result<Box<dyn Output>> {
    Err(Error::unsupported("the output type=registry is not supported by this version: it cannot push")
        .hint("type=oci,dest=FILE writes an archive that `skopeo copy` can push"))
}
