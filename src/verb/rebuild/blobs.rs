//! `system check --rebuild-index`: what the blobs are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Rebuilt, Work};
use crate::db::Db;
use crate::error::{Context as _, Error, Result};
use crate::image::{Digest, Document, Hasher, ImageConfig, ImageId, MAX_CONFIG};
use crate::job::Job;
use crate::store::Blobs;

/// What the blobs are, as far as they are whole.
#[derive(Default)]
pub(super) struct Found {
    pub(super) digests: HashSet<Digest>,
    pub(super) configs: BTreeMap<ImageId, ImageConfig>,
    pub(super) documents: Vec<(Digest, Document)>,
}

/// Every blob whose bytes have the digest that it is called by becomes a row.
pub(super) fn read_blobs(db: &Db, blobs: &Blobs, rebuilt: &mut Rebuilt, job: &Job) -> Result<Found> {
    let listing = || "listing the blobs";
    let mut names = Vec::new();
    for entry in fs::read_dir(db.root().join("blobs/sha256")).context(listing)? {
        names.extend(entry.context(listing)?.file_name().to_str().and_then(Digest::from_hex));
    }
    names.sort();
    let work = Work::start(job, "reading the blobs", names.len());
    let found = Mutex::new((Found::default(), Vec::new()));
    let next = AtomicUsize::new(0);
    let read = || -> Result<()> {
        while let Some(digest) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let blob = read_blob(&blobs.path(digest), digest, job)?;
            work.step();
            let (found, damaged) = &mut *found.lock().expect("no holder panics");
            match blob {
                None => damaged.push(*digest),
                Some(content) => {
                    found.digests.insert(*digest);
                    match content {
                        Content::Config(config) => drop(found.configs.insert(ImageId(*digest), *config)),
                        Content::Document(document) => found.documents.push((*digest, document)),
                        Content::Other => {}
                    }
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.budget.threads.max(1)).map(|_| scope.spawn(read)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::internal("a thread that reads blobs panicked")))
        })
    })?;
    let (found, mut damaged) = found.into_inner().expect("no holder panics");
    damaged.sort();
    rebuilt
        .lost
        .extend(damaged.iter().map(|digest| format!("blob {digest}: its bytes are not what they were")));
    rebuilt.blobs = found.digests.len();
    let types: HashMap<Digest, String> = found
        .documents
        .iter()
        .map(|(digest, document)| (*digest, document.media_type().to_string()))
        .collect();
    db.write(|writer| {
        found
            .digests
            .iter()
            .try_for_each(|digest| blobs.adopt(writer, digest, types.get(digest).map(String::as_str)))
    })?;
    Ok(found)
}

enum Content {
    Config(Box<ImageConfig>),
    Document(Document),
    Other,
}

/// `None`: it is damaged.
fn read_blob(path: &Path, digest: &Digest, job: &Job) -> Result<Option<Content>> {
    let reading = || format!("reading {}", path.display());
    let mut file = fs::File::open(path).context(reading)?;
    let small = file.metadata().context(reading)?.len() <= MAX_CONFIG;
    let (mut hasher, mut text, mut buffer) = (Hasher::new(), Vec::new(), vec![0; 256 << 10]);
    loop {
        job.check()?;
        let count = std::io::Read::read(&mut file, &mut buffer).context(reading)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        if small {
            text.extend_from_slice(&buffer[..count]);
        }
    }
    if hasher.finish() != *digest {
        return Ok(None);
    }
    if text.first() != Some(&b'{') {
        return Ok(Some(Content::Other));
    }
    if let Ok(config) = ImageConfig::parse(&text) {
        return Ok(Some(Content::Config(Box::new(config))));
    }
    Ok(Some(Document::parse(&text, None).map_or(Content::Other, Content::Document)))
}
