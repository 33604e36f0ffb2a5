//! What keeps what, and what goes when nothing does.
//!
//! Condemning is a mark that does no harm to anyone at work: what they refer to comes back unmarked (`keep_*`), and
//! what they have seen stays while their epoch lasts.

use std::collections::HashSet;

use super::Time;
use super::ids::LayerNumber;
use super::transaction::{Reader, Writer};
use crate::error::{Error, Result};
use crate::image::{ChainId, Digest, ImageId};

/// What a removal takes away, once nobody is left who saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condemned {
    /// Children before parents.
    pub images: Vec<ImageId>,
    /// With the sum of their files' sizes.
    pub layers: Vec<(LayerNumber, u64)>,
    /// With their sizes.
    pub blobs: Vec<(Digest, u64)>,
}

impl Condemned {
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.layers.is_empty() && self.blobs.is_empty()
    }
    /// What becomes free, in bytes.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.1).chain(self.blobs.iter().map(|blob| blob.1)).sum()
    }
}

/// What `system df` shows. Bytes are sums of file sizes; a layer counts once however many share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Without intermediate ones.
    pub images: u64,
    /// Those that containers use.
    pub active_images: u64,
    /// Of layers that images have.
    pub image_bytes: u64,
    /// Of layers that only images without containers have.
    pub reclaimable_image_bytes: u64,
    pub containers: u64,
    pub running_containers: u64,
    pub volumes: u64,
    /// Those that containers use.
    pub active_volumes: u64,
    pub cache_records: u64,
    /// Of layers that only cache records keep.
    pub cache_bytes: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
}

/// The stacks below living images, and below what drafts and containers stand on.
const LIVING_CHAINS: &str = "with recursive living_chain (id) as (
    select chain from image where condemned is null and chain is not null
    union select base.chain from snapshot_parent
        join snapshot as base on base.id = snapshot_parent.parent
        join snapshot as upper on upper.id = snapshot_parent.snapshot
        where base.chain is not null and upper.state in ('making', 'draft')
    union select chain.parent from living_chain join chain on chain.chain_id = living_chain.id
        where chain.parent is not null)";

const LIVING_LAYERS: &str = "select layer from chain where chain_id in (select id from living_chain)
    union select layer from cache_record where layer is not null
    union select base.layer from snapshot_parent
        join snapshot as base on base.id = snapshot_parent.parent
        join snapshot as upper on upper.id = snapshot_parent.snapshot
        where base.layer is not null and upper.state in ('making', 'draft')";

/// Manifests, configs and layers below what tags point at: an index of several platforms names the image of each.
const NAMED: &str = "named (digest) as (
    select target from tag where target is not null
    union select child from named join blob_link on blob_link.blob = named.digest)";

