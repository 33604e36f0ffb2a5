//! Whether the index says the same as itself, and as files.db. What lies on disk is checked by those who put it there.

use std::collections::BTreeSet;
use std::fmt;

use super::Db;
use super::ids::LayerNumber;
use super::layer::LayerRow;
use super::transaction::{Reader, Writer};
use crate::error::{Context as _, Error, Result};
use crate::image::{ChainId, DiffId};
use crate::job::{Event, Job};
use crate::layer::content_id;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// What is concerned: `layer 7`, `tag docker.io/library/x:latest`.
    pub what: String,
    /// A sentence about it, without its subject: `has no blob for its config`.
    pub problem: String,
}

impl Fault {
    pub fn new(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Fault { what: what.into(), problem: problem.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.problem)
    }
}

/// What must find nothing; each gives names of what is concerned, and stands with what is wrong with it then.
const RULES: &[(&str, &str)] = &[
    (
        "select 'image sha256:' || lower(hex(id)) from image
         where condemned is null and id not in (select digest from blob where removing = 0)",
        "has no blob for its config",
    ),
    (
        "select 'image sha256:' || lower(hex(image.id)) from image left join chain on chain_id = image.chain
         where image.size <> ifnull(chain.size, 0)",
        "has another size than its layers",
    ),
    (
        "select 'stack sha256:' || lower(hex(chain.chain_id)) from chain
             join layer on layer.id = chain.layer left join chain as below on below.chain_id = chain.parent
         where chain.size <> layer.size + ifnull(below.size, 0) or chain.depth <> 1 + ifnull(below.depth, 0)",
        "has another size or depth than its layers",
    ),
    (
        "select 'image sha256:' || lower(hex(image.id)) from image join chain on chain_id = image.chain
         where image.condemned is null and chain.condemned is not null
         union all select 'stack sha256:' || lower(hex(chain.chain_id)) from chain
             join chain as below on below.chain_id = chain.parent
         where chain.condemned is null and below.condemned is not null
         union all select 'stack sha256:' || lower(hex(chain.chain_id)) from chain join layer on layer.id = layer
         where chain.condemned is null and layer.condemned is not null
         union all select 'cache record ' || cache_record.id from cache_record join layer on layer.id = layer
         where layer.condemned is not null
         union all select 'image sha256:' || lower(hex(image.id)) from image join image as p on p.id = image.parent
         where image.condemned is null and p.condemned is not null
         union all select 'tag ' || name from tag join image on image.id = tag.image
         where image.condemned is not null
         union all select 'container ' || container.id from container join image on image.id = container.image
         where image.condemned is not null and container.state <> 'removing'",
        "stands on something that is going",
    ),
    (
        "select 'tag ' || name from tag join image on image.id = tag.image where pending_boot is not null",
        "names an image that may not be on disk",
    ),
    (
        "with last as (select name, to_image, target, max(seq) from tag_log group by name)
         select 'tag ' || tag.name from tag left join last on last.name = tag.name
         where last.to_image is not tag.image or last.target is not tag.target
         union select 'tag ' || last.name from last left join tag on tag.name = last.name
         where last.to_image is not null and tag.name is null",
        "is not what its log says",
    ),
    (
        "select 'container ' || container.id from container join snapshot on snapshot.id = container.snapshot
         where container.state <> 'removing' and snapshot.state not in ('making', 'draft')",
        "has a writable layer that is sealed or gone",
    ),
    (
        "select 'snapshot ' || id from snapshot where state = 'sealed' and layer is null and chain is null",
        "is sealed and holds nothing",
    ),
    (
        "select 'snapshot ' || id from snapshot where state in ('making', 'draft') and lease is null
             and id not in (select snapshot from container)
             and id not in (select number from intent where what = 'moved')",
        "is held by nothing",
    ),
    (
        "select 'sequence ' || name from sequence where next <= case name
             when 'layer' then (select max(id) from layer) when 'snapshot' then (select max(id) from snapshot) end",
        "goes on with numbers that are in use",
    ),
    (
        "select 'layer ' || id from layer where condemned is null and pending_boot <> :boot
         union all select 'image sha256:' || lower(hex(id)) from image
             where condemned is null and pending_boot <> :boot
         union all select 'blob sha256:' || lower(hex(digest)) from blob
             where condemned is null and pending_boot <> :boot
         union all select 'snapshot ' || id from snapshot where state = 'sealed' and pending_boot <> :boot",
        "may not have survived a crash",
    ),
];

impl Db {
    /// Everything the two databases can say about themselves, every row of every layer included. `Ok` means that it
    /// was possible to look.
    pub fn check(&self, job: &Job) -> Result<Vec<Fault>> {
        let mut faults = self.check_index()?;
        match self.check_rows(job) {
            Err(error) if error.kind() != crate::error::Kind::Cancelled => {
                faults.push(Fault::new("files.db", format!("cannot be read: {}", reason(&error))));
            }
            found => faults.extend(found?),
        }
        Ok(faults)
    }

