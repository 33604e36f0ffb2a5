//! Layers, and the stacks (chains) they stand in.

use super::ids::{BuildId, LayerNumber};
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Error, Result};
use crate::image::{ChainId, ContentId, DiffId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRow {
    /// What its rows stand under in files.db.
    pub number: LayerNumber,
    pub diff_id: DiffId,
    /// The stack it leans on, for a layer that leans and is not the lowest.
    pub base: Option<ChainId>,
    /// Its archive leaves out parent directories or links into lower layers: it means something on its base alone.
    pub leans: bool,
    pub content_id: ContentId,
    /// Sum of the sizes of its files, in bytes.
    pub size: u64,
    /// Bytes of its tar.
    pub tar_size: u64,
    pub row_count: u64,
    /// The instruction that made it first.
    pub made_by: Option<String>,
    pub build: Option<BuildId>,
    pub made_at: Time,
    /// Its bytes are known to be on disk.
    pub durable: bool,
}

/// A layer whose rows are all written, under a number reserved before.
#[derive(Clone, Debug)]
pub struct NewLayer {
    pub number: LayerNumber,
    pub diff_id: DiffId,
    pub base: Option<ChainId>,
    pub leans: bool,
    pub content_id: ContentId,
    pub size: u64,
    pub tar_size: u64,
    pub row_count: u64,
    pub made_by: Option<String>,
    pub build: Option<BuildId>,
}

/// The layer as the store knows it: another one's number if it was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub number: LayerNumber,
    pub fresh: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRow {
    pub id: ChainId,
    pub parent: Option<ChainId>,
    pub layer: LayerNumber,
    /// Layers in it.
    pub depth: u64,
    /// Sum of the sizes of its layers.
    pub size: u64,
}

const LAYER: &str = "select id, diff_id, base, leans, content_id, size, tar_size, row_count, made_by, build, \
                     made_at, pending_boot is null from layer";

fn layer(row: &rusqlite::Row<'_>) -> rusqlite::Result<LayerRow> {
    Ok(LayerRow {
        number: row.get(0)?,
        diff_id: row.get(1)?,
        base: row.get(2)?,
        leans: row.get(3)?,
        content_id: row.get(4)?,
        size: row.get(5)?,
        tar_size: row.get(6)?,
        row_count: row.get(7)?,
        made_by: row.get(8)?,
        build: row.get(9)?,
        made_at: row.get(10)?,
        durable: row.get(11)?,
    })
}

const CHAIN: &str = "select chain_id, parent, layer, depth, size from chain";

fn chain(row: &rusqlite::Row<'_>) -> rusqlite::Result<ChainRow> {
    Ok(ChainRow {
        id: row.get(0)?,
        parent: row.get(1)?,
        layer: row.get(2)?,
        depth: row.get(3)?,
        size: row.get(4)?,
    })
}

impl Reader<'_> {
    pub fn layer(&self, number: LayerNumber) -> Result<Option<LayerRow>> {
        self.one(&format!("{LAYER} where id = ?1"), (number,), layer)
    }

    /// The layer with this DiffID as it stands on the stack `on` (`None`: on nothing). Not one that is going.
    pub fn find_layer(&self, diff_id: &DiffId, on: Option<&ChainId>) -> Result<Option<LayerRow>> {
        self.one(
            &format!(
                "{LAYER} where diff_id = ?1 and (leans = 0 or base is ?2) and condemned is null
                 and (pending_boot is null or pending_boot = ?3)"
            ),
            (diff_id, on, self.db.boot()),
            layer,
        )
    }

    /// What made the newest layer of this content.
    pub fn instruction_of(&self, content: &ContentId) -> Result<Option<String>> {
        let found: Option<Option<String>> = self.one(
            "select made_by from layer where content_id = ?1 and made_by is not null order by id desc limit 1",
            (content,),
            |row| row.get(0),
        )?;
        Ok(found.flatten())
    }

    /// Whether any row has it, one that is going too: its recipe is needed.
    pub fn layer_is_known(&self, diff_id: &DiffId) -> Result<bool> {
        self.value("select exists (select 1 from layer where diff_id = ?1)", (diff_id,))
    }

    /// All that are not going, the oldest first.
    pub fn layers(&self) -> Result<Vec<LayerRow>> {
        self.all(&format!("{LAYER} where condemned is null order by id"), (), layer)
    }

    pub fn chain(&self, id: &ChainId) -> Result<Option<ChainRow>> {
        self.one(&format!("{CHAIN} where chain_id = ?1"), (id,), chain)
    }

    /// As `chain`, but not one that is going, nor one with a layer that may not have survived a crash.
    pub fn find_chain(&self, id: &ChainId) -> Result<Option<ChainRow>> {
        match self.one(&format!("{CHAIN} where chain_id = ?1 and condemned is null"), (id,), chain)? {
            Some(chain) if !self.stack_is_suspect(&chain.id)? => Ok(Some(chain)),
            _ => Ok(None),
        }
    }

    /// Whether it stands in any stack.
    pub fn layer_stands(&self, layer: LayerNumber) -> Result<bool> {
        self.value("select exists (select 1 from chain where layer = ?1)", (layer,))
    }

    pub fn chains(&self) -> Result<Vec<ChainRow>> {
        self.all(&format!("{CHAIN} order by depth, chain_id"), (), chain)
    }

    /// The layers of a stack, bottom first; empty for no chain.
    pub fn stack(&self, top: Option<&ChainId>) -> Result<Vec<LayerRow>> {
        let Some(top) = top else { return Ok(Vec::new()) };
        let layers = self.all(
            "with recursive stack (parent, layer, depth) as (
                 select parent, layer, depth from chain where chain_id = ?1
                 union all
                 select chain.parent, chain.layer, chain.depth from stack join chain on chain_id = stack.parent
             )
             select id, diff_id, base, leans, content_id, layer.size, tar_size, row_count, made_by, build, made_at,
                 pending_boot is null
             from stack join layer on layer.id = stack.layer order by depth",
            (top,),
            layer,
        )?;
        match layers.is_empty() {
            true => Err(Error::not_found(format!("no stack of layers with chain id {top}"))),
            false => Ok(layers),
        }
    }

    /// The chain ids of a stack, bottom first.
    pub fn chain_ids(&self, top: Option<&ChainId>) -> Result<Vec<ChainId>> {
        self.all(
            "with recursive stack (chain_id, parent, depth) as (
                 select chain_id, parent, depth from chain where chain_id = ?1
                 union all
                 select chain.chain_id, chain.parent, chain.depth
                 from stack join chain on chain.chain_id = stack.parent
             )
             select chain_id from stack order by depth",
            (top,),
            |row| row.get(0),
        )
    }

    /// Whether a layer of it was published before the last boot and never made durable.
    fn stack_is_suspect(&self, top: &ChainId) -> Result<bool> {
        let any: bool =
            self.value("select exists (select 1 from layer where pending_boot <> ?1)", (self.db.boot(),))?;
        Ok(any
            && self.value(
                "with recursive stack (parent, layer) as (
                     select parent, layer from chain where chain_id = ?1
                     union all
                     select chain.parent, chain.layer from stack join chain on chain_id = stack.parent
                 )
                 select exists (select 1 from stack join layer on id = stack.layer where pending_boot <> ?2)",
                (top, self.db.boot()),
            )?)
    }
}

