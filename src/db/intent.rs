//! Intents: what is under way outside of the index and must be undone if its lease comes free, and what is to be
//! removed. The row stands before the thing and goes after it, so nothing is ever looked for on disk.
//!
//! Kinds of this room: `layer` (rows being written under a number, and layers/making-NUMBER; detail: the DiffID once
//! known), `rows` (both to be removed), `recipe` (layers/DIFFID to be removed if no layer has it), `ingest` (a file in ingest/), and
//! those of `incoming.rs` and `switch.rs`, which hang on no lease. Others belong to
//! those who make them, as devices do.

use super::ids::LayerNumber;
use super::lease::Lease;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    pub id: u64,
    pub what: String,
    pub number: Option<u64>,
    pub detail: Option<String>,
    pub lease: Option<String>,
    pub at: Time,
}

const COLUMNS: &str = "select id, what, number, detail, lease, at from intent";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Intent> {
    Ok(Intent {
        id: row.get(0)?,
        what: row.get(1)?,
        number: row.get(2)?,
        detail: row.get(3)?,
        lease: row.get(4)?,
        at: row.get(5)?,
    })
}

impl Reader<'_> {
    pub fn intents(&self, what: &str) -> Result<Vec<Intent>> {
        self.all(&format!("{COLUMNS} where what = ?1 order by id"), (what,), row)
    }

    pub(super) fn all_intents(&self) -> Result<Vec<Intent>> {
        self.all(&format!("{COLUMNS} order by id"), (), row)
    }
}

impl Writer<'_> {
    /// To be undone by whoever finds the lease free, unless `fulfil`led.
    pub fn intend(
        &self,
        what: &str,
        number: Option<u64>,
        detail: Option<&str>,
        lease: &Lease,
    ) -> Result<u64> {
        self.insert_intent(what, number, detail, Some(lease.name()))
    }

    pub(super) fn insert_intent(
        &self,
        what: &str,
        number: Option<u64>,
        detail: Option<&str>,
        lease: Option<&str>,
    ) -> Result<u64> {
        self.exec(
            "insert into intent (what, number, detail, lease, at) values (?1, ?2, ?3, ?4, ?5)",
            (what, number, detail, lease, Time::now()),
        )?;
        Ok(self.last_id())
    }

    /// It is done, or undone.
    pub fn fulfil(&self, intent: u64) -> Result<()> {
        self.exec("delete from intent where id = ?1", (intent,)).map(drop)
    }

    /// Rows under a number that nothing will publish are to go.
    pub(super) fn give_up_rows(&self, number: LayerNumber) -> Result<()> {
        let given_up = self.exec(
            "update intent set what = 'rows', lease = null where what = 'layer' and number = ?1",
            (number,),
        )?;
        if given_up == 0 {
            self.insert_intent("rows", Some(number.0), None, None)?;
        }
        Ok(())
    }
}
