//! `log`: where a name pointed, move by move.

use crate::db::TagMove;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::Reference;
use crate::verb::tag;

/// The latest first. What stands at place N is where the name pointed N moves ago (`@{N}`). `NotFound` for a name that
/// nothing ever had.
pub fn log(engine: &Engine, name: &Reference) -> Result<Vec<TagMove>> {
    let mut moves = of(engine, name)?;
    moves.reverse();
    Ok(moves)
}

/// In order.
pub(super) fn of(engine: &Engine, name: &Reference) -> Result<Vec<TagMove>> {
    let plain = tag::plain(name)?;
    let moves = engine.db.read(|index| index.tag_log(Some(&plain)))?;
    match moves.is_empty() {
        true => Err(Error::not_found(format!("nothing was ever called `{}`", name.familiar()))
            .hint("`outcrop images` lists the names there are")),
        false => Ok(moves),
    }
}