impl Writer<'_> {
    /// Makes the layer visible, not yet durable. Where an equal one stands, that one is brought back from being
    /// condemned and the rows written for this one are given up.
    pub fn publish_layer(&self, new: &NewLayer) -> Result<Published> {
        self.boot_goes_on()?;
        let base = new.base.filter(|_| new.leans);
        let known = self.one(
            "select id, pending_boot is null or pending_boot = ?3 from layer
             where diff_id = ?1 and ifnull(base, x'') = ifnull(?2, x'')",
            (new.diff_id, base, self.db.boot()),
            |row| Ok((row.get::<_, LayerNumber>(0)?, row.get::<_, bool>(1)?)),
        )?;
        if let Some((number, true)) = known {
            if number != new.number {
                self.give_up_rows(new.number)?;
            }
            self.keep_layer(number)?;
            return Ok(Published { number, fresh: false });
        }
        if let Some((suspect, _)) = known {
            // Out of the way of the unique key, until nothing refers to it.
            self.exec("update layer set leans = 1, base = randomblob(32) where id = ?1", (suspect,))?;
        }
        self.exec(
            "insert into layer (id, diff_id, base, leans, content_id, size, tar_size, row_count, made_by, build,
                 made_at, pending_boot)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            rusqlite::params![
                new.number,
                new.diff_id,
                base,
                new.leans,
                new.content_id,
                new.size,
                new.tar_size,
                new.row_count,
                new.made_by,
                new.build,
                Time::now(),
                self.db.boot(),
            ],
        )?;
        if let Some((suspect, _)) = known {
            self.replace_layer(suspect, new.number)?;
        }
        self.exec("delete from intent where what = 'layer' and number = ?1", (new.number,))?;
        Ok(Published { number: new.number, fresh: true })
    }

    /// What stood on a layer that may not have survived a crash stands on its equal from now on.
    fn replace_layer(&self, old: LayerNumber, new: LayerNumber) -> Result<()> {
        self.exec("update chain set layer = ?2 where layer = ?1", (old, new))?;
        self.exec("update cache_record set layer = ?2 where layer = ?1", (old, new))?;
        let epoch = self.current_epoch()?;
        self.exec("update layer set condemned = ?2 where id = ?1", (old, epoch))?;
        self.open_epoch().map(drop)
    }

    /// The stack of `layer` on `parent`. Being there already is fine.
    pub fn add_chain(&self, parent: Option<&ChainId>, layer: LayerNumber) -> Result<ChainId> {
        let top = self.layer(layer)?.ok_or_else(|| Error::not_found(format!("no layer {layer}")))?;
        let below = match parent {
            None => None,
            Some(parent) => Some(
                self.chain(parent)?
                    .ok_or_else(|| Error::not_found(format!("no stack of layers with chain id {parent}")))?,
            ),
        };
        let id = ChainId::on(parent, &top.diff_id);
        let (depth, size) = below.map_or((0, 0), |below| (below.depth, below.size));
        self.exec(
            "insert into chain (chain_id, parent, layer, depth, size) values (?1, ?2, ?3, ?4, ?5)
             on conflict do nothing",
            (id, parent, layer, depth + 1, size + top.size),
        )?;
        self.keep_chain(&id)?;
        Ok(id)
    }

    /// A layer that may not have survived a crash was hashed and is whole.
    pub fn layer_is_whole(&self, number: LayerNumber) -> Result<()> {
        self.exec(
            "update layer set pending_boot = ?2 where id = ?1 and pending_boot is not null",
            (number, self.db.boot()),
        )
        .map(drop)
    }
}
