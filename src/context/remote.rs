//! What a build takes from other machines: files over HTTP and commits of git repositories, each asked for once.
//!
//! Both are kept in the store's cache. What is there is asked about again, unless a digest or a commit pins it; its
//! bytes are hashed again whenever they are used, so a cache that was changed is no more than a slow one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;

use super::git::Checkout;
use super::web::Kept;
use super::{Input, Private, Tree};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::Digest;
use crate::job::Job;
use crate::plan::{GitSource, HttpSource};
use crate::registry;

/// What git is given of the caller's surroundings; all else of them it does not see.
#[derive(Clone, Debug, Default)]
pub struct GitHost {
    /// The search path.
    pub path: OsString,
    /// The socket of the caller's ssh agent.
    pub ssh_agent: Option<PathBuf>,
    /// Hosts that ssh knows, beside those it met before.
    pub known_hosts: Option<PathBuf>,
}

/// The bytes of a build secret, by its id.
pub type Secrets<'s> = dyn Fn(&str) -> Option<Vec<u8>> + Sync + 's;

/// What is there as long as this value.
pub struct Held(#[expect(dead_code, reason = "it acts when it is dropped")] Box<dyn Send + Sync>);

impl Held {
    pub fn new(what: impl Send + Sync + 'static) -> Self {
        Held(Box::new(what))
    }
}

/// For one build.
pub struct Remote<'e> {
    pub(super) engine: &'e Engine,
    pub(super) registry: &'e registry::Options,
    pub(super) git: &'e GitHost,
    /// The bytes of a build secret, by its id.
    pub(super) secret: &'e Secrets<'e>,
    /// By address: what it was in this build.
    pub(super) files: Mutex<HashMap<String, Kept>>,
    /// By remote and reference.
    pub(super) commits: Mutex<HashMap<(String, Option<String>), super::git::Resolved>>,
}

impl<'e> Remote<'e> {
    pub fn new(
        engine: &'e Engine,
        registry: &'e registry::Options,
        git: &'e GitHost,
        secret: &'e Secrets<'e>,
    ) -> Self {
        Remote { engine, registry, git, secret, files: Mutex::default(), commits: Mutex::default() }
    }

    /// A secret as text for a header: without the line break that editors leave.
    pub(super) fn secret_text(&self, id: &str) -> Option<String> {
        let text = String::from_utf8((self.secret)(id)?).ok()?;
        Some(text.trim_end_matches(['\r', '\n']).to_owned()).filter(|text| !text.is_empty())
    }

    /// A file, under the name that ADD gives it.
    pub fn http(&self, source: &HttpSource, job: &Job) -> Result<Input<'static>> {
        super::web::input(self, source, job)
    }

    /// A file, put into a directory by a name.
    pub fn fetch(&self, source: &HttpSource, private: &Private, name: &str, job: &Job) -> Result<()> {
        super::web::get(self, source, private, name, false, job).map(drop)
    }

    /// The time of a file of the tree: what its server says, else that of the newest file in it, if it is an archive.
    /// Where its digest is given, no server is asked (BuildKit).
    pub fn fetched_time(
        &self,
        source: &HttpSource,
        private: &Private,
        name: &str,
        job: &Job,
    ) -> Result<Option<i64>> {
        super::web::time(self, source, private, name, job)
    }

    /// When a commit was made.
    pub fn commit_time(&self, source: &GitSource, job: &Job) -> Result<i64> {
        super::git::time(self, source, job)
    }

    /// A commit's files.
    pub fn checkout(&self, source: &GitSource, job: &Job) -> Result<Checkout> {
        super::git::checkout(self, source, job)
    }

    /// What is to be copied of a commit.
    pub fn git(&self, source: &GitSource, job: &Job) -> Result<Input<'static>> {
        let checkout = super::git::checkout(self, source, job)?;
        let identity = checkout.identity;
        let what = super::git_url::shown(source);
        let tree = Tree::new(checkout, what, super::Digests::Read);
        let selection = tree.subtree("", job)?;
        Ok(Input { tree, selection, identity })
    }
}

pub(super) fn name_of(address: &str) -> String {
    Digest::of(address.as_bytes()).hex()
}
