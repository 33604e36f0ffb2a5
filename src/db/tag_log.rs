//! tags.log: every move of a tag, one line of JSON each, appended; the table `tag_log` says the same.
//!
//! Lines are on disk before the transaction that moves the tag commits. One that was cut off in between leaves lines
//! that did not happen: the next move, or sweep, finds the file longer than on record, and takes them back by a line of
//! verb `void`. Nothing is ever cut out of the file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Db;
use super::time::Time;
use super::transaction::{Durable, Reader, Writer};
use crate::error::{Context as _, Result};
use crate::image::{Digest, ImageId};

/// A name began to point elsewhere (`to`), or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagMove {
    /// Counts up from 1 without gaps.
    pub seq: u64,
    #[serde(with = "text")]
    pub at: Time,
    pub verb: String,
    pub name: String,
    pub from: Option<ImageId>,
    pub to: Option<ImageId>,
    /// The manifest or index that `to` was pulled or pushed as.
    pub target: Option<Digest>,
    pub detail: Option<String>,
}

mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Time;

    pub(super) fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const VOID: &str = "void";
const COLUMNS: &str = "select seq, at, verb, name, from_image, to_image, target, detail from tag_log";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TagMove> {
    Ok(TagMove {
        seq: row.get(0)?,
        at: row.get(1)?,
        verb: row.get(2)?,
        name: row.get(3)?,
        from: row.get(4)?,
        to: row.get(5)?,
        target: row.get(6)?,
        detail: row.get(7)?,
    })
}

impl Reader<'_> {
    /// The moves of one name, or of all, in order.
    pub fn tag_log(&self, name: Option<&str>) -> Result<Vec<TagMove>> {
        self.all(&format!("{COLUMNS} where name = ifnull(?1, name) order by seq"), (name,), row)
    }

    /// The latest move of a name.
    pub fn last_move(&self, name: &str) -> Result<Option<TagMove>> {
        self.one(&format!("{COLUMNS} where name = ?1 order by seq desc limit 1"), (name,), row)
    }
}

impl Durable<'_> {
    /// The last thing before the commit; the write lock is ours.
    pub(super) fn write_tag_log(&self) -> Result<()> {
        let moves = self.moves.take();
        match moves.first() {
            Some(first) => self.append_to_tag_log(first.seq, &moves),
            None => Ok(()),
        }
    }

    /// Lines that did not happen are taken back before: those from number `next` on.
    fn append_to_tag_log(&self, next: u64, moves: &[TagMove]) -> Result<()> {
        let path = self.db.root().join("tags.log");
        let writing = || format!("writing {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .context(writing)?;
        let known: u64 = self.value("select value from meta where key = 'tags_log_size'", ())?;
        let mut lines = Vec::new();
        if file.metadata().context(writing)?.len() != known {
            self.reconcile(&mut file, next, known, &mut lines).context(writing)?;
        }
        for entry in moves {
            push_line(&mut lines, entry);
        }
        file.write_all(&lines).context(writing)?;
        // The first one also makes the name of the file durable.
        file.sync_all().context(writing)?;
        if known == 0 {
            File::open(self.db.root()).and_then(|dir| dir.sync_all()).context(writing)?;
        }
        let size = file.metadata().context(writing)?.len();
        self.exec("update meta set value = ?1 where key = 'tags_log_size'", (size,)).map(drop)
    }

    /// What the file must be told before moves from number `next` on are appended.
    fn reconcile(&self, file: &mut File, next: u64, known: u64, lines: &mut Vec<u8>) -> Result<()> {
        let size = file.seek(SeekFrom::End(0)).context(|| "finding the end")?;
        if size < known {
            // Somebody cut it; the table has it all.
            let there = replay(BufReader::new(rewound(file)?))?;
            lines.push(b'\n');
            let last = there.last().map_or(0, |entry| entry.seq);
            let missing =
                self.all(&format!("{COLUMNS} where seq > ?1 and seq < ?2 order by seq"), (last, next), row)?;
            missing.iter().for_each(|entry| push_line(lines, entry));
            return Ok(());
        }
        // A line cut off in its middle ends here.
        lines.push(b'\n');
        let void = TagMove {
            seq: next,
            at: Time::now(),
            verb: VOID.into(),
            name: String::new(),
            from: None,
            to: None,
            target: None,
            detail: Some("the moves from this number on, above, were cut off and did not happen".into()),
        };
        push_line(lines, &void);
        Ok(())
    }
}

fn rewound(file: &mut File) -> Result<&mut File> {
    file.seek(SeekFrom::Start(0)).context(|| "reading tags.log")?;
    Ok(file)
}

fn push_line(lines: &mut Vec<u8>, entry: &TagMove) {
    serde_json::to_writer(&mut *lines, entry).expect("plain data becomes JSON");
    lines.push(b'\n');
}

impl Db {
    /// Whether tags.log tells the same story as the index.
    pub fn tags_log_agrees(&self) -> Result<bool> {
        // In a transaction, so that no move is between the two.
        self.write(|writer| writer.tags_log_agrees())
    }

    /// Whether its last lines did not happen: the process that wrote them was cut off. The next sweep takes them back.
    pub fn tags_log_is_ahead(&self) -> Result<bool> {
        self.write(|writer| writer.tags_log_is_ahead())
    }

    /// Says of lines that did not happen that they did not.
    pub(super) fn take_back_tag_log(&self) -> Result<()> {
        // Looked at again under the write lock: somebody may be appending just now.
        if !self.read(|reader| reader.tags_log_is_ahead())? {
            return Ok(());
        }
        self.durable(|index| {
            if !index.tags_log_is_ahead()? {
                return Ok(());
            }
            let next = index.value("select ifnull(max(seq), 0) + 1 from tag_log", ())?;
            index.append_to_tag_log(next, &[])
        })
    }
}

impl Reader<'_> {
    fn tags_log_is_ahead(&self) -> Result<bool> {
        let known: u64 = self.value("select value from meta where key = 'tags_log_size'", ())?;
        let size = std::fs::metadata(self.db.root().join("tags.log")).map_or(0, |metadata| metadata.len());
        Ok(size > known)
    }
}

impl Writer<'_> {
    pub(super) fn tags_log_agrees(&self) -> Result<bool> {
        let known: u64 = self.value("select value from meta where key = 'tags_log_size'", ())?;
        let size = match std::fs::metadata(self.db.root().join("tags.log")) {
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        // What stands beyond did not happen, and the next move says so.
        Ok(size >= known && read(self.db.root(), known)? == self.tag_log(None)?)
    }
}

/// The moves that happened, in order, as the first `size` bytes of the file tell them. None where there is no file.
pub(super) fn read(root: &Path, size: u64) -> Result<Vec<TagMove>> {
    match File::open(root.join("tags.log")) {
        Ok(file) => replay(BufReader::new(file.take(size))),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(cause).context(|| "opening tags.log"),
    }
}

fn replay(mut file: impl std::io::BufRead) -> Result<Vec<TagMove>> {
    let mut moves: Vec<TagMove> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file.by_ref().take(1 << 20).read_until(b'\n', &mut line).context(|| "reading tags.log")?;
        if read == 0 {
            return Ok(moves);
        }
        // What was cut off is no move.
        let Ok(entry) = serde_json::from_slice::<TagMove>(&line) else { continue };
        while moves.last().is_some_and(|last| last.seq >= entry.seq) {
            moves.pop();
        }
        if entry.verb != VOID {
            moves.push(entry);
        }
    }
}
