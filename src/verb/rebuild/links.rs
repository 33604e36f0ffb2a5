//! `system check --rebuild-index`: what manifests name, which compressed layer holds what, and where it is to be had.

use std::collections::{HashMap, HashSet};

use super::blobs::Found;
use crate::db::{self, BlobLayer, Db, TagMove};
use crate::error::Result;
use crate::image::{Compression, Digest, Document, ImageId, Manifest, MediaType, Reference};

/// What manifests name, which compressed layer holds what, and the repositories that tags were pulled from.
pub(super) fn manifests(db: &Db, found: &Found, moves: &[TagMove], images: &HashSet<ImageId>) -> Result<()> {
    let manifests: HashMap<Digest, &Manifest> = found
        .documents
        .iter()
        .filter_map(|(digest, document)| match document {
            Document::Image(manifest) => Some((*digest, &**manifest)),
            Document::Index(_) => None,
        })
        .collect();
    db.write(|writer| {
        for (digest, document) in &found.documents {
            let children: Vec<Digest> = match document {
                Document::Index(index) => index.manifests.iter().map(|child| child.digest).collect(),
                Document::Image(manifest) => {
                    let layers = manifest.layers.iter().map(|layer| layer.digest);
                    [manifest.config.digest].into_iter().chain(layers).collect()
                }
            };
            for child in children
                .iter()
                .filter(|child| manifests.contains_key(digest) || found.digests.contains(child))
            {
                writer.link_blob(digest, child)?;
            }
        }
        for manifest in manifests.values() {
            let config = found.configs.get(&ImageId(manifest.config.digest));
            for (layer, diff_id) in
                manifest.layers.iter().zip(config.iter().flat_map(|config| &config.rootfs.diff_ids))
            {
                writer.insert_blob_layer(&BlobLayer {
                    blob: layer.digest,
                    diff_id: *diff_id,
                    compression: compression(&layer.media_type).into(),
                    size: layer.size,
                })?;
            }
        }
        for entry in moves {
            let (Some(image), Some(target)) = (entry.to, entry.target) else { continue };
            let Ok(name) = entry.name.parse::<Reference>() else { continue };
            if !images.contains(&image) || !found.digests.contains(&target) {
                continue;
            }
            writer.add_repo_digest(&name.name(), &target, &image)?;
            for manifest in manifests.values().filter(|manifest| manifest.config.digest == image.0) {
                for layer in manifest.layers.iter().filter(|layer| !layer.media_type.is_foreign()) {
                    writer.blob_seen(&layer.digest, name.host(), name.path())?;
                }
            }
        }
        Ok(())
    })
}

fn compression(media_type: &MediaType) -> &'static str {
    match media_type.compression() {
        Some(Compression::Gzip) => "gzip",
        Some(Compression::Zstd) => "zstd",
        Some(Compression::None) | None => "none",
    }
}

/// What was written down where compressed layers were dropped.
pub(super) fn origins(db: &Db) -> Result<()> {
    for layer in db.read(|reader| reader.layers())? {
        let seen = db::seen(db.root(), &layer.diff_id)?;
        db.write(|writer| {
            // Noted last, the latest comes first again.
            for seen in seen.iter().rev() {
                writer.insert_blob_layer(&seen.form)?;
                writer.blob_seen(&seen.form.blob, &seen.registry, &seen.repository)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
