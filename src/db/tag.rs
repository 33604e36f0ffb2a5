//! Tags: names that point at images. They move in durable transactions only, and every move is on record.

use super::tag_log::TagMove;
use super::time::Time;
use super::transaction::{Durable, Reader};
use crate::error::{Error, Result};
use crate::image::{Digest, ImageId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRow {
    /// A full reference, with registry and tag.
    pub name: String,
    pub image: ImageId,
    /// The manifest or index it was pulled or pushed as.
    pub target: Option<Digest>,
    pub moved_at: Time,
}

const COLUMNS: &str = "select name, image, target, moved_at from tag";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TagRow> {
    Ok(TagRow { name: row.get(0)?, image: row.get(1)?, target: row.get(2)?, moved_at: row.get(3)? })
}

impl Reader<'_> {
    pub fn tag(&self, name: &str) -> Result<Option<TagRow>> {
        self.one(&format!("{COLUMNS} where name = ?1"), (name,), row)
    }

    /// By name.
    pub fn tags(&self) -> Result<Vec<TagRow>> {
        self.all(&format!("{COLUMNS} order by name"), (), row)
    }

    pub fn tags_of(&self, image: &ImageId) -> Result<Vec<TagRow>> {
        self.all(&format!("{COLUMNS} where image = ?1 order by name"), (image,), row)
    }
}

impl Durable<'_> {
    /// Points the name at an image, whose bytes must be on disk already (`Db::barrier`). `verb` says who does it
    /// ("build", "tag", "rollback"), `detail` whatever helps a reader of the log. False: it pointed there before.
    pub fn move_tag(
        &self,
        name: &str,
        image: &ImageId,
        target: Option<&Digest>,
        verb: &str,
        detail: Option<&str>,
    ) -> Result<bool> {
        let row = self.image(image)?.ok_or_else(|| Error::not_found(format!("no image {image}")))?;
        if !row.durable {
            return Err(Error::internal(format!("image {image} gets a name before its bytes are on disk")));
        }
        let before = self.tag(name)?;
        if before.as_ref().is_some_and(|tag| tag.image == *image && tag.target.as_ref() == target) {
            self.keep_image(image)?;
            return Ok(false);
        }
        let moved =
            self.log_move(name, before.map(|tag| tag.image), Some(*image), target.copied(), verb, detail)?;
        self.exec(
            "insert into tag (name, image, target, moved_at) values (?1, ?2, ?3, ?4)
             on conflict (name) do update set image = ?2, target = ?3, moved_at = ?4",
            (name, image, target, moved.at),
        )?;
        self.keep_image(image)?;
        if let Some(target) = target {
            self.keep_blobs_below(target)?;
        }
        Ok(true)
    }

    /// What it pointed at; `None` if there is no such tag.
    pub fn remove_tag(&self, name: &str, verb: &str, detail: Option<&str>) -> Result<Option<TagRow>> {
        let Some(tag) = self.tag(name)? else { return Ok(None) };
        self.log_move(name, Some(tag.image), None, None, verb, detail)?;
        self.exec("delete from tag where name = ?1", (name,))?;
        Ok(Some(tag))
    }

    pub(super) fn log_move(
        &self,
        name: &str,
        from: Option<ImageId>,
        to: Option<ImageId>,
        target: Option<Digest>,
        verb: &str,
        detail: Option<&str>,
    ) -> Result<TagMove> {
        let seq: u64 = self.value("select ifnull(max(seq), 0) + 1 from tag_log", ())?;
        let moved = TagMove {
            seq,
            name: name.to_owned(),
            from,
            to,
            target,
            verb: verb.to_owned(),
            at: Time::now(),
            detail: detail.map(str::to_owned),
        };
        self.exec(
            "insert into tag_log (seq, name, from_image, to_image, target, verb, at, detail)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (seq, name, from, to, target, verb, moved.at, detail),
        )?;
        self.moves.borrow_mut().push(moved.clone());
        Ok(moved)
    }
}
