//! What refers to a manifest (distribution-spec, "Listing Referrers"): the registry's own list, else the index that
//! clients keep under a tag.

use ureq::http::Uri;
use ureq::http::header::LINK;

use super::route::resolve;
use super::web::{Answer, Ask, Web};
use super::{Registry, Scope};
use crate::error::Result;
use crate::image::{Descriptor, Digest, Index, MAX_MANIFEST, MediaType, Reference};
use crate::job::Job;
use crate::transfer::Source as _;

/// Answers to one question; a registry that never comes to an end is not listened to for ever.
const PAGES: usize = 64;

/// Where clients list the referrers of a manifest at registries that do not ("Referrers Tag Schema").
pub fn referrers_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

impl Registry {
    /// From both places: what was pushed before a registry could list referrers stands under the tag alone.
    pub(super) fn list_referrers(
        &self,
        job: &Job,
        name: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>> {
        let mut found = self.own_list(job, name, subject)?.unwrap_or_default();
        for entry in self.tagged_list(job, name, subject)?.map(|index| index.manifests).unwrap_or_default() {
            if !found.iter().any(|known| known.digest == entry.digest) {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// `None` where the registry keeps no such lists.
    fn own_list(&self, job: &Job, name: &Reference, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        let mut found = Vec::new();
        let mut url = self.at(&format!("{}/referrers/{subject}", name.path()))?;
        let accept = MediaType::OciIndex.to_string();
        for _ in 0..PAGES {
            let ask = Ask { accept: Some(&accept), ..Ask::of(&url) };
            let mut answer = self.authorized(&Scope::pull(name.path()), job, &ask, Web::ask)?;
            if !answer.status.is_success() {
                return match answer.status.as_u16() {
                    // Some answer what they do not know with something else than 404.
                    400 | 404 | 405 | 501 => Ok(None),
                    _ => Err(self.refused(
                        answer,
                        &format!("what refers to {}", subject.short()),
                        super::Deed::Give,
                    )),
                };
            }
            let raw = answer.read(MAX_MANIFEST)?;
            // A page that people are shown is no list.
            let Ok(index) = Index::parse(&raw) else { return Ok(None) };
            found.extend(index.manifests);
            match next(&answer) {
                Some(following) if following != url => url = following,
                _ => break,
            }
        }
        Ok(Some(found))
    }

    /// `None` where nothing stands under the tag, or no index.
    fn tagged_list(&self, job: &Job, name: &Reference, subject: &Digest) -> Result<Option<Index>> {
        let found = self.tagged(job, name, &referrers_tag(subject))?;
        Ok(found.and_then(|(_, raw)| Index::parse(&raw).ok()))
    }

    /// Adds to what stands under the tag, for registries that keep no lists themselves.
    pub fn tag_referrer(
        &self,
        job: &Job,
        name: &Reference,
        subject: &Digest,
        entry: &Descriptor,
    ) -> Result<()> {
        let mut index = self.tagged_list(job, name, subject)?.unwrap_or_else(|| Index::new(Vec::new()));
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry.clone());
        let raw = index.to_bytes();
        let list = Descriptor::of(index.media_type(), &raw);
        self.push_manifest(job, name, &referrers_tag(subject), &list, &raw).map(drop)
    }
}

/// Where a list goes on. At this very registry, whatever the link says: what stands before one changes schemes and hosts.
pub(super) fn next(answer: &Answer) -> Option<Uri> {
    let links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let next = resolve(&answer.url, links.filter_map(next_of).next()?)?;
    let mut parts = answer.url.clone().into_parts();
    parts.path_and_query = next.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

/// Of `<URL>; rel="first", <URL>; rel="next"` (RFC 8288) the latter.
fn next_of(link: &str) -> Option<&str> {
    let mut rest = link;
    loop {
        let (target, after) = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?.split_once('>')?;
        let (parameters, others) = after.split_at(after.find('<').unwrap_or(after.len()));
        if parameters.split([';', ',']).any(is_next) {
            return Some(target);
        }
        rest = others;
    }
}

fn is_next(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let mut relations = value.trim().trim_matches('"').split(' ');
        name.trim().eq_ignore_ascii_case("rel") && relations.any(|one| one.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::next_of;

    #[test]
    fn of_several_links_the_next_is_followed() {
        for (link, next) in [
            ("</a?n=1>; rel=\"next\"", Some("/a?n=1")),
            ("</a>; rel=next", Some("/a")),
            ("</next>; rel=\"first\", </b>; title=\"x\"; rel=\"last next\"", Some("/b")),
            ("</next>; rel=\"prev\"", None),
            ("</a>", None),
            ("", None),
        ] {
            assert_eq!(next_of(link), next, "{link}");
        }
    }
}
