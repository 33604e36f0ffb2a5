//! `rollback`: a name moves back, along its log or down its own layers. Nothing is destroyed: `undo` brings it back.

use crate::db::TagMove;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Digest, ImageId, Reference};
use crate::verb::{history, images, log};

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Where it was before it came to where it is.
    Before,
    /// `3`: after this instruction of the image it has, counted from 1.
    Instruction(usize),
    /// `@{2}`: where it pointed so many moves ago.
    Moves(usize),
    /// An image, by name or id, or a layer of the image it has.
    Named(String),
}

impl To {
    /// Of what stands behind `--to`.
    pub fn parse(text: &str) -> Result<To> {
        if let Some(inner) = text.strip_prefix("@{").and_then(|rest| rest.strip_suffix('}')) {
            let moves = inner.parse().map_err(|cause| {
                Error::invalid(format!("`{text}` is no place in a log"))
                    .hint("write @{1} for where the name pointed one move ago")
                    .because(cause)
            })?;
            return Ok(To::Moves(moves));
        }
        // Longer ones are the beginning of an id.
        match text.parse() {
            Ok(n) if text.len() <= 4 => Ok(To::Instruction(n)),
            _ => Ok(To::Named(text.to_owned())),
        }
    }
}

/// A name that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: Reference,
    /// `None`: there was no such name.
    pub from: Option<ImageId>,
    pub to: ImageId,
    /// The instruction after which `to` is, for people.
    pub after: Option<String>,
}

pub fn rollback(engine: &Engine, name: &Reference, to: &To) -> Result<Moved> {
    let moves = log::of(engine, name)?;
    let now = engine.db.read(|index| index.tag(&name.to_string()))?.map(|tag| tag.image);
    let present = || {
        now.ok_or_else(|| {
            Error::not_found(format!("`{}` points at nothing now", name.familiar()))
                .hint("`outcrop undo` brings it back; `outcrop log` says where it pointed")
        })
    };
    let to = match to {
        To::Before => before(&moves, &present()?).ok_or_else(|| {
            Error::not_found(format!("`{}` was nowhere before it came here", name.familiar()))
                .hint("`--to N` goes back to the state after instruction N; `outcrop history` shows them")
        })?,
        To::Moves(ago) => moved_ago(&moves, *ago, name)?,
        To::Instruction(n) => history::image_at(engine, &present()?, *n)?,
        To::Named(text) => named(engine, &moves, &present()?, text)?,
    };
    go(engine, name, now, &to, &moves, "rollback")
}

/// The latest move hither that took nothing back says where from. Where only such moves led hither, the search goes
/// on from where they took it back.
fn before(moves: &[TagMove], now: &ImageId) -> Option<ImageId> {
    let mut here = *now;
    let mut moves = moves;
    loop {
        let hither = |entry: &&TagMove| entry.to == Some(here) && entry.from != entry.to;
        let mut straight = moves.iter().rev().filter(|entry| hither(entry) && !takes_back(entry)).peekable();
        if straight.peek().is_some() {
            return straight.find_map(|entry| entry.from);
        }
        let at = moves.iter().rposition(|entry| hither(&entry) && takes_back(entry))?;
        here = moves[at].from?;
        moves = &moves[..at];
    }
}

fn takes_back(entry: &TagMove) -> bool {
    matches!(&entry.verb[..], "rollback" | "undo")
}

fn moved_ago(moves: &[TagMove], ago: usize, name: &Reference) -> Result<ImageId> {
    let entry = moves.iter().rev().nth(ago).ok_or_else(|| {
        Error::not_found(format!("`{}` has moved {} times, not {ago}", name.familiar(), moves.len() - 1))
            .hint("`outcrop log` shows its moves")
    })?;
    entry.to.ok_or_else(|| {
        Error::invalid(format!("`{}` pointed at nothing {ago} moves ago", name.familiar()))
            .hint("`outcrop log` shows where it pointed")
    })
}

