//! The rows of a stack as those of the one tree that it shows.

use std::collections::HashMap;
use std::iter::Peekable;

use crate::db::{Db, LayerNumber};
use crate::error::Result;
use crate::layer::{Kind, Row};

/// What a stack of layers shows, bottom first, in the order of the paths' bytes.
pub fn merged(db: &Db, stack: &[LayerNumber]) -> impl Iterator<Item = Result<Row>> {
    Merged::new(stack.iter().map(|layer| db.rows(*layer)))
}

/// What a merged view of the layers shows, in the order of the paths' bytes: no whiteouts, and of each path the row of the
/// layer that decides. Link groups have numbers of their own. Memory grows
/// with the number of layers and of hard links alone.
pub(super) struct Merged<I: Iterator<Item = Result<Row>>> {
    /// Bottom first; each in the order of its paths' bytes.
    layers: Vec<Peekable<I>>,
    /// Paths below which the layers under a number show nothing, until they are passed.
    hidden: Vec<(Vec<u8>, usize)>,
    groups: HashMap<(usize, u32), u32>,
}

impl<I: Iterator<Item = Result<Row>>> Merged<I> {
    pub(super) fn new(layers: impl IntoIterator<Item = I>) -> Self {
        Merged {
            layers: layers.into_iter().map(Iterator::peekable).collect(),
            hidden: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// The rows of the next path, top first; empty at the end.
    fn heads(&mut self) -> Result<Vec<(usize, Row)>> {
        let mut least: Option<Vec<u8>> = None;
        for layer in &mut self.layers {
            if let Some(Ok(row)) = layer.peek()
                && least.as_ref().is_none_or(|least| row.path < *least)
            {
                least = Some(row.path.clone());
            }
        }
        let mut heads = Vec::new();
        for (n, layer) in self.layers.iter_mut().enumerate().rev() {
            let wanted =
                |row: &Result<Row>| row.as_ref().map_or(true, |row| Some(&row.path) == least.as_ref());
            if let Some(row) = layer.next_if(wanted) {
                heads.push((n, row?));
            }
        }
        Ok(heads)
    }

    /// What one path shows, of rows that stand there in the layers.
    fn decide(&mut self, mut heads: Vec<(usize, Row)>) -> Option<Row> {
        let path = heads.first()?.1.path.clone();
        self.hidden.retain(|(above, _)| above.is_empty() || path < [above, &b"0"[..]].concat());
        let below = |above: &[u8]| match path.strip_prefix(above) {
            Some(rest) => above.is_empty() || rest.first() == Some(&b'/'),
            None => false,
        };
        let floor = self.hidden.iter().filter(|(above, _)| below(above)).map(|(_, layer)| *layer).max();
        heads.retain(|(layer, _)| floor.is_none_or(|floor| *layer >= floor));
        let lowest = heads.last()?.0;
        let mut shown: Option<(usize, Row)> = None;
        let mut decided = false;
        for (layer, row) in heads {
            let ends = row.opaque || row.kind != Kind::Dir;
            // An implied row speaks of what lies below, if that is of its kind.
            let fits = shown.as_ref().is_none_or(|(_, above)| above.kind == row.kind);
            if !decided && fits && row.kind != Kind::Whiteout {
                decided = !row.implied;
                shown = Some((layer, row.clone()));
            }
            // The file below that a hard link names is as the lower layer says.
            if ends && !(row.implied && row.kind != Kind::Dir) {
                // The root needs no row for what stands in it.
                if lowest < layer || path.is_empty() {
                    self.hidden.push((path, layer));
                }
                break;
            }
            if !fits {
                break;
            }
        }
        let (layer, mut row) = shown?;
        let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        row.link = row.link.map(|group| *self.groups.entry((layer, group)).or_insert(next));
        Some(row)
    }
}

impl<I: Iterator<Item = Result<Row>>> Iterator for Merged<I> {
    type Item = Result<Row>;
    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            match self.heads() {
                Err(error) => return Some(Err(error)),
                Ok(heads) if heads.is_empty() => return None,
                Ok(heads) => {
                    if let Some(row) = self.decide(heads) {
                        return Some(Ok(row));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn row(path: &str, kind: Kind, mode: u32) -> Row {
        Row { mode, ..Row::bare(path, kind) }
    }
    fn file(path: &str, mode: u32) -> Row {
        row(path, Kind::File, mode)
    }
    fn dir(path: &str, mode: u32) -> Row {
        row(path, Kind::Dir, mode)
    }
    fn gone(path: &str) -> Row {
        row(path, Kind::Whiteout, 0)
    }
    fn implied(row: Row) -> Row {
        Row { implied: true, ..row }
    }

    /// Layers bottom first, each sorted here; what shows as `path mode`.
    fn shown(layers: &[&[Row]]) -> Vec<String> {
        let sorted = |layer: &&[Row]| {
            let mut rows = layer.to_vec();
            rows.sort_by(|a, b| a.path.cmp(&b.path));
            rows.into_iter().map(Ok)
        };
        let say = |row: Row| format!("{} {}", String::from_utf8(row.path).unwrap(), row.mode);
        Merged::new(layers.iter().map(sorted)).map(|row| say(row.unwrap())).collect()
    }

    #[test]
    fn the_upper_row_counts_and_an_implied_one_says_nothing() {
        let lower = [dir("a", 1), file("a/x", 1), file("b", 1)];
        let upper = [implied(dir("a", 9)), file("a/x", 2)];
        assert_eq!(shown(&[&lower, &upper]), ["a 1", "a/x 2", "b 1"]);
        assert_eq!(shown(&[&lower, &[implied(file("b", 9))]]), ["a 1", "a/x 1", "b 1"]);
    }

    #[test]
    fn what_is_deleted_is_gone_with_all_below_it_and_nothing_beside_it() {
        let lower = [dir("a", 1), file("a-b", 1), file("a/x", 1), file("a0", 1)];
        assert_eq!(shown(&[&lower, &[gone("a")]]), ["a-b 1", "a0 1"]);
        assert_eq!(
            shown(&[&lower, &[gone("a")], &[dir("a", 3), file("a/y", 3)]]),
            ["a 3", "a-b 1", "a/y 3", "a0 1"]
        );
        assert_eq!(shown(&[&lower, &[file("a", 2)]]), ["a 2", "a-b 1", "a0 1"]);
    }

    #[test]
    fn an_opaque_directory_hides_what_lies_below_it() {
        let lower = [dir("a", 1), file("a/x", 1)];
        let upper = [Row { opaque: true, ..dir("a", 2) }, file("a/y", 2)];
        assert_eq!(shown(&[&lower, &upper]), ["a 2", "a/y 2"]);
        let root = [Row { opaque: true, ..implied(dir("", 2)) }, file("z", 2)];
        assert_eq!(shown(&[&lower, &root]), [" 2", "z 2"]);
    }

    #[test]
    fn a_file_between_two_directories_separates_them() {
        let lower = [dir("a", 1), file("a/x", 1)];
        let top = [dir("a", 3), file("a/y", 3)];
        assert_eq!(shown(&[&lower, &[file("a", 2)], &top]), ["a 3", "a/y 3"]);
    }

    #[test]
    fn link_groups_of_two_layers_are_two() {
        let linked = |path: &str| Row { link: Some(7), ..file(path, 0) };
        let merged = Merged::new([vec![Ok(linked("a"))].into_iter(), vec![Ok(linked("b"))].into_iter()]);
        let links: Vec<_> = merged.map(|row| row.unwrap().link).collect();
        assert_eq!(links, [Some(0), Some(1)]);
    }
}
