//! The archive of what changed: from an overlay's upper directory, or from two whole trees.

//!
//! Both give the same bytes for the same change, as what an archive says is a function of the trees before and after:
//! a whiteout for what is gone, members for what is new or differs, and the directories above them. A directory that
//! lost all of two names or more is opaque instead, and so is one that took the place of something else.

use std::collections::HashSet;
use std::io::Write;

use rustix::fd::{AsFd, BorrowedFd};

use super::archive::Archive;
use super::hashing::Hashing;
use super::touched::Touched;
use super::tree;
use super::walk::{Walk, Way};
use super::{Form, Row, RowSink};
use crate::error::{Context, Result};
use crate::image::DiffId;
use crate::job::Job;

/// Where the changes lie.
pub enum Changes<'a> {
    /// The changes alone, as a union filesystem leaves them. Must not be mounted for writing any more.
    Upper {
        upper: BorrowedFd<'a>,
        form: Form,
        /// What the upper stands on, merged and mounted for reading: what equals it is no change. `None`: nothing below.
        parent: Option<BorrowedFd<'a>>,
        /// Also makes the directory say exactly what the archive says: removes what is no change, adds whiteouts
        /// that an opaque mark stood for. Asked for when the upper becomes the layer's own tree.
        settle: bool,
    },
    /// A whole tree and the whole tree before; compares everything, contents too. `None`: all of it is new.
    Trees { tree: BorrowedFd<'a>, parent: Option<BorrowedFd<'a>> },
    /// A whole tree that began as a snapshot of the one before, and what need be compared.
    Touched { tree: BorrowedFd<'a>, parent: BorrowedFd<'a>, touched: &'a Touched },
}

impl<'a> Changes<'a> {
    /// What stands below, merged.
    pub fn parent(&self) -> Option<BorrowedFd<'a>> {
        match self {
            Changes::Upper { parent, .. } | Changes::Trees { parent, .. } => *parent,
            Changes::Touched { parent, .. } => Some(*parent),
        }
    }
}

#[derive(Default)]
pub struct PackOptions<'a> {
    /// No time in the archive is later than this: seconds since the epoch (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// What a whole tree has of the archive gets the archive's times too: for the layer's own tree. (An upper that is
    /// settled has them anyway.)
    pub stamp: bool,
    /// Gets the archive's bytes too.
    pub tee: Option<&'a mut (dyn Write + Send)>,
    /// Every time in the archive is this: seconds since the epoch.
    pub time: Option<i64>,
    pub root: Root<'a>,
    /// What is in the archive though it is what stood there before, times and all: whoever wrote it says so.
    pub always: HashSet<Vec<u8>>,
    /// Sees what goes into the archive; its error ends the packing.
    pub watch: Option<&'a mut Watch<'a>>,
}

/// Called with each member, before anything of it is written anywhere, then with its bytes in order, then with its end.
pub type Watch<'w> = dyn FnMut(&Row, Part<'_>) -> Result<()> + 'w;

#[derive(Clone, Copy, Debug)]
pub enum Part<'p> {
    Member,
    Bytes(&'p [u8]),
    End,
}

/// The member of the tree's root.
#[derive(Clone, Copy, Debug, Default)]
pub enum Root<'a> {
    /// Where its owner, mode or attributes are not those of the root below.
    #[default]
    WhereItDiffers,
    /// It has none: whoever unpacks has a root of his own.
    Left,
    /// The whole tree stands in a directory of this name, which is everybody's (0755, root) and has a member.
    In(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the files in it, each inode once.
    pub bytes: u64,
    pub rows: u64,
}

/// Hashes the archive of `changes` without keeping it; rows go to `rows`, the recipe to `recipe`.
///
/// The root has a member of its own, `./`, when its owner, mode or attributes are not those of the root below
/// (nothing below: 0755 root), unless [`Root`] says otherwise. Sockets are left out. Times are whole seconds, rounded down.
pub fn pack(
    job: &Job,
    changes: Changes<'_>,
    options: PackOptions<'_>,
    rows: &mut dyn RowSink,
    recipe: &mut dyn Write,
) -> Result<Packed> {
    let PackOptions { clamp, stamp, tee, time, root, always, watch } = options;
    let parent = changes.parent();
    let (new, form, settle, touched) = match changes {
        Changes::Upper { upper, form, settle, .. } => (upper, form, settle, None),
        Changes::Trees { tree, .. } => (tree, Form::Whole, false, None),
        Changes::Touched { tree, touched, .. } => (tree, Form::Whole, false, Some(touched.clone())),
    };
    // A mount's descriptor may be an O_PATH one, which has no attributes to read.
    let new = tree::open_dir(new, b".").context(|| "opening the tree to pack")?;
    let parent = match parent {
        Some(parent) => Some(tree::open_dir(parent, b".").context(|| "opening the tree below")?),
        None => None,
    };
    std::thread::scope(|scope| {
        let archive = match tee {
            Some(tee) => Hashing::start(scope, Some(tee)),
            None => Hashing::start(scope, None),
        };
        let files = Hashing::start(scope, None);
        let walk = Walk {
            archive: Archive::new(job, &archive, &files, rows, recipe)?
                .within(root)
                .watched(watch.map(|watch| watch as &mut Watch<'_>)),
            new: new.as_fd(),
            form,
            parent: parent.as_ref().map(AsFd::as_fd),
            touched,
            settle,
            stamp: stamp || settle,
            always,
            clamp,
            time,
            root,
            way: Way::default(),
        };
        walk.run()
    })
}
