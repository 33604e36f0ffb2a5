//! Blobs as rows: which bytes are there, what stands in them, where else they are.

use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::Result;
use crate::image::{DiffId, Digest};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub media_type: Option<String>,
    pub made_at: Time,
    pub durable: bool,
}

/// A compressed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobLayer {
    pub blob: Digest,
    pub diff_id: DiffId,
    /// `gzip`, `zstd` or `none`.
    pub compression: String,
    /// Of the blob, in bytes.
    pub size: u64,
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<BlobRow> {
    Ok(BlobRow {
        digest: row.get(0)?,
        size: row.get(1)?,
        media_type: row.get(2)?,
        made_at: row.get(3)?,
        durable: row.get(4)?,
    })
}

fn blob_layer(row: &rusqlite::Row<'_>) -> rusqlite::Result<BlobLayer> {
    Ok(BlobLayer { blob: row.get(0)?, diff_id: row.get(1)?, compression: row.get(2)?, size: row.get(3)? })
}

const COLUMNS: &str = "select digest, size, media_type, made_at, pending_boot is null from blob";

impl Reader<'_> {
    /// Whatever its state, unless its file is going.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobRow>> {
        self.one(&format!("{COLUMNS} where digest = ?1 and removing = 0"), (digest,), row)
    }

    /// One that stays: not condemned, nor left over from before a crash.
    pub fn find_blob(&self, digest: &Digest) -> Result<Option<BlobRow>> {
        self.one(
            &format!(
                "{COLUMNS} where digest = ?1 and removing = 0 and condemned is null
                 and (pending_boot is null or pending_boot = ?2)"
            ),
            (digest, self.db.boot()),
            row,
        )
    }

    pub fn blobs(&self) -> Result<Vec<BlobRow>> {
        self.all(&format!("{COLUMNS} where removing = 0 order by digest"), (), row)
    }

    /// What a compressed layer unpacks to, if that was ever seen.
    pub fn layer_of_blob(&self, blob: &Digest) -> Result<Option<BlobLayer>> {
        let sql = "select blob, diff_id, compression, size from blob_layer where blob = ?1";
        self.one(sql, (blob,), blob_layer)
    }

    /// The compressed forms of a layer, here or known elsewhere.
    pub fn blobs_of_layer(&self, diff_id: &DiffId) -> Result<Vec<BlobLayer>> {
        let sql = "select blob, diff_id, compression, size from blob_layer where diff_id = ?1 order by blob";
        self.all(sql, (diff_id,), blob_layer)
    }

    /// The repositories of a registry where a blob was seen, the latest first.
    pub fn blob_seen_in(&self, digest: &Digest, registry: &str) -> Result<Vec<String>> {
        let sql =
            "select repository from blob_seen where digest = ?1 and registry = ?2 order by seen_at desc";
        self.all(sql, (digest, registry), |row| row.get(0))
    }

    /// Registries and repositories where a blob was seen, the latest first.
    pub fn blob_seen_at(&self, digest: &Digest) -> Result<Vec<(String, String)>> {
        let sql = "select registry, repository from blob_seen where digest = ?1 order by seen_at desc";
        self.all(sql, (digest,), |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Compressed forms of layers that are here as trees, where a registry is known to have the same bytes. With their sizes.
    pub fn blobs_to_be_had_again(&self) -> Result<Vec<(Digest, u64)>> {
        self.all(
            "select digest, size from blob where removing = 0 and condemned is null
                 and exists (select 1 from blob_seen where blob_seen.digest = blob.digest)
                 and exists (select 1 from blob_layer join layer using (diff_id) where blob_layer.blob = blob.digest
                     and layer.condemned is null and layer.pending_boot is null)
             order by digest",
            (),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    pub fn blob_children(&self, digest: &Digest) -> Result<Vec<Digest>> {
        let sql = "select child from blob_link where blob = ?1 order by child";
        self.all(sql, (digest,), |row| row.get(0))
    }
}

impl Writer<'_> {
    /// A file was given this name just now; not yet durable. The renaming belongs into the same transaction: removal
    /// renames away in one, too.
    pub fn insert_blob(&self, digest: &Digest, size: u64, media_type: Option<&str>) -> Result<()> {
        self.boot_goes_on()?;
        self.exec(
            "insert into blob (digest, size, media_type, made_at, pending_boot) values (?1, ?2, ?3, ?4, ?5)
             on conflict (digest) do update set
                 media_type = ifnull(?3, media_type),
                 condemned = null,
                 pending_boot = ?5,
                 removing = 0",
            (digest, size, media_type, Time::now(), self.db.boot()),
        )
        .map(drop)
    }

    /// A file is about to get this name: should its process die before `insert_blob` is committed, the sweep finds it.
    pub fn expect_blob(&self, digest: &Digest, size: u64) -> Result<()> {
        self.exec(
            "insert into blob (digest, size, made_at, pending_boot, condemned, removing)
             values (?1, ?2, ?3, ?4, (select max(n) from epoch), 1) on conflict do nothing",
            (digest, size, Time::now(), self.db.boot()),
        )
        .map(drop)
    }

    /// Brings a blob back from being condemned; false if it is not there.
    pub fn keep_blob(&self, digest: &Digest) -> Result<bool> {
        let kept = self.exec(
            "update blob set condemned = null where digest = ?1 and removing = 0
             and (pending_boot is null or pending_boot = ?2)",
            (digest, self.db.boot()),
        )?;
        Ok(kept == 1)
    }

    /// A manifest or an index names others: while it is kept, they are.
    pub fn link_blob(&self, digest: &Digest, child: &Digest) -> Result<()> {
        self.exec(
            "insert into blob_link (blob, child) values (?1, ?2) on conflict do nothing",
            (digest, child),
        )
        .map(drop)
    }

    pub fn insert_blob_layer(&self, layer: &BlobLayer) -> Result<()> {
        self.exec(
            "insert into blob_layer (blob, diff_id, compression, size) values (?1, ?2, ?3, ?4)
             on conflict (blob) do update set diff_id = ?2, compression = ?3, size = ?4",
            (layer.blob, layer.diff_id, &layer.compression, layer.size),
        )
        .map(drop)
    }

    pub fn blob_seen(&self, digest: &Digest, registry: &str, repository: &str) -> Result<()> {
        self.exec(
            "insert into blob_seen (digest, registry, repository, seen_at) values (?1, ?2, ?3, ?4)
             on conflict (digest, registry, repository) do update set seen_at = ?4",
            (digest, registry, repository, Time::now()),
        )
        .map(drop)
    }

    /// Goes though what it is a form of stays. The next sweep takes its bytes, once nobody is left who saw it.
    pub fn drop_blobs(&self, blobs: &[Digest]) -> Result<()> {
        let epoch = self.current_epoch()?;
        for blob in blobs {
            self.exec(
                "update blob set condemned = ?2 where digest = ?1 and condemned is null",
                (blob, epoch),
            )?;
        }
        if !blobs.is_empty() {
            self.open_epoch()?;
        }
        Ok(())
    }

    /// It turned out not to be there.
    pub fn blob_not_seen(&self, digest: &Digest, registry: &str, repository: &str) -> Result<()> {
        self.exec(
            "delete from blob_seen where digest = ?1 and registry = ?2 and repository = ?3",
            (digest, registry, repository),
        )
        .map(drop)
    }
}