    /// All that outcrop.db says of itself, and tags.log.
    pub fn check_index(&self) -> Result<Vec<Fault>> {
        self.write(|writer| {
            let mut faults = writer.check_index()?;
            if !writer.tags_log_agrees()? {
                faults.push(Fault::new("tags.log", "does not tell the same moves as the index"));
            }
            Ok(faults)
        })
    }

    /// What SQLite finds wrong with files.db.
    pub fn check_files(&self) -> Result<Vec<Fault>> {
        let slot = self.row_reader()?;
        integrity(slot.connection(), "files.db", &["files"])
    }

    fn check_rows(&self, job: &Job) -> Result<Vec<Fault>> {
        let mut faults = self.check_files()?;
        let (layers, expected) = self.read(|reader| {
            let layers = reader.layers()?;
            let expected: Vec<LayerNumber> = reader.all(
                "select id from layer
                 union select number from intent where what in ('layer', 'rows') and number is not null",
                (),
                |row| row.get(0),
            )?;
            Ok((layers, BTreeSet::from_iter(expected)))
        })?;
        for number in self.numbers_with_rows()?.into_iter().filter(|number| !expected.contains(number)) {
            // Reserved since we looked, perhaps.
            if self.read(|reader| reader.nobody_has_rows(number))? {
                faults.push(Fault::new(format!("rows under number {number}"), "belong to no layer"));
            }
        }
        let id = 0;
        job.report(Event::WorkStarted {
            id,
            what: "checking the rows of layers".into(),
            total: Some(layers.iter().map(|layer| layer.row_count).sum()),
        });
        let mut done = 0;
        for layer in &layers {
            job.check()?;
            faults.extend(self.check_layer(layer));
            done += layer.row_count;
            job.report(Event::WorkProgress { id, done });
        }
        job.report(Event::WorkDone { id });
        Ok(faults)
    }

    /// The rows of one layer are as many, and say the same, as its row in the index promises.
    pub fn check_layer(&self, layer: &LayerRow) -> Option<Fault> {
        let what = || format!("layer {} ({})", layer.number, layer.diff_id);
        let mut count = 0;
        let rows = self.rows(layer.number).inspect(|_| count += 1);
        match content_id(rows) {
            Err(error) => {
                Some(Fault::new(what(), format!("has rows that cannot be read: {}", reason(&error))))
            }
            Ok(_) if count != layer.row_count => {
                Some(Fault::new(what(), format!("has {count} rows in place of {}", layer.row_count)))
            }
            Ok(found) if found != layer.content_id => {
                Some(Fault::new(what(), format!("has rows with the content id {found}")))
            }
            Ok(_) => None,
        }
    }
}

impl Reader<'_> {
    pub(super) fn nobody_has_rows(&self, number: LayerNumber) -> Result<bool> {
        self.value(
            "select not exists (select 1 from layer where id = ?1)
                and not exists (select 1 from intent where what in ('layer', 'rows') and number = ?1)",
            (number,),
        )
    }
}

impl Writer<'_> {
    fn check_index(&self) -> Result<Vec<Fault>> {
        let views = ["imagedb", "layerdb", "layer_cache", "image_layer"];
        let mut faults = integrity(self.connection, "outcrop.db", &views)?;
        let broken: Vec<(String, String)> =
            self.all("select \"table\", parent from pragma_foreign_key_check", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        faults.extend(broken.into_iter().map(|(table, parent)| {
            Fault::new(format!("a row of table {table}"), format!("refers to a {parent} that is not there"))
        }));
        for (rule, problem) in RULES {
            let named: Vec<String> = if rule.contains(":boot") {
                self.all(rule, &[(":boot", self.db.boot())], |row| row.get(0))?
            } else {
                self.all(rule, (), |row| row.get(0))?
            };
            faults.extend(named.into_iter().map(|what| Fault::new(what, *problem)));
        }
        let chains: Vec<(ChainId, Option<ChainId>, DiffId)> = self.all(
            "select chain_id, parent, diff_id from chain join layer on layer.id = chain.layer",
            (),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let wrong = chains.iter().filter(|(id, below, top)| ChainId::on(below.as_ref(), top) != *id);
        faults.extend(wrong.map(|(id, ..)| Fault::new(format!("stack {id}"), "is not of the layers it has")));
        Ok(faults)
    }
}

/// What SQLite finds wrong, and views that cannot be read.
fn integrity(connection: &rusqlite::Connection, file: &str, views: &[&str]) -> Result<Vec<Fault>> {
    let list = || -> rusqlite::Result<Vec<String>> {
        connection.prepare("PRAGMA integrity_check")?.query_map((), |row| row.get(0))?.collect()
    };
    let found = list().context(|| format!("checking {file}"))?;
    let mut faults: Vec<Fault> = found
        .into_iter()
        .filter(|line| line != "ok")
        .map(|line| Fault::new(file, format!("is damaged: {line}")))
        .collect();
    for view in views {
        if let Err(cause) = connection.query_row(
            &format!("select count(*) from (select * from {view} limit 100)"),
            (),
            |_| Ok(()),
        ) {
            faults.push(Fault::new(format!("the view {view}"), format!("cannot be read: {cause}")));
        }
    }
    Ok(faults)
}

fn reason(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
