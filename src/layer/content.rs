//! The id of a layer's content without its times.

use super::Row;
use crate::error::{Error, Result};
use crate::image::ContentId;

/// Of rows in the order of their paths' bytes, each path once. Times and implied rows do not count.
pub fn content_id(_rows: impl IntoIterator<Item = Result<Row>>) -> Result<ContentId> {
    Err(Error::unsupported("content ids"))
}
