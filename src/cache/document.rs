//! The index of a cache: records, and the layers that they came to.

use serde::{Deserialize, Serialize};

use crate::db::CacheRecord;
use crate::error::{Context as _, Error, Result};
use crate::image::{CacheKey, ChainId, ContentId, Descriptor, DiffId, Digest, MediaType};

/// Raised when an older engine would misread what a newer one writes.
const VERSION: u32 = 1;

pub(super) const CONFIG: &str = "application/vnd.outcrop.cache.config.v1+json";
pub(super) const ROWS: &str = "application/vnd.outcrop.cache.rows.v1+zstd";

/// Bytes of an index that are read.
pub(super) const MAX_INDEX: u64 = 64 << 20;
/// Layers or records; a build has some hundred.
const MOST: usize = 100_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) version: u32,
    pub(super) layers: Vec<Layer>,
    pub(super) records: Vec<Record>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<Mount>,
}

/// A cache mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mount {
    /// What makes two mounts the same, as text.
    pub(super) identity: String,
    /// Its files.
    pub(super) rows: Descriptor,
    /// Which blobs have their bytes.
    pub(super) packs: Descriptor,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) diff_id: DiffId,
    pub(super) content_id: ContentId,
    /// Its archive means this on some layers alone: see `on`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) leans: bool,
    /// Of a layer that leans: what it stands on; `None`: on nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on: Option<ChainId>,
    /// Sum of its files' sizes.
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<Descriptor>,
    /// `None`: the cache knows of the layer, and does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) archive: Option<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// `chain` or `content`, as the store calls it.
    pub(super) kind: String,
    pub(super) key: CacheKey,
    pub(super) key_text: String,
    /// The key without what the step stands on.
    pub(super) step: CacheKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reads: Option<String>,
    pub(super) instruction: String,
    /// Among the layers; `None`: the step makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layer: Option<usize>,
    pub(super) created: String,
    /// When the step ran: nanoseconds since 1970.
    pub(super) made_at: i64,
}

impl Record {
    /// As a store has it; `layer`: where among the document's.
    pub(super) fn of(record: CacheRecord, layer: Option<usize>) -> Option<Self> {
        Some(Record {
            kind: record.kind.as_str().to_owned(),
            key: record.key,
            key_text: record.key_text,
            step: record.step?,
            reads: record.reads,
            instruction: record.instruction,
            layer,
            created: record.created,
            made_at: record.made_at.0,
        })
    }
}

impl Document {
    pub(super) fn new(layers: Vec<Layer>, records: Vec<Record>) -> Self {
        Document { version: VERSION, layers, records, mounts: Vec::new() }
    }

    /// What another one knows, too.
    pub(super) fn add(&mut self, other: Document) {
        let first = self.layers.len();
        self.layers.extend(other.layers);
        self.records.extend(other.records.into_iter().map(|mut record| {
            record.layer = record.layer.map(|layer| first + layer);
            record
        }));
        self.mounts.extend(other.mounts);
    }

    pub(super) fn media_type() -> MediaType {
        MediaType::from(CONFIG)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it is plain data")
    }

    /// Refuses all of it where any of it cannot be right.
    pub(super) fn parse(raw: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let doing = || "reading the index of a cache";
        let Versioned { version } = serde_json::from_slice(raw).context(doing)?;
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "the cache has version {version}; this outcrop reads version {VERSION}"
            )));
        }
        let document: Document = serde_json::from_slice(raw).context(doing)?;
        document.check().context(doing)?;
        Ok(document)
    }

    fn check(&self) -> Result<()> {
        if self.layers.len() > MOST || self.records.len() > MOST {
            return Err(Error::invalid("it has too many entries"));
        }
        for record in &self.records {
            // A key is the digest of its text.
            if record.key.0 != Digest::of(record.key_text.as_bytes()) {
                return Err(Error::corrupt(format!("the key {} has the text of another", record.key)));
            }
            if record.layer.is_some_and(|layer| layer >= self.layers.len()) {
                return Err(Error::corrupt(format!(
                    "the record {} names a layer that is not there",
                    record.key
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let text = "{\"version\":2}";
        let layer = Layer {
            diff_id: DiffId(Digest::of(b"tar")),
            content_id: ContentId(Digest::of(b"content")),
            leans: false,
            on: None,
            size: 3,
            rows: None,
            archive: None,
        };
        let record = Record {
            kind: "chain".into(),
            key: CacheKey(Digest::of(text.as_bytes())),
            key_text: text.into(),
            step: CacheKey(Digest::of(b"step")),
            reads: None,
            instruction: "RUN true".into(),
            layer: Some(0),
            created: "2020-01-01T00:00:00Z".into(),
            made_at: 1,
        };
        Document::new(vec![layer], vec![record])
    }

    #[test]
    fn an_index_reads_as_it_was_written() {
        let document = document();
        assert_eq!(Document::parse(&document.to_bytes()).unwrap(), document);
    }

    #[test]
    fn an_index_that_cannot_be_right_is_refused() {
        let edits: [fn(&mut Document); 3] = [
            |document| document.version = 9,
            |document| document.records[0].key_text.push(' '),
            |document| document.records[0].layer = Some(1),
        ];
        for edit in edits {
            let mut wrong = document();
            edit(&mut wrong);
            Document::parse(&wrong.to_bytes()).unwrap_err();
        }
        for text in ["", "[]", "{}", "{\"version\":1}"] {
            Document::parse(text.as_bytes()).unwrap_err();
        }
    }
}
