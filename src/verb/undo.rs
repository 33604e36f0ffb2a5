//! `undo`: takes back the last move of a name that was not taken back itself.

use crate::db::TagMove;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::Reference;
use crate::verb::log;
use crate::verb::rollback::{Moved, go};

pub fn undo(engine: &Engine, name: &Reference) -> Result<Moved> {
    let moves = log::of(engine, name)?;
    let nothing_left = |what: &str| {
        Error::not_found(format!("`{}` {what}", name.familiar()))
            .hint("`outcrop log` shows its moves; `outcrop rmi` takes a name away")
    };
    let last = standing(&moves).ok_or_else(|| nothing_left("has no move left to take back"))?;
    let back = last.from.ok_or_else(|| nothing_left("began with this image: there is nothing before it"))?;
    let now = engine.db.read(|index| index.tag(&name.to_string()))?.map(|tag| tag.image);
    go(engine, name, now, &back, &moves, "undo")
}

/// Moves are a stack, and an undo takes its top off.
fn standing(moves: &[TagMove]) -> Option<&TagMove> {
    let mut stack = Vec::new();
    for entry in moves.iter().filter(|entry| entry.from != entry.to) {
        match &entry.verb[..] {
            "undo" => drop(stack.pop()),
            _ => stack.push(entry),
        }
    }
    stack.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::rollback::tests::{image, moves};

    fn back(text: &str) -> Option<crate::image::ImageId> {
        standing(&moves(text)).and_then(|entry| entry.from)
    }

    #[test]
    fn undo_brings_back_what_rollbacks_left_one_by_one() {
        let log = "build -A, build AB, build BC, rollback CB, rollback BA";
        assert_eq!(back(log), Some(image('B')));
        assert_eq!(back(&format!("{log}, undo AB")), Some(image('C')));
        assert_eq!(back(&format!("{log}, undo AB, undo BC")), Some(image('B')));
    }

    #[test]
    fn a_name_that_was_taken_away_comes_back() {
        assert_eq!(back("build -A, rmi A-"), Some(image('A')));
    }

    #[test]
    fn the_first_move_has_nothing_before_it() {
        assert_eq!(back("build -A"), None);
    }
}
