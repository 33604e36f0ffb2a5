//! What happened in the store, by sequence number: the source of `events`.

use std::collections::BTreeMap;

use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Context as _, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Counts up; never comes back.
    pub seq: u64,
    pub at: Time,
    /// `image`, `container`, `volume`, `builder`.
    pub kind: String,
    /// `pull`, `tag`, `start`.
    pub action: String,
    /// The id or name of what it happened to.
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    pub kind: &'a str,
    pub action: &'a str,
    pub actor: &'a str,
    pub attributes: BTreeMap<String, String>,
}

impl Reader<'_> {
    /// Those after number `seq`, in order.
    pub fn events_after(&self, seq: u64, limit: u32) -> Result<Vec<EventRow>> {
        let rows: Vec<(EventRow, String)> = self.all(
            "select seq, at, type, action, actor, attributes from event where seq > ?1 order by seq limit ?2",
            (seq, limit),
            |row| {
                let event = EventRow {
                    seq: row.get(0)?,
                    at: row.get(1)?,
                    kind: row.get(2)?,
                    action: row.get(3)?,
                    actor: row.get(4)?,
                    attributes: BTreeMap::new(),
                };
                Ok((event, row.get(5)?))
            },
        )?;
        rows.into_iter()
            .map(|(event, attributes)| {
                let attributes = serde_json::from_str(&attributes).context(|| "reading an event")?;
                Ok(EventRow { attributes, ..event })
            })
            .collect()
    }
}

impl Writer<'_> {
    pub fn insert_event(&self, new: &NewEvent<'_>) -> Result<()> {
        let attributes = serde_json::to_string(&new.attributes).context(|| "writing an event")?;
        self.exec(
            "insert into event (at, type, action, actor, attributes) values (?1, ?2, ?3, ?4, ?5)",
            (Time::now(), new.kind, new.action, new.actor, attributes),
        )
        .map(drop)
    }

    /// Forgets all events but the latest.
    pub fn trim_events(&self, keep: u32) -> Result<usize> {
        self.exec("delete from event where seq <= (select max(seq) from event) - ?1", (keep,))
    }
}
