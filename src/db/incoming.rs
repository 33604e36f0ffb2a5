//! What comes and goes in parts, and goes on after whoever moved it has died: blobs on their way here (`incoming`; the
//! bytes so far are `ingest/<hex>`), uploads on their way elsewhere (`upload`). Rows are intents that hang on no lease:
//! who is at one holds the lease of its name.

use super::Db;
use super::intent::Intent;
use super::lease::Lease;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::Result;
use crate::image::Digest;

/// Nanoseconds. What nobody has taken up for so long is let go by a sweep.
pub(super) const KEPT: i64 = 7 * 24 * 3600 * 1_000_000_000;

impl Db {
    /// Held by whoever brings this blob; `None`: somebody else does.
    pub fn try_incoming(&self, blob: &Digest) -> Result<Option<Lease>> {
        self.try_lease(&lease_of(&blob.hex()))
    }

    /// Lets go what was to come and was begun before; how many bytes that frees. Not what somebody is at.
    pub fn drop_incoming(&self, before: Time) -> Result<u64> {
        let mut bytes = 0;
        for intent in self.read(|reader| reader.intents("incoming"))? {
            let Some(hex) = intent.detail.filter(|_| intent.at < before) else { continue };
            let Some(_lease) = self.try_lease(&lease_of(&hex))? else { continue };
            let path = self.root().join("ingest").join(&hex);
            bytes += std::fs::metadata(&path).map_or(0, |file| file.len());
            self.to_trash(&path)?;
            self.write(|writer| writer.fulfil(intent.id))?;
        }
        self.write(|writer| {
            writer.exec("delete from intent where what = 'upload' and at < ?1", (before,)).map(drop)
        })?;
        Ok(bytes)
    }

    /// True: it is gone. False: somebody is at it.
    pub(super) fn forget_incoming(&self, hex: &str) -> Result<bool> {
        let Some(_lease) = self.try_lease(&lease_of(hex))? else { return Ok(false) };
        self.to_trash(&self.root().join("ingest").join(hex)).map(|()| true)
    }
}

fn lease_of(hex: &str) -> String {
    format!("incoming-{hex}")
}

impl Reader<'_> {
    /// Blobs that are coming, or came and have no layer yet, the oldest first.
    pub fn incoming(&self) -> Result<Vec<Intent>> {
        self.intents("incoming")
    }

    /// Where an upload goes on: what was kept under this name.
    pub fn upload(&self, name: &str) -> Result<Option<String>> {
        let sql = "select substr(detail, length(?1) + 2) from intent
            where what = 'upload' and substr(detail, 1, length(?1) + 1) = ?1 || ' '";
        self.one(sql, (name,), |row| row.get(0))
    }
}

impl Writer<'_> {
    /// A blob begins to come, or goes on. Until it has `arrived` it is kept. False: what came before may not be on disk,
    /// whatever memory has of it.
    pub fn expect_incoming(&self, blob: &Digest) -> Result<bool> {
        let lost: bool = self.value(
            "select exists (select 1 from intent where what = 'incoming' and detail = ?1 and at = 0)",
            (blob.hex(),),
        )?;
        let taken_up = self.exec(
            "update intent set at = ?2 where what = 'incoming' and detail = ?1",
            (blob.hex(), Time::now()),
        )?;
        if taken_up == 0 {
            self.insert_intent("incoming", None, Some(&blob.hex()), None)?;
        }
        Ok(!lost)
    }

    /// Something refers to it now, or nobody wants it.
    pub fn arrived(&self, blob: &Digest) -> Result<()> {
        self.exec("delete from intent where what = 'incoming' and detail = ?1", (blob.hex(),)).map(drop)
    }

    /// `name` has no space in it. `None`: it is over, or lost.
    pub fn keep_upload(&self, name: &str, address: Option<&str>) -> Result<()> {
        self.exec(
            "delete from intent where what = 'upload' and substr(detail, 1, length(?1) + 1) = ?1 || ' '",
            (name,),
        )?;
        match address {
            Some(address) => {
                self.insert_intent("upload", None, Some(&format!("{name} {address}")), None).map(drop)
            }
            None => Ok(()),
        }
    }
}
