//! What refers to an image goes with it: signatures, SBOMs (distribution-spec, "Listing Referrers"), and what refers to
//! these in turn.

use std::collections::BTreeSet;

use super::parcel::{Document, Parcel, gather_at, parsed};
use super::send::From;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Document as Parsed};
use crate::job::Job;

/// A signature of an SBOM of an image is three.
const MAX_DEPTH: usize = 4;

pub(super) struct Referrer {
    pub(super) subject: Digest,
    /// As lists of referrers show it.
    pub(super) entry: Descriptor,
    pub(super) parcel: Parcel,
}

/// Of every document of the parcel; each after what it refers to.
pub(super) fn of(job: &Job, from: &From<'_>, parcel: &Parcel) -> Result<Vec<Referrer>> {
    let mut seen: BTreeSet<Digest> =
        parcel.documents.iter().map(|document| document.descriptor.digest).collect();
    let mut subjects: Vec<Digest> = seen.iter().copied().collect();
    let mut found = Vec::new();
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for subject in subjects {
            for listed in from.source.referrers(job, from.name, &subject)? {
                if !seen.insert(listed.digest) {
                    continue;
                }
                let wanted = Descriptor::new(listed.media_type.clone(), listed.digest, listed.size);
                let parcel = gather_at(job, from.source, from.name, &wanted)?;
                let entry = entry(parcel.top(), listed)?;
                next.push(entry.digest);
                found.push(Referrer { subject, entry, parcel });
            }
        }
        if next.is_empty() {
            break;
        }
        subjects = next;
    }
    Ok(found)
}

/// With what its manifest says of itself (distribution-spec, "Pushing Manifests with Subject").
fn entry(document: &Document, listed: Descriptor) -> Result<Descriptor> {
    let (kind, annotations) = match parsed(document)? {
        Parsed::Image(manifest) => {
            let kind = manifest.artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string());
            (Some(kind), manifest.annotations)
        }
        Parsed::Index(index) => (index.artifact_type, index.annotations),
    };
    let mut entry = document.descriptor.clone();
    entry.artifact_type = kind.or(listed.artifact_type);
    entry.annotations = if annotations.is_empty() { listed.annotations } else { annotations };
    Ok(entry)
}
