//! A tree that is known by the rows of the index alone: its files need not be here to be chosen and compared.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::follow::{End, Stands, follow};
use super::select::Item;
use crate::error::Result;
use crate::layer::{Kind, Row, split};

/// What a stack of layers shows.
pub struct Listing {
    nodes: BTreeMap<Vec<u8>, Node>,
}

struct Node {
    row: Row,
    /// Names in a directory, in bytewise order.
    names: Vec<Vec<u8>>,
}

impl Listing {
    /// Of merged rows in the order of their paths' bytes. `None` where they do not tell all that the files themselves would:
    /// something stands there that no layer describes.
    pub fn new(rows: impl Iterator<Item = Result<Row>>) -> Result<Option<Self>> {
        // What a stack shows whose layers only add to `/`.
        let root = Node { row: Row { mode: 0o755, ..Row::bare("", Kind::Dir) }, names: Vec::new() };
        let mut nodes = BTreeMap::from([(Vec::new(), root)]);
        for row in rows {
            let row = row?;
            if row.implied || row.kind == Kind::File && row.digest.is_none() {
                return Ok(None);
            }
            if !row.path.is_empty() {
                let (parent, name) = split(&row.path);
                match nodes.get_mut(parent) {
                    Some(above) if above.row.kind == Kind::Dir => above.names.push(name.to_vec()),
                    _ => return Ok(None),
                }
            }
            nodes.insert(row.path.clone(), Node { row, names: Vec::new() });
        }
        Ok(Some(Listing { nodes }))
    }

    /// Where a path leads to, as from the root of a container: links are followed, the last one too. `None`: nowhere.
    pub(super) fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let look = |path: &[u8]| {
            let Some(node) = self.nodes.get(path) else { return Ok(Stands::Nothing) };
            Ok::<_, Infallible>(match node.row.kind {
                Kind::Dir => Stands::Dir,
                Kind::Symlink => Stands::Link(node.row.target.clone()),
                _ => Stands::Other,
            })
        };
        match follow(path, look) {
            Ok(End::At(place)) => Some(place),
            Ok(End::Nothing { .. } | End::Blocked | End::Loop) => None,
        }
    }

    /// The names in a directory that is reached by this path.
    pub(super) fn names(&self, path: &[u8]) -> Option<&[Vec<u8>]> {
        let node = self.nodes.get(&self.resolve(path)?)?;
        (node.row.kind == Kind::Dir).then_some(&node.names[..])
    }

    /// The names in a directory, by its own path.
    pub(super) fn names_of(&self, path: &[u8]) -> &[Vec<u8>] {
        self.nodes.get(path).map_or(&[], |node| &node.names)
    }

    /// What stands at a path, no link followed, as `below` a source.
    pub(super) fn item(&self, path: &[u8], below: Vec<u8>) -> Option<Item> {
        let row = &self.nodes.get(path)?.row;
        let device = matches!(row.kind, Kind::Char | Kind::Block);
        let mut xattrs: Vec<_> = row.xattrs.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        xattrs.retain(|(key, _)| super::select::travels(key));
        Some(Item {
            path: below,
            kind: row.kind,
            // Those of a link say nothing, and the kernel shows all of them.
            mode: if row.kind == Kind::Symlink { 0o777 } else { row.mode },
            uid: row.uid,
            gid: row.gid,
            size: if row.kind == Kind::File { row.size } else { 0 },
            digest: row.digest.filter(|_| row.kind == Kind::File),
            mtime: (row.mtime.div_euclid(1_000_000_000), row.mtime.rem_euclid(1_000_000_000)),
            rdev: if device { rustix::fs::makedev(row.rdev.0, row.rdev.1) } else { 0 },
            target: row.target.clone(),
            xattrs,
            link: None,
            inode: row.link.filter(|_| row.kind == Kind::File).map(|group| (0, group.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    fn listing(rows: &[(&str, Kind, &str)]) -> Option<Listing> {
        let mut rows: Vec<Row> = rows
            .iter()
            .map(|(path, kind, target)| Row {
                target: target.as_bytes().to_vec(),
                digest: (*kind == Kind::File).then(|| Digest::of(b"")),
                ..Row::bare(*path, *kind)
            })
            .collect();
        rows.sort_by(|a, b| a.path.cmp(&b.path));
        Listing::new(rows.into_iter().map(Ok)).unwrap()
    }

    #[test]
    fn links_are_followed_as_from_the_root_of_a_container() {
        let listing = listing(&[
            ("", Kind::Dir, ""),
            ("a", Kind::Dir, ""),
            ("a-b", Kind::File, ""),
            ("a/f", Kind::File, ""),
            ("a/up", Kind::Symlink, "../../../a/f"),
            ("l", Kind::Symlink, "/a/up"),
            ("loop", Kind::Symlink, "loop"),
            ("to", Kind::Symlink, "a"),
        ])
        .unwrap();
        for (path, expected) in [
            ("", Some("")),
            ("a/./f", Some("a/f")),
            ("to/f", Some("a/f")),
            ("l", Some("a/f")),
            ("../a", Some("a")),
            ("to/../a-b", Some("a-b")),
            ("a/f/x", None),
            ("a/f/.", Some("a/f")),
            ("loop", None),
            ("b", None),
        ] {
            assert_eq!(listing.resolve(path.as_bytes()).as_deref(), expected.map(str::as_bytes), "{path}");
        }
        assert_eq!(listing.names(b"to").unwrap(), [b"f".to_vec(), b"up".to_vec()]);
        assert_eq!(listing.names(b"l"), None);
        let names: Vec<_> = listing.names_of(b"").iter().map(|name| String::from_utf8_lossy(name)).collect();
        assert_eq!(names, ["a", "a-b", "l", "loop", "to"]);
    }

    #[test]
    fn rows_that_do_not_tell_all_are_no_listing() {
        assert!(listing(&[("a", Kind::File, "")]).is_some());
        assert!(listing(&[("", Kind::Dir, ""), ("a/b", Kind::File, "")]).is_none(), "no parent");
        assert!(
            Listing::new([Ok(Row { implied: true, ..Row::bare("", Kind::Dir) })].into_iter())
                .unwrap()
                .is_none()
        );
    }
}
