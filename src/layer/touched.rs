//! Which names may differ between two trees, from somebody who knows without comparing them.

use std::collections::BTreeMap;

/// Names to compare. What is not among them is the same file or directory in both trees: the same inode number, attributes
/// and content. Of a directory on the way to one that is, the names and attributes are compared, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    all: bool,
    below: BTreeMap<Vec<u8>, Touched>,
}

impl Touched {
    /// Nothing but the root's own attributes.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// What stands at a path, and which names a directory has; not what these are.
    pub fn add(&mut self, path: &[u8]) {
        self.reach(path);
    }

    /// With all that stands below.
    pub fn add_tree(&mut self, path: &[u8]) {
        self.reach(path).all = true;
    }

    fn reach(&mut self, path: &[u8]) -> &mut Self {
        path.split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .fold(self, |at, name| at.below.entry(name.to_vec()).or_default())
    }
}

/// What is to be compared at one place.
#[derive(Clone, Copy)]
pub(super) enum Scope<'t> {
    All,
    Only(&'t Touched),
}

impl<'t> Scope<'t> {
    pub(super) fn of(touched: &'t Touched) -> Self {
        if touched.all { Scope::All } else { Scope::Only(touched) }
    }
    /// `None`: it is as it was, with all that stands in it.
    pub(super) fn at(self, name: &[u8]) -> Option<Self> {
        match self {
            Scope::All => Some(Scope::All),
            Scope::Only(touched) => touched.below.get(name).map(Scope::of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reached_through_their_directories() {
        let mut touched = Touched::nothing();
        touched.add(b"a/b");
        touched.add_tree(b"c");
        let scope = Scope::of(&touched);
        let seen = |path: &[&[u8]]| {
            let found = path.iter().try_fold(scope, |scope, name| scope.at(name));
            found.map(|scope| matches!(scope, Scope::All))
        };
        assert_eq!(seen(&[b"a"]), Some(false));
        assert_eq!(seen(&[b"a", b"b"]), Some(false));
        assert_eq!(seen(&[b"a", b"b", b"x"]), None);
        assert_eq!(seen(&[b"a", b"x"]), None);
        assert_eq!(seen(&[b"c", b"x", b"y"]), Some(true));
        assert_eq!(seen(&[b"d"]), None);
    }
}
