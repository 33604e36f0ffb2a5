//! From what a person writes to a container: an id, a name, the beginning of an id.

use crate::db::{ContainerRow, ContainerState};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// `NotFound` when there is none, `Invalid` when the beginning of an id fits several.
pub fn resolve(engine: &Engine, text: &str) -> Result<ContainerRow> {
    find(engine, text)?.ok_or_else(|| {
        Error::not_found(format!("No such container: {text}")).hint("`outcrop ps -a` lists what is here")
    })
}

/// `None` when there is none, or it is being removed.
pub fn find(engine: &Engine, text: &str) -> Result<Option<ContainerRow>> {
    let found = engine.db.read(|index| {
        if let Ok(id) = text.parse()
            && let Some(row) = index.container(&id)?
        {
            return Ok(Some(row));
        }
        if let Some(row) = index.container_by_name(text.strip_prefix('/').unwrap_or(text))? {
            return Ok(Some(row));
        }
        if text.is_empty() || text.len() > 64 {
            return Ok(None);
        }
        let mut found = index.containers_by_prefix(text)?;
        found.retain(|row| row.state != ContainerState::Removing);
        if found.len() > 1 {
            return Err(Error::invalid(format!("multiple IDs found with provided prefix: {text}"))
                .hint("write more of its digits"));
        }
        Ok(found.pop())
    })?;
    Ok(found.filter(|row| row.state != ContainerState::Removing))
}
