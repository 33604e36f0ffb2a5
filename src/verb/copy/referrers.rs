//! What refers to an image goes with it: signatures, SBOMs (distribution-spec, "Listing Referrers"), and what refers to
//! these in turn; and what cosign keeps under tags of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::parcel::{Document, Parcel, gather_at, parsed};
use super::send::From;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Document as Parsed};
use crate::job::Job;
use crate::registry::referrers_tag;
use crate::transfer;

/// A signature of an SBOM of an image is three.
const MAX_DEPTH: usize = 4;

/// Behind the tag for referrers (cosign, specs/SIGNATURE_SPEC.md, "Tag-based discovery"): signatures, attestations, SBOMs.
const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];

pub(super) struct Referrer {
    pub(super) subject: Digest,
    /// As lists of referrers show it.
    pub(super) entry: Descriptor,
    /// It stands under this tag, and is in no list.
    pub(super) tag: Option<String>,
    pub(super) parcel: Parcel,
}

/// Of every document of the parcel; each after what it refers to.
pub(super) fn of(job: &Job, from: &From<'_>, parcel: &Parcel) -> Result<Vec<Referrer>> {
    let mut subjects: Vec<Digest> =
        parcel.documents.iter().map(|document| document.descriptor.digest).collect();
    let mut seen: BTreeSet<Digest> = subjects.iter().copied().collect();
    let mut found = Vec::new();
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for (subject, tag, listed) in level(job, from, &subjects)? {
            if !seen.insert(listed.digest) {
                continue;
            }
            let wanted = Descriptor::new(listed.media_type.clone(), listed.digest, listed.size);
            let parcel = gather_at(job, from.source, from.name, &wanted)?;
            let entry = entry(parcel.top(), listed)?;
            next.push(entry.digest);
            found.push(Referrer { subject, entry, tag, parcel });
        }
        if next.is_empty() {
            break;
        }
        subjects = next;
    }
    Ok(found)
}

type Listed = (Digest, Option<String>, Descriptor);

/// Several questions at once: most of them have no answer.
fn level(job: &Job, from: &From<'_>, subjects: &[Digest]) -> Result<Vec<Listed>> {
    let ways = std::iter::once(None).chain(COSIGN.map(Some));
    let questions: Vec<(usize, Digest, Option<&str>)> = ways
        .flat_map(|way| subjects.iter().map(move |subject| (*subject, way)))
        .enumerate()
        .map(|(n, (subject, way))| (n, subject, way))
        .collect();
    let answers = Mutex::new(BTreeMap::new());
    let stop = AtomicBool::new(false);
    let ask = |(n, subject, way): &(usize, Digest, Option<&str>)| {
        let listed: Vec<Listed> = match way {
            None => {
                let listed = from.source.referrers(job, from.name, subject)?;
                listed.into_iter().map(|entry| (*subject, None, entry)).collect()
            }
            Some(suffix) => {
                let tag = format!("{}{suffix}", referrers_tag(subject));
                let there = from.source.tagged(job, from.name, &tag)?;
                there.into_iter().map(|(entry, _)| (*subject, Some(tag.clone()), entry)).collect()
            }
        };
        answers.lock().unwrap_or_else(PoisonError::into_inner).insert(*n, listed);
        Ok(())
    };
    let all = || transfer::side_by_side(job, &questions, &stop, ask);
    transfer::guarded(job, from.source, all)?;
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(answers.into_values().flatten().collect())
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