impl Reader<'_> {
    /// No tag, no container and no image stands on it, and no index that has a tag names it.
    pub fn image_is_unused(&self, id: &ImageId) -> Result<bool> {
        self.value(
            &format!(
                "with recursive {NAMED}
                 select not exists (select 1 from tag where image = ?1)
                     and not exists (select 1 from container where image = ?1 and state <> 'removing')
                     and not exists (select 1 from image where parent = ?1 and condemned is null)
                     and not exists (select 1 from named where digest = ?1)"
            ),
            (id,),
        )
    }

    /// Images that nothing keeps: no tag, no container, no image that is kept. Children before parents.
    pub fn dangling_images(&self) -> Result<Vec<ImageId>> {
        self.all(
            &format!(
                "with recursive {NAMED}, kept (id) as (
                 select image from tag
                 union select image from container where state <> 'removing'
                 union select image.id from named join image on image.id = named.digest
                 union select image.parent from kept join image on image.id = kept.id
                     where image.parent is not null
             ), depth (id, n) as (
                 select id, 0 from image where parent is null
                 union all select image.id, depth.n + 1 from depth join image on image.parent = depth.id
             )
             select image.id from image left join depth on depth.id = image.id
             where condemned is null and image.id not in (select id from kept)
             order by depth.n desc, made_at desc"
            ),
            (),
            |row| row.get(0),
        )
    }

    /// The layers that living images have.
    pub fn layers_of_images(&self) -> Result<HashSet<LayerNumber>> {
        let layers: Vec<LayerNumber> = self.all(
            &format!(
                "{LIVING_CHAINS} select distinct layer from chain where chain_id in (select id from living_chain)"
            ),
            (),
            |row| row.get(0),
        )?;
        Ok(layers.into_iter().collect())
    }

    pub fn usage(&self) -> Result<Usage> {
        let chains = "with recursive used (id) as (
                select chain from image where condemned is null and chain is not null
                union select chain.parent from used join chain on chain.chain_id = used.id
                    where chain.parent is not null
            ), active (id) as (
                select image.chain from container join image on image.id = container.image
                    where image.chain is not null and container.state <> 'removing'
                union select chain.parent from active join chain on chain.chain_id = active.id
                    where chain.parent is not null
            )";
        let layers = |of: &str| format!("select layer from chain where chain_id in (select id from {of})");
        let (used, active) = (layers("used"), layers("active"));
        let sql = format!(
            "{chains} select
                (select count(*) from image where condemned is null and (
                    exists (select 1 from tag where tag.image = image.id)
                    or not exists (select 1 from image as child where child.parent = image.id
                        and child.condemned is null))),
                (select count(distinct image) from container where state <> 'removing'),
                (select ifnull(sum(size), 0) from layer where id in ({used})),
                (select ifnull(sum(size), 0) from layer where id in ({used}) and id not in ({active})),
                (select count(*) from container where state <> 'removing'),
                (select count(*) from container where state = 'running'),
                (select count(*) from volume),
                (select count(distinct volume) from container_volume),
                (select count(*) from cache_record where valid = 1),
                (select ifnull(sum(size), 0) from layer where id in (select layer from cache_record)
                    and id not in ({used})),
                (select count(*) from blob where removing = 0),
                (select ifnull(sum(size), 0) from blob where removing = 0)"
        );
        let usage = self.one(&sql, (), |row| {
            Ok(Usage {
                images: row.get(0)?,
                active_images: row.get(1)?,
                image_bytes: row.get(2)?,
                reclaimable_image_bytes: row.get(3)?,
                containers: row.get(4)?,
                running_containers: row.get(5)?,
                volumes: row.get(6)?,
                active_volumes: row.get(7)?,
                cache_records: row.get(8)?,
                cache_bytes: row.get(9)?,
                blobs: row.get(10)?,
                blob_bytes: row.get(11)?,
            })
        })?;
        Ok(usage.unwrap_or_default())
    }

    /// Bytes of an image's layers that no other image has, its own intermediate ones aside.
    pub fn unique_bytes(&self, id: &ImageId) -> Result<u64> {
        self.value(
            "with recursive own (id) as (
                 select ?1 union select image.parent from own join image on image.id = own.id
                     where image.parent is not null
             ), leaf (chain) as (
                 select chain from image where condemned is null and chain is not null
                     and id not in (select id from own)
             ), others (id) as (
                 select chain from leaf
                 union select chain.parent from others join chain on chain.chain_id = others.id
                     where chain.parent is not null
             ), mine (id) as (
                 select chain from image where id = ?1 and chain is not null
                 union select chain.parent from mine join chain on chain.chain_id = mine.id
                     where chain.parent is not null
             )
             select ifnull(sum(size), 0) from layer
             where id in (select layer from chain where chain_id in (select id from mine))
                 and id not in (select layer from chain where chain_id in (select id from others))",
            (id,),
        )
    }
}

