//! What a send stream does to the names of a tree: which final paths are not what stood there before.
//!
//! The stream works in steps, under temporary names and ones that something else has later. So the steps are done on
//! names alone, each with the path that it had at first.

use std::collections::BTreeMap;
use std::io;

use super::stream::{Command, doubt};
use crate::layer::{Touched, split};

/// Something in the tree.
struct Node {
    /// Where it stood at first; `None`: nowhere.
    origin: Option<Vec<u8>>,
    changed: bool,
    /// What was named in the stream; of what stood at first, the other names are still there. `None`: nothing stands there.
    below: BTreeMap<Vec<u8>, Option<Node>>,
}

impl Node {
    fn new(origin: Option<Vec<u8>>) -> Self {
        Node { origin, changed: false, below: BTreeMap::new() }
    }

    /// Something that the stream has not named yet.
    fn implied(&self, name: &[u8]) -> io::Result<Node> {
        match &self.origin {
            Some(origin) => Ok(Node::new(Some(join(origin, name)))),
            None => Err(doubt(format!("`{}` is in a new directory and not made", name.escape_ascii()))),
        }
    }
}

pub(super) struct Replay {
    root: Node,
}

impl Replay {
    pub(super) fn new() -> Self {
        Replay { root: Node::new(Some(Vec::new())) }
    }

    pub(super) fn step(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Make(path) => self.put(&path, Node::new(None)),
            Command::Rename { from, to } => {
                let node = self.take(&from)?;
                self.put(&to, node)
            }
            // That a file has another name is for its other names to tell, too.
            Command::Link { path, of } => {
                self.at(&of)?.changed = true;
                self.put(&path, Node::new(None))
            }
            Command::Remove(path) => self.take(&path).map(drop),
            Command::Change(path) => {
                self.at(&path)?.changed = true;
                Ok(())
            }
            Command::Begin | Command::End => Err(doubt("it begins or ends twice")),
        }
    }

    pub(super) fn touched(&self) -> Touched {
        let mut touched = Touched::nothing();
        mark(&self.root, &[], &mut touched);
        touched
    }

    fn at(&mut self, path: &[u8]) -> io::Result<&mut Node> {
        let mut at = &mut self.root;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if !at.below.contains_key(name) {
                let node = at.implied(name)?;
                at.below.insert(name.to_vec(), Some(node));
            }
            let gone = || doubt(format!("`{}` is gone already", path.escape_ascii()));
            at = at.below.get_mut(name).and_then(Option::as_mut).ok_or_else(gone)?;
        }
        Ok(at)
    }

    fn take(&mut self, path: &[u8]) -> io::Result<Node> {
        let (parent, name) = split(path);
        let parent = self.at(parent)?;
        match parent.below.insert(name.to_vec(), None) {
            Some(Some(node)) => Ok(node),
            Some(None) => Err(doubt(format!("`{}` goes twice", path.escape_ascii()))),
            None => parent.implied(name),
        }
    }

    fn put(&mut self, path: &[u8], node: Node) -> io::Result<()> {
        let (parent, name) = split(path);
        match self.at(parent)?.below.insert(name.to_vec(), Some(node)) {
            Some(Some(_)) => Err(doubt(format!("`{}` is made where something stands", path.escape_ascii()))),
            _ => Ok(()),
        }
    }
}

fn mark(node: &Node, path: &[u8], touched: &mut Touched) {
    if node.changed {
        touched.add(path);
    }
    for (name, child) in &node.below {
        match child {
            // Its directory tells that it is gone.
            None => touched.add(path),
            Some(child) => {
                let path = join(path, name);
                match child.origin.as_ref() == Some(&path) {
                    true => mark(child, &path, touched),
                    false => touched.add_tree(&path),
                }
            }
        }
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(path: &str) -> Command {
        Command::Make(path.into())
    }
    fn rename(from: &str, to: &str) -> Command {
        Command::Rename { from: from.into(), to: to.into() }
    }
    fn remove(path: &str) -> Command {
        Command::Remove(path.into())
    }
    fn change(path: &str) -> Command {
        Command::Change(path.into())
    }

    fn replayed(commands: impl IntoIterator<Item = Command>) -> io::Result<Touched> {
        let mut replay = Replay::new();
        commands.into_iter().try_for_each(|command| replay.step(command))?;
        Ok(replay.touched())
    }

    fn expected(paths: &[&str], trees: &[&str]) -> Touched {
        let mut touched = Touched::nothing();
        paths.iter().for_each(|path| touched.add(path.as_bytes()));
        trees.iter().for_each(|path| touched.add_tree(path.as_bytes()));
        touched
    }

    #[test]
    fn temporary_names_come_to_their_final_ones() {
        let touched = replayed([
            make("o260-9-0"),
            rename("o260-9-0", "d/new"),
            change("d/new"),
            make("o261-9-0"),
            rename("o261-9-0", "d/new/inside"),
            change("d"),
            change(""),
        ]);
        assert_eq!(touched.unwrap(), expected(&["d"], &["d/new"]));
    }

    #[test]
    fn two_that_change_places_are_both_compared() {
        let touched = replayed([rename("a", "o257-8-0"), rename("b", "a"), rename("o257-8-0", "b")]);
        assert_eq!(touched.unwrap(), expected(&[], &["a", "b"]));
    }

    #[test]
    fn what_comes_back_is_what_it_was() {
        let touched = replayed([rename("a", "x"), change("x/inside"), rename("x", "a")]);
        assert_eq!(touched.unwrap(), expected(&["a/inside"], &[]));
    }

    #[test]
    fn what_is_gone_is_told_by_its_directory() {
        let touched = replayed([remove("d/e/f"), rename("d/e", "o258-8-0"), remove("o258-8-0")]);
        assert_eq!(touched.unwrap(), expected(&["d"], &[]));
    }

    #[test]
    fn what_moves_with_its_directory_is_compared_there() {
        let touched = replayed([rename("d", "e"), change("e/f"), make("d"), rename("e/g", "d/g")]);
        assert_eq!(touched.unwrap(), expected(&[], &["d", "e"]));
    }

    #[test]
    fn steps_that_cannot_be_are_doubts() {
        for steps in [
            vec![make("new"), change("new/inside")],
            vec![remove("a"), change("a")],
            vec![remove("a"), remove("a")],
            vec![make("a"), make("a")],
            vec![Command::End],
        ] {
            let shown = format!("{steps:?}");
            assert!(replayed(steps).is_err(), "{shown}");
        }
    }
}
