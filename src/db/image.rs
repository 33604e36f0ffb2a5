//! Images: one row for each, the intermediate ones after every instruction too.

use super::ids::{BuildId, words};
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Error, Result};
use crate::image::{ChainId, Digest, ImageId};

words! {
    /// How an image came to be here.
    Origin {
        Built = "built",
        Pulled = "pulled",
        Committed = "committed",
        Imported = "imported",
        Loaded = "loaded",
        Bootstrapped = "bootstrapped",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    pub id: ImageId,
    /// The image before the last instruction.
    pub parent: Option<ImageId>,
    /// Its stack of layers; `None`: it has none.
    pub chain: Option<ChainId>,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// As the config says it.
    pub created: Option<String>,
    /// The last instruction.
    pub created_by: Option<String>,
    /// Sum of the sizes of its layers.
    pub size: u64,
    pub origin: Origin,
    pub build: Option<BuildId>,
    pub made_at: Time,
    /// Its bytes are known to be on disk.
    pub durable: bool,
    /// Nothing kept it when it was last looked at; gone soon.
    pub condemned: bool,
}

#[derive(Clone, Debug)]
pub struct NewImage {
    pub id: ImageId,
    pub parent: Option<ImageId>,
    pub chain: Option<ChainId>,
    pub platform: String,
    pub created: Option<String>,
    pub created_by: Option<String>,
    pub origin: Origin,
    pub build: Option<BuildId>,
}

/// A manifest by which a repository knows an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoDigest {
    /// With its registry, without tag.
    pub repository: String,
    pub digest: Digest,
    pub image: ImageId,
}

const COLUMNS: &str = "select id, parent, chain, platform, created, created_by, size, origin, build, made_at, \
                       pending_boot is null, condemned is not null from image";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow {
        id: row.get(0)?,
        parent: row.get(1)?,
        chain: row.get(2)?,
        platform: row.get(3)?,
        created: row.get(4)?,
        created_by: row.get(5)?,
        size: row.get(6)?,
        origin: row.get(7)?,
        build: row.get(8)?,
        made_at: row.get(9)?,
        durable: row.get(10)?,
        condemned: row.get(11)?,
    })
}

/// Not going, and not left over from before a crash.
const USABLE: &str = "condemned is null and (pending_boot is null or pending_boot = ?1)";

impl Reader<'_> {
    /// Whatever its state: one that this process has seen stays while its epoch lasts.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRow>> {
        self.one(&format!("{COLUMNS} where id = ?1"), (id,), row)
    }

    /// All that may be used, intermediate ones too, the latest first.
    pub fn images(&self) -> Result<Vec<ImageRow>> {
        self.all(&format!("{COLUMNS} where {USABLE} order by made_at desc, id"), (self.db.boot(),), row)
    }

    /// Those whose id begins with these hex digits, at most 64 of them.
    pub fn images_by_prefix(&self, hex: &str) -> Result<Vec<ImageRow>> {
        if hex.is_empty() || hex.len() > 64 {
            return Ok(Vec::new());
        }
        let bounds = (Digest::from_hex(&format!("{hex:0<64}")), Digest::from_hex(&format!("{hex:f<64}")));
        let (Some(low), Some(high)) = bounds else { return Ok(Vec::new()) };
        self.all(
            &format!("{COLUMNS} where {USABLE} and id between ?2 and ?3"),
            (self.db.boot(), low, high),
            row,
        )
    }

    /// The images made from it by one more instruction.
    pub fn children_of(&self, id: &ImageId) -> Result<Vec<ImageId>> {
        let sql = format!("select id from image where {USABLE} and parent = ?2 order by made_at");
        self.all(&sql, (self.db.boot(), id), |row| row.get(0))
    }

    /// The image, its parent, and so on up to the first.
    pub fn ancestry(&self, id: &ImageId) -> Result<Vec<ImageRow>> {
        let mut line = Vec::new();
        let mut next = Some(*id);
        while let Some(image) = next.map(|id| self.image(&id)).transpose()?.flatten() {
            next = image.parent;
            line.push(image);
        }
        Ok(line)
    }

    pub fn repo_digests_of(&self, image: &ImageId) -> Result<Vec<RepoDigest>> {
        self.all(
            "select repository, digest, image from repo_digest where image = ?1 order by repository, digest",
            (image,),
            repo_digest,
        )
    }

    /// The images a repository has under this manifest or index.
    pub fn images_of_digest(&self, repository: &str, digest: &Digest) -> Result<Vec<ImageId>> {
        self.all(
            "select image from repo_digest join image on image.id = repo_digest.image
             where repository = ?1 and digest = ?2 and condemned is null",
            (repository, digest),
            |row| row.get(0),
        )
    }

    pub fn repo_digests(&self) -> Result<Vec<RepoDigest>> {
        self.all(
            "select repository, digest, image from repo_digest order by repository, digest",
            (),
            repo_digest,
        )
    }
}

fn repo_digest(row: &rusqlite::Row<'_>) -> rusqlite::Result<RepoDigest> {
    Ok(RepoDigest { repository: row.get(0)?, digest: row.get(1)?, image: row.get(2)? })
}

impl Writer<'_> {
    /// Visible from now on, not yet durable. Its config is a blob already, its chain and parent are rows. One that is
    /// there already is brought back from being condemned, with all it stands on; false then.
    pub fn insert_image(&self, new: &NewImage) -> Result<bool> {
        self.boot_goes_on()?;
        if self.blob(&new.id.0)?.is_none() {
            return Err(Error::internal(format!("image {} has no config among the blobs", new.id)));
        }
        let size = match &new.chain {
            None => 0,
            Some(chain) => {
                let chain = self.chain(chain)?;
                chain.ok_or_else(|| Error::not_found(format!("image {} has no layers", new.id)))?.size
            }
        };
        let inserted = self.exec(
            "insert into image (id, parent, chain, platform, created, created_by, size, origin, build, made_at,
                 pending_boot)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) on conflict do nothing",
            rusqlite::params![
                new.id,
                new.parent,
                new.chain,
                new.platform,
                new.created,
                new.created_by,
                size,
                new.origin,
                new.build,
                Time::now(),
                self.db.boot(),
            ],
        )?;
        if inserted == 0 {
            // Left over from before a crash: its config and layers were published anew just now.
            self.exec(
                "update image set pending_boot = ?2 where id = ?1 and pending_boot <> ?2",
                (new.id, self.db.boot()),
            )?;
            // An image pulled or loaded has no parent; one built to the same config knows it.
            self.exec(
                "update image set parent = ?2 where id = ?1 and parent is null and ?2 <> id",
                (new.id, new.parent),
            )?;
        }
        self.keep_image(&new.id)?;
        Ok(inserted == 1)
    }

    /// The manifest, or index, by which a repository knows the image.
    pub fn add_repo_digest(&self, repository: &str, digest: &Digest, image: &ImageId) -> Result<()> {
        self.exec(
            "insert into repo_digest (repository, digest, image) values (?1, ?2, ?3) on conflict do nothing",
            (repository, digest, image),
        )?;
        self.keep_image(image)?;
        self.keep_blobs_below(digest)
    }

    pub fn remove_repo_digest(&self, repository: &str, digest: &Digest) -> Result<usize> {
        self.exec("delete from repo_digest where repository = ?1 and digest = ?2", (repository, digest))
    }
}
