//! The tags of a repository (distribution-spec, "Listing Tags").

use std::collections::HashSet;

use serde::Deserialize;

use super::referrers::next;
use super::web::{Ask, Web};
use super::{Registry, Scope};
use crate::error::{Error, Result};
use crate::image::Reference;
use crate::job::Job;

/// Asked for at once; a registry may give fewer.
const PAGE: usize = 1000;
/// A registry that never comes to an end is not listened to for ever.
const MOST: usize = 1_000_000;
/// Answers in a row that name nothing new: a list may lead round in a circle.
const BARREN: usize = 32;
/// Bytes of one answer.
const MAX_PAGE: u64 = 8 << 20;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Registry {
    /// All of them, in the registry's order; once, also from one that does not know pages.
    pub(super) fn list_tags(&self, job: &Job, name: &Reference) -> Result<Vec<String>> {
        let (mut tags, mut seen, mut barren) = (Vec::new(), HashSet::new(), 0);
        let mut url = self.at(&format!("{}/tags/list?n={PAGE}", name.path()))?;
        loop {
            let ask = Ask::of(&url);
            let what = || format!("the tags of `{}`", name.familiar_name());
            let (answer, raw) = self.whole(job, MAX_PAGE, || {
                let answer = self.authorized(&Scope::pull(name.path()), job, &ask, Web::ask)?;
                self.accept(answer, &what())
            })?;
            let page: Page = serde_json::from_slice(&raw).map_err(|cause| {
                Error::unavailable(format!("the list of {} is no such list", what())).because(cause)
            })?;
            let known = tags.len();
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| seen.insert(tag.clone())));
            barren = if tags.len() > known { 0 } else { barren + 1 };
            match next(&answer) {
                Some(following) if following != url && tags.len() < MOST && barren < BARREN => {
                    url = following;
                }
                _ => return Ok(tags),
            }
        }
    }
}