/// First what belongs to the image the name has, then what it had, then any image.
fn named(engine: &Engine, moves: &[TagMove], now: &ImageId, text: &str) -> Result<ImageId> {
    if let Some(hex) = images::id_digits(text) {
        let entries = history::entries(engine, now)?;
        let fits = |entry: &&history::Entry| {
            entry.id.hex().starts_with(hex) || entry.layer.is_some_and(|layer| layer.hex().starts_with(hex))
        };
        let mut found = entries.iter().rev().filter(fits);
        if let Some(entry) = found.next() {
            // One layer may stand in a stack twice; two are an accident of digits.
            let same = |other: &history::Entry| {
                entry.layer.is_some() && other.layer == entry.layer || other.id.hex() == hex
            };
            return match found.all(same) {
                true => history::image_at(engine, now, entry.n),
                false => {
                    Err(Error::invalid(format!("`{text}` is the beginning of several ids of this image"))
                        .hint("write more of its digits"))
                }
            };
        }
        let logged = moves.iter().rev().filter_map(|entry| entry.to);
        if let Some(id) = logged.into_iter().find(|id| id.hex().starts_with(hex)) {
            return Ok(id);
        }
    }
    images::resolve(engine, text).map(|row| row.id).map_err(|error| {
        error.hint(
            "name an image, a layer of this image, the number of an instruction, or @{N} for N moves ago",
        )
    })
}

/// Moves the name to an image that it had, or that it grew from, and that may be gone.
pub(super) fn go(
    engine: &Engine,
    name: &Reference,
    from: Option<ImageId>,
    to: &ImageId,
    moves: &[TagMove],
    verb: &str,
) -> Result<Moved> {
    let row = engine.db.read(|index| index.image(to))?.filter(|row| !row.condemned).ok_or_else(|| {
        Error::not_found(format!(
            "`{}` cannot go back to image {}: the image was removed",
            name.familiar(),
            to.short()
        ))
        .hint("`outcrop log` shows where else it pointed; a build or a pull may make the image again")
    })?;
    // The manifest it was known by when the name pointed at it.
    let target: Option<Digest> =
        moves.iter().rev().find(|entry| entry.to == Some(*to)).and_then(|entry| entry.target);
    engine.barrier(|durable| durable.move_tag(&name.to_string(), to, target.as_ref(), verb, None))?;
    engine.sweep()?;
    Ok(Moved { name: name.clone(), from, to: *to, after: row.created_by })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::db::Time;

    pub(crate) fn image(letter: char) -> ImageId {
        ImageId(Digest::of(letter.to_string().as_bytes()))
    }

    /// `build -A`, `build AB`, `rollback BA`, `rmi A-`.
    pub(crate) fn moves(text: &str) -> Vec<TagMove> {
        let end = |letter: char| (letter != '-').then(|| image(letter));
        let parse = |(n, line): (usize, &str)| {
            let (verb, ends) = line.trim().split_once(' ').unwrap();
            let mut ends = ends.chars();
            TagMove {
                seq: n as u64 + 1,
                at: Time(0),
                verb: verb.into(),
                name: "x".into(),
                from: end(ends.next().unwrap()),
                to: end(ends.next().unwrap()),
                target: None,
                detail: None,
            }
        };
        text.split(',').enumerate().map(parse).collect()
    }

    fn back(text: &str, now: char) -> Option<ImageId> {
        before(&moves(text), &image(now))
    }

    #[test]
    fn each_rollback_goes_one_step_further() {
        let log = "build -A, build AB, build BC";
        assert_eq!(back(log, 'C'), Some(image('B')));
        assert_eq!(back(&format!("{log}, rollback CB"), 'B'), Some(image('A')));
        assert_eq!(back(&format!("{log}, rollback CB, rollback BA"), 'A'), None);
    }

    #[test]
    fn a_rollback_after_an_undo_goes_where_the_first_one_went() {
        assert_eq!(back("build -A, build AB, rollback BA, undo AB", 'B'), Some(image('A')));
    }

    #[test]
    fn from_an_instruction_of_an_image_it_goes_to_what_came_before_the_image() {
        assert_eq!(back("build -A, build AB, rollback Bx", 'x'), Some(image('A')));
        assert_eq!(back("build -B, rollback Bx", 'x'), None);
        assert_eq!(back("build -B, rollback Bx, rollback xy", 'y'), None);
    }

    #[test]
    fn a_name_that_was_taken_away_and_came_back_remembers() {
        assert_eq!(back("build -A, build AB, rmi B-, tag -B", 'B'), Some(image('A')));
    }

    #[test]
    fn what_to_is_read_as() {
        assert_eq!(To::parse("3").unwrap(), To::Instruction(3));
        assert_eq!(To::parse("@{2}").unwrap(), To::Moves(2));
        assert_eq!(To::parse("123456").unwrap(), To::Named("123456".into()));
        assert_eq!(To::parse("site:1").unwrap(), To::Named("site:1".into()));
        assert!(To::parse("@{x}").is_err());
    }
}