impl Writer<'_> {
    /// Removes these images, and the parents that nothing keeps any more, with all that only they kept. `Conflict`
    /// where a tag, a container or another image needs one of them.
    pub fn condemn_images(&self, images: &[ImageId]) -> Result<Condemned> {
        let mut gone = Vec::new();
        for image in images {
            if !self.image_is_unused(image)? {
                return Err(Error::conflict(format!("image {} is in use", image.short())));
            }
            let mut next = Some(*image);
            while let Some(row) = next.map(|id| self.image(&id)).transpose()?.flatten() {
                if row.condemned || !self.image_is_unused(&row.id)? {
                    break;
                }
                self.exec("delete from repo_digest where image = ?1", (row.id,))?;
                self.condemn_row(&row.id)?;
                gone.push(row.id);
                next = row.parent;
            }
        }
        let rest = self.condemn_unreferenced()?;
        Ok(Condemned { images: gone, ..rest })
    }

    /// The same for one image, whose parents stay though nothing keeps them.
    pub fn condemn_image_alone(&self, image: &ImageId) -> Result<Condemned> {
        if !self.image_is_unused(image)? {
            return Err(Error::conflict(format!("image {} is in use", image.short())));
        }
        self.exec("delete from repo_digest where image = ?1", (image,))?;
        self.condemn_row(image)?;
        let rest = self.condemn_unreferenced()?;
        Ok(Condemned { images: vec![*image], ..rest })
    }

    /// Removes every image that nothing keeps.
    pub fn condemn_dangling(&self) -> Result<Condemned> {
        let images = self.dangling_images()?;
        for image in &images {
            self.exec("delete from repo_digest where image = ?1", (image,))?;
            self.condemn_row(image)?;
        }
        let rest = self.condemn_unreferenced()?;
        Ok(Condemned { images, ..rest })
    }

    pub(super) fn condemn_row(&self, image: &ImageId) -> Result<()> {
        self.exec("update image set condemned = ?2 where id = ?1", (image, self.current_epoch()?)).map(drop)
    }

    /// Removes chains, layers and blobs that nothing keeps. Closes the epoch if anything was condemned in it.
    pub fn condemn_unreferenced(&self) -> Result<Condemned> {
        let epoch = self.current_epoch()?;
        self.exec(
            &format!(
                "{LIVING_CHAINS} update chain set condemned = ?1
                 where condemned is null and chain_id not in (select id from living_chain)"
            ),
            (epoch,),
        )?;
        let mut layers: Vec<(LayerNumber, u64)> = self.all(
            &format!(
                "{LIVING_CHAINS} update layer set condemned = ?1
                 where condemned is null and id not in ({LIVING_LAYERS}) returning id, size"
            ),
            (epoch,),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        layers.sort_unstable();
        let mut blobs: Vec<(Digest, u64)> = self.all(
            "with recursive living_blob (digest) as (
                 select id from image where condemned is null
                 union select target from tag where target is not null
                 union select digest from repo_digest
                 union select unhex(detail) from intent where what = 'incoming'
                 union select blob from blob_layer where diff_id in (
                     select diff_id from layer where condemned is null)
                 union select child from living_blob join blob_link on blob_link.blob = living_blob.digest
             )
             update blob set condemned = ?1
             where condemned is null and removing = 0 and digest not in (select digest from living_blob)
             returning digest, size",
            (epoch,),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        blobs.sort_unstable();
        if self.any_condemned_in("condemned = ?1", epoch)? {
            self.open_epoch()?;
        }
        Ok(Condemned { images: Vec::new(), layers, blobs })
    }

    fn any_condemned_in(&self, condition: &str, epoch: super::Epoch) -> Result<bool> {
        self.value(
            &format!(
                "select exists (select 1 from image where {condition})
                     or exists (select 1 from chain where {condition})
                     or exists (select 1 from layer where {condition})
                     or exists (select 1 from blob where {condition})"
            ),
            (epoch,),
        )
    }

    /// Removes the cache records that were not used since, and what only they kept.
    pub fn condemn_cache(&self, unused_since: Time) -> Result<Condemned> {
        self.remove_cache_records_unused_since(unused_since)?;
        self.condemn_unreferenced()
    }

    /// Removes the cache records of layers that no image has, and those layers.
    pub fn condemn_cache_alone(&self) -> Result<Condemned> {
        self.exec(
            &format!(
                "{LIVING_CHAINS} delete from cache_record where layer is not null and layer not in (
                     select layer from chain where chain_id in (select id from living_chain))"
            ),
            (),
        )?;
        self.condemn_unreferenced()
    }

    /// Brings an image back from being condemned, with its parents, layers and blobs.
    pub fn keep_image(&self, id: &ImageId) -> Result<()> {
        if !self.anything_condemned()? {
            return Ok(());
        }
        const LINE: &str = "with recursive line (id) as (
            select ?1 union select image.parent from line join image on image.id = line.id
                where image.parent is not null)";
        self.exec(
            &format!("{LINE} update image set condemned = null where condemned is not null and id in line"),
            (id,),
        )?;
        self.exec(
            &format!(
                "{LINE} update blob set condemned = null
                 where condemned is not null and removing = 0 and digest in line"
            ),
            (id,),
        )?;
        let chains: Vec<ChainId> = self.all(
            &format!("{LINE} select distinct chain from image where id in line and chain is not null"),
            (id,),
            |row| row.get(0),
        )?;
        chains.iter().try_for_each(|chain| self.keep_chain(chain))
    }

    pub(super) fn keep_chain(&self, id: &ChainId) -> Result<()> {
        if !self.anything_condemned()? {
            return Ok(());
        }
        const STACK: &str = "with recursive stack (id) as (
            select ?1 union select chain.parent from stack join chain on chain.chain_id = stack.id
                where chain.parent is not null)";
        self.exec(
            &format!(
                "{STACK} update chain set condemned = null where condemned is not null and chain_id in stack"
            ),
            (id,),
        )?;
        let layers: Vec<LayerNumber> = self.all(
            &format!("{STACK} select distinct layer from chain where chain_id in stack"),
            (id,),
            |row| row.get(0),
        )?;
        layers.iter().try_for_each(|layer| self.keep_layer(*layer))
    }

    pub(super) fn keep_layer(&self, number: LayerNumber) -> Result<()> {
        if !self.anything_condemned()? {
            return Ok(());
        }
        self.exec("update layer set condemned = null where id = ?1 and condemned is not null", (number,))?;
        self.exec(
            "update blob set condemned = null where condemned is not null and removing = 0 and digest in (
                 select blob from blob_layer join layer on layer.diff_id = blob_layer.diff_id
                 where layer.id = ?1)",
            (number,),
        )
        .map(drop)
    }

    /// A manifest or an index, and all it names that is here.
    pub(super) fn keep_blobs_below(&self, digest: &Digest) -> Result<()> {
        if !self.anything_condemned()? {
            return Ok(());
        }
        self.exec(
            "with recursive below (digest) as (
                 select ?1 union select child from below join blob_link on blob_link.blob = below.digest)
             update blob set condemned = null where condemned is not null and removing = 0 and digest in below",
            (digest,),
        )
        .map(drop)
    }

    /// Seldom; then there is something to bring back, perhaps.
    fn anything_condemned(&self) -> Result<bool> {
        self.value(
            "select exists (select 1 from image where condemned is not null)
                 or exists (select 1 from chain where condemned is not null)
                 or exists (select 1 from layer where condemned is not null)
                 or exists (select 1 from blob where condemned is not null)",
            (),
        )
    }
}
