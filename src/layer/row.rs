//! One row for each file of a layer: all that the layer says of it.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::image::Digest;

/// What stands at a path. Closed. Sockets are in no archive, so they are in no layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    File = 1,
    Dir = 2,
    Symlink = 3,
    Char = 4,
    Block = 5,
    Fifo = 6,
    /// The path is deleted from what lies below (image-spec layer.md, "Whiteouts").
    Whiteout = 7,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Relative, without leading or trailing slash, any bytes but NUL; the root is empty. A whiteout's path is
    /// the path it deletes, not the `.wh.` name.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky, 0..=0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a regular file, holes included; 0 for all else.
    pub size: u64,
    /// Of the content; regular files only.
    pub digest: Option<Digest>,
    /// Nanoseconds since the epoch, as the archive says; ours say whole seconds.
    pub mtime: i64,
    /// Major and minor; devices only.
    pub rdev: (u32, u32),
    /// A symbolic link's.
    pub target: Vec<u8>,
    /// Names of one inode share a number, unique in the layer; `None` for a file with one name in it.
    pub link: Option<u32>,
    /// A directory that hides all that lies below it (layer.md, "Opaque Whiteout").
    pub opaque: bool,
    /// A parent directory that the archive leaves out, or the file below that a hard link names. It is no part of
    /// the layer's content; it exists on disk because something stands in it or is linked to it.
    pub implied: bool,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Row {
    /// A row of which nothing but its kind is known: root's, mode 0, empty, at the epoch.
    pub fn bare(path: impl Into<Vec<u8>>, kind: Kind) -> Row {
        Row {
            path: path.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            digest: None,
            mtime: 0,
            rdev: (0, 0),
            target: Vec::new(),
            link: None,
            opaque: false,
            implied: false,
            xattrs: BTreeMap::new(),
        }
    }
}

/// Takes rows as they are made, in the order of the archive; memory stays flat.
///
/// The row of a path may come again (a duplicate entry; the first name of a hard link, once the second is met):
/// the last one counts. So a table keyed by path takes all of them with insert-or-replace.
pub trait RowSink {
    fn row(&mut self, row: Row) -> Result<()>;
    /// A row whose path may have one already.
    fn replace(&mut self, row: Row) -> Result<()> {
        self.row(row)
    }
    /// The rows of `path` and of all that lies below it were made before and are void: the archive goes on to put
    /// something else there.
    fn forget(&mut self, path: &[u8]) -> Result<()>;
}

impl RowSink for Vec<Row> {
    fn row(&mut self, row: Row) -> Result<()> {
        self.push(row);
        Ok(())
    }
    fn replace(&mut self, row: Row) -> Result<()> {
        match self.iter().rposition(|old| old.path == row.path) {
            Some(at) => self[at] = row,
            None => self.push(row),
        }
        Ok(())
    }
    fn forget(&mut self, path: &[u8]) -> Result<()> {
        self.retain(|row| !is_at_or_below(&row.path, path));
        Ok(())
    }
}

/// For whoever wants the tree and not its rows.
impl RowSink for () {
    fn row(&mut self, _: Row) -> Result<()> {
        Ok(())
    }
    fn forget(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// The root stands above all.
pub(crate) fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    match path.strip_prefix(top) {
        Some(rest) => top.is_empty() || rest.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// How a tree on disk writes down what an archive calls whiteouts. Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A layer alone: 0:0 character devices and `trusted.overlay.opaque=y` (kernel overlayfs.rst).
    Overlay,
    /// The same in a user namespace: `user.overlay.*`.
    OverlayUser,
    /// A layer alone, `.wh.NAME` and `.wh..wh..opq` as in the archive.
    Aufs,
    /// A whole stack in one tree: what a layer deletes is gone.
    Whole,
}
