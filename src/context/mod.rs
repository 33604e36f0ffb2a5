//! Where the files of COPY and ADD come from: a tree of files, what an instruction selects from it, and the copying.
//!
//! The flow: [`Tree::select`] walks what the sources name and gives each file its digest (from a cache where the
//! file has not changed); [`Selection::digest`] is what a cache key is made of; [`copy::into`] does the copying.

pub mod copy;
mod follow;
mod git;
pub mod git_url;
pub mod ignore;
pub mod kept;
mod links;
pub mod listing;
mod pins;
mod private;
mod remote;
mod rows;
mod select;
mod stat_cache;
mod trim;
pub mod unpack;
mod web;
pub mod wildcard;

pub(crate) use follow::{End, Stands, follow};
pub use git::Checkout;
pub use links::Links;
pub use pins::Pins;
pub use private::Private;
pub use remote::{GitHost, Held, Remote, Secrets};
pub use rows::Listing;
pub use select::{Choice, Item, Selection, Source};
pub(crate) use select::{base_name, join};

pub use stat_cache::StatCache;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;

use crate::error::{Context as _, Error, Kind, Result};
use crate::image::Digest;
use ignore::Ignore;

/// A tree that COPY reads: the build context, a stage, an image.
pub struct Tree<'a> {
    root: Root<'a>,
    pub(crate) what: String,
    pub(crate) excluded: Option<&'a Ignore>,
    pub(crate) digests: Digests<'a>,
}

enum Root<'a> {
    Here(Box<dyn AsFd + Send + Sync + 'a>),
    /// What there is is known, and opened when it is needed.
    Known {
        listing: Arc<Listing>,
        open: Box<Open<'a>>,
        opened: OnceLock<Opened>,
    },
}

pub type Opened = Box<dyn AsFd + Send + Sync>;

/// Opens the root of a tree.
pub type Open<'a> = dyn Fn() -> Result<Opened> + Sync + 'a;

/// Where a file's digest comes from without reading it.
pub enum Digests<'a> {
    /// Unchanged since it was read last: by inode, size and times.
    Stat(&'a StatCache),
    /// Each is read: they were made just now.
    Read,
    /// The index knows the files of a layer.
    Index(LookUp<'a>),
}

/// The digest of the file at a path, if the index has it.
pub type LookUp<'a> = Box<dyn Fn(&[u8]) -> Result<Option<Digest>> + Sync + 'a>;

impl<'a> Tree<'a> {
    /// `what` names the tree in errors: "the build context".
    pub fn new(root: impl AsFd + Send + Sync + 'a, what: impl Into<String>, digests: Digests<'a>) -> Self {
        Tree { root: Root::Here(Box::new(root)), what: what.into(), excluded: None, digests }
    }

    /// A tree whose files are known, and here only once `open` was called.
    pub fn listed(
        listing: Arc<Listing>,
        open: Box<Open<'a>>,
        what: impl Into<String>,
        digests: Digests<'a>,
    ) -> Self {
        let root = Root::Known { listing, open, opened: OnceLock::new() };
        Tree { root, what: what.into(), excluded: None, digests }
    }

    #[must_use]
    pub fn excluding(mut self, excluded: &'a Ignore) -> Self {
        self.excluded = Some(excluded);
        self
    }

    pub fn root(&self) -> Result<BorrowedFd<'_>> {
        match &self.root {
            Root::Here(root) => Ok(root.as_fd()),
            Root::Known { open, opened, .. } => {
                if opened.get().is_none() {
                    // Of two threads that open it, either will do.
                    let _other_was_first = opened.set(open()?);
                }
                Ok(opened.get().expect("set above").as_fd())
            }
        }
    }

    pub(crate) fn listing(&self) -> Option<&Listing> {
        match &self.root {
            Root::Here(_) => None,
            Root::Known { listing, .. } => Some(listing),
        }
    }

    /// Owners of files in an image mean something; those in a build context do not.
    pub(crate) fn keeps_owners(&self) -> bool {
        matches!(self.digests, Digests::Index(_))
    }
}

/// One source of a COPY or ADD: a tree and what it selects from it.
pub struct Input<'a> {
    pub tree: Tree<'a>,
    pub selection: Selection,
    /// What decides its content, where its bytes are not the same twice: a `.git` directory.
    pub identity: Option<Digest>,
}

impl Input<'_> {
    /// All that the copying takes from it; never times.
    pub fn digest(&self) -> Digest {
        self.identity.unwrap_or_else(|| self.selection.digest(self.tree.keeps_owners()))
    }

    /// All of it, to be copied.
    pub fn reference(&self) -> Part<'_> {
        self.without(&[])
    }

    /// It but some of its sources, by number.
    pub fn without(&self, left_out: &[usize]) -> Part<'_> {
        let sources = self.selection.sources.iter().enumerate();
        let sources = sources.filter(|(number, _)| !left_out.contains(number)).map(|(_, source)| source);
        Part { tree: &self.tree, sources: sources.collect() }
    }
}

/// What is copied of an [`Input`].
pub struct Part<'p> {
    pub tree: &'p Tree<'p>,
    pub sources: Vec<&'p Source>,
}

/// Opens the directory of a build context.
pub fn open(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::Mode;
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match opened {
        Err(rustix::io::Errno::NOTDIR) => {
            Err(Error::new(Kind::Invalid, format!("build context `{}` is not a directory", path.display()))
                .hint("name the directory that holds the files to copy; the Dockerfile goes with -f"))
        }
        Err(rustix::io::Errno::NOENT) => {
            Err(Error::not_found(format!("build context `{}` does not exist", path.display())))
        }
        other => other.context(|| format!("opening the build context `{}`", path.display())),
    }
}
