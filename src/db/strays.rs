//! Strays: names that were on disk before a power cut, and rows of files.db, whose rows in the index were not. Processes that
//! are killed leave none, as a row stands before its name; so they are looked for once after each start of the machine, and
//! when somebody asks.
//!
//! Names are listed first and compared with rows after that. Blobs, recipes and directories of containers get their
//! names under the index's write lock, in the transaction that inserts the row or after one that says what is coming:
//! whoever looks again under that lock takes nothing that anybody is about to use.

use std::collections::HashSet;
use std::fs;

use super::Db;
use super::ids::{ContainerId, LayerNumber};
use super::transaction::Reader;
use crate::error::{Context as _, Result};
use crate::image::{DiffId, Digest};

impl Db {
    /// Takes the names away and removes the rows; the trash is the next sweep's. How many they were. Directories of volumes
    /// stay, whatever the index says of them: what is in them is not ours.
    pub fn remove_strays(&self) -> Result<usize> {
        let doing = || "comparing the store's directories with its index";
        let removed = [
            self.stray_blobs().context(doing)?,
            self.stray_recipes().context(doing)?,
            self.stray_rows().context(doing)?,
            self.stray_arrivals().context(doing)?,
            self.stray_containers().context(doing)?,
        ];
        let count = removed.iter().sum();
        if count > 0 {
            tracing::warn!(count, "removed what no row knows: a power cut has left it");
        }
        Ok(count)
    }

    /// The machine was started anew, and `remove_strays` has not come to its end since.
    pub fn names_may_be_lost(&self) -> Result<bool> {
        self.read(|reader| {
            reader.value("select exists (select 1 from meta where key = 'names_unchecked')", ())
        })
    }

    pub fn names_checked(&self) -> Result<()> {
        self.write(|writer| writer.exec("delete from meta where key = 'names_unchecked'", ()).map(drop))
    }

    fn stray_blobs(&self) -> Result<usize> {
        let there = self.named("blobs/sha256", Digest::from_hex)?;
        let known: HashSet<Digest> = self.read(|reader| set(reader, "select digest from blob"))?;
        let mut removed = 0;
        for digest in there.into_iter().filter(|digest| !known.contains(digest)) {
            removed += self.write(|writer| {
                let sql = "select exists (select 1 from blob where digest = ?1)";
                if writer.value(sql, (digest,))? {
                    return Ok(0);
                }
                self.to_trash(&self.root().join("blobs/sha256").join(digest.hex())).map(|()| 1)
            })?;
        }
        Ok(removed)
    }

    /// `layers/<diff id>`, what stands beside it under the same name, and what nobody is writing any more.
    fn stray_recipes(&self) -> Result<usize> {
        let there = self.named("layers", |name| Digest::from_hex(name.split('.').next()?).map(DiffId))?;
        let there: HashSet<DiffId> = there.into_iter().collect();
        let making = self.named("layers", |name| name.strip_prefix("making-")?.parse().ok())?;
        let known: HashSet<DiffId> = self.read(|reader| set(reader, "select diff_id from layer"))?;
        let mut removed = 0;
        for diff_id in there.into_iter().filter(|diff_id| !known.contains(diff_id)) {
            removed += usize::from(self.remove_recipe(&diff_id)?);
        }
        for number in making.into_iter().map(LayerNumber) {
            if self.read(|reader| reader.nobody_has_rows(number))? {
                self.to_trash(&self.root().join("layers").join(format!("making-{number}")))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn stray_rows(&self) -> Result<usize> {
        let mut removed = 0;
        for number in self.numbers_with_rows()? {
            // Never given to anybody again.
            if self.read(|reader| reader.nobody_has_rows(number))? {
                self.remove_rows(number)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn stray_arrivals(&self) -> Result<usize> {
        // Who fetches a distribution works here under a name of his own.
        let there = self.named("ingest", |name| {
            let ours = [16, 64].contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            ours.then(|| name.to_owned())
        })?;
        let known: HashSet<String> = self.read(|reader| {
            set(
                reader,
                "select detail from intent where what in ('ingest', 'incoming') and detail is not null",
            )
        })?;
        let mut removed = 0;
        for name in there.into_iter().filter(|name| !known.contains(name)) {
            removed += match Digest::from_hex(&name) {
                // Somebody may be at it whose row another one has taken away.
                Some(_) => usize::from(self.forget_incoming(&name)?),
                None => self.to_trash(&self.root().join("ingest").join(&name)).map(|()| 1)?,
            };
        }
        Ok(removed)
    }

    fn stray_containers(&self) -> Result<usize> {
        let there = self.named("containers", |name| name.parse::<ContainerId>().ok())?;
        let mut removed = 0;
        for id in there {
            removed += self.write(|writer| {
                if writer.value("select exists (select 1 from container where id = ?1)", (&id,))? {
                    return Ok(0);
                }
                self.to_trash(&self.root().join("containers").join(id.as_str())).map(|()| 1)
            })?;
        }
        Ok(removed)
    }

    /// What stands in a directory of the store and has a name that we give.
    fn named<T>(&self, dir: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
        let path = self.root().join(dir);
        let listing = || format!("listing {}", path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).context(listing)? {
            names.extend(entry.context(listing)?.file_name().to_str().and_then(&parse));
        }
        Ok(names)
    }
}

fn set<T: rusqlite::types::FromSql + Eq + std::hash::Hash>(
    reader: &Reader<'_>,
    sql: &str,
) -> Result<HashSet<T>> {
    Ok(reader.all(sql, (), |row| row.get(0))?.into_iter().collect())
}
