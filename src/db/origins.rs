//! Where compressed layers that were dropped are to be had, written beside their recipes: `layers/DIFFID.seen`. Nothing
//! decides by it; whoever makes the index again reads it.
//!
//! One line for each form and place: digest, compression, bytes, registry, repository.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::blob::BlobLayer;
use super::transaction::Writer;
use crate::error::{Context as _, Result};
use crate::image::{DiffId, Digest};

/// A compressed layer, and a repository that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub form: BlobLayer,
    pub registry: String,
    pub repository: String,
}

fn path(root: &Path, diff_id: &DiffId) -> PathBuf {
    root.join("layers").join(format!("{}.seen", diff_id.hex()))
}

/// What was written of a layer, the latest first; lines that say nothing are passed over.
pub fn seen(root: &Path, diff_id: &DiffId) -> Result<Vec<Seen>> {
    let path = path(root, diff_id);
    match fs::read(&path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(cause).context(|| format!("reading {}", path.display())),
        Ok(text) => {
            Ok(String::from_utf8_lossy(&text).lines().filter_map(|line| parse(line, diff_id)).collect())
        }
    }
}

fn parse(line: &str, diff_id: &DiffId) -> Option<Seen> {
    let words: Vec<&str> = line.split(' ').collect();
    let [digest, compression, size, registry, repository] = words[..] else { return None };
    let form = BlobLayer {
        blob: digest.parse().ok()?,
        diff_id: *diff_id,
        compression: compression.to_owned(),
        size: size.parse().ok()?,
    };
    Some(Seen { form, registry: registry.to_owned(), repository: repository.to_owned() })
}

fn line(seen: &Seen) -> String {
    let Seen { form, registry, repository } = seen;
    format!("{} {} {} {registry} {repository}\n", form.blob, form.compression, form.size)
}

impl Writer<'_> {
    /// Writes down where these forms of layers, and others of the same layers, are to be had; not durable yet. Before
    /// they are dropped. In a write transaction: whoever removes a layer's recipe takes this away in one, too.
    pub fn write_origins(&self, blobs: &[Digest]) -> Result<()> {
        let mut layers = Vec::new();
        for blob in blobs {
            layers.extend(self.layer_of_blob(blob)?.map(|form| form.diff_id));
        }
        layers.sort_unstable();
        layers.dedup();
        for diff_id in layers {
            let mut text = String::new();
            for form in self.blobs_of_layer(&diff_id)? {
                for (registry, repository) in self.blob_seen_at(&form.blob)? {
                    text.push_str(&line(&Seen { form: form.clone(), registry, repository }));
                }
            }
            let path = path(self.db.root(), &diff_id);
            replace(&path, &text).context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whole or not at all. Only one at a time does so.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = path.with_extension("seen.new");
    drop(fs::remove_file(&draft));
    let mut file: File = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_where() {
        let diff_id = DiffId(Digest::of(b"tar"));
        let form = BlobLayer { blob: Digest::of(b"blob"), diff_id, compression: "gzip".into(), size: 7 };
        let seen = Seen { form, registry: "localhost:5000".into(), repository: "team/app".into() };
        assert_eq!(parse(line(&seen).trim_end(), &diff_id), Some(seen));
        for bad in ["", "sha256:12 gzip 7 a b", "x gzip 7 a b"] {
            assert_eq!(parse(bad, &diff_id), None, "{bad}");
        }
    }
}
