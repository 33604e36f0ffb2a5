//! Asking the disk for all that was written, and what follows where it could not keep it.
//!
//! The kernel tells of a write that failed once for each descriptor that was open by then, and to one that was opened
//! later only if nobody had been told (syncfs(2)). So whoever opens the store finds what another process published and
//! could not write, and hears nothing of it. Therefore who is told ends the boot, as rows know it: what is pending
//! counts from then on as what a power cut left, and who opened the store before that publishes nothing more. Whoever
//! dies while he asks may have been told: in his place the boot is ended by who opened the store meanwhile, or is alone with it
//! next. So that this seldom happens, and disturbs nobody for nothing, a child asks, which outlives who is killed.
//!
//! Only a turn asks the store's filesystem: nobody else may be told.

use std::os::fd::AsFd as _;

use super::Db;
use super::asking::Asking;
use super::transaction::{Reader, Writer};
use crate::error::{Context as _, Error, Result};
use crate::sys::process;

/// Who was told has ended the boot before the next one takes anything for kept.
pub(super) struct Turn<'d> {
    db: &'d Db,
    asking: Asking,
}

/// In `locks/`.
pub(super) const FILE: &str = "disk";

const KILLED: &str = "a process was killed while it waited for the disk";

impl Db {
    /// All that was written to the store's filesystem is on disk when it returns.
    pub fn write_out(&self) -> Result<()> {
        self.write_out_with(None::<fn() -> Result<()>>)
    }

    /// And what `elsewhere` writes out, which lies on other filesystems.
    pub fn write_out_with(&self, elsewhere: Option<impl FnOnce() -> Result<()>>) -> Result<()> {
        self.turn_to_ask()?.ask(Ok(()), elsewhere)
    }

    pub(super) fn turn_to_ask(&self) -> Result<Turn<'_>> {
        let asking = Asking::turn(&self.0.locks.join(FILE), self.boot())?;
        self.read(|reader| reader.boot_goes_on())?;
        let turn = Turn { db: self, asking };
        if self.0.came_while_asked && turn.asking.was_left()? {
            turn.end_boot(KILLED)?;
            self.read(|reader| reader.boot_goes_on())?;
        }
        Ok(turn)
    }

    /// Somebody died while he asked, and nobody else has the store open: what was pending is made anew. False: it was in an
    /// earlier boot.
    pub(super) fn end_boot_of_the_dead(&self) -> Result<bool> {
        let turn = self.turn_to_ask()?;
        if !turn.asking.was_left()? {
            return turn.asking.end().map(|()| false);
        }
        turn.end_boot(KILLED).map(|()| true)
    }
}

impl Turn<'_> {
    /// Fails where the disk could not keep what was written: `so_far` says that it was told already, `elsewhere` asks other
    /// filesystems.
    pub(super) fn ask(
        &self,
        so_far: Result<()>,
        elsewhere: Option<impl FnOnce() -> Result<()>>,
    ) -> Result<()> {
        let mut outcome = so_far;
        if outcome.is_err() || elsewhere.is_some() {
            self.asking.begin()?;
        }
        // All are asked, whatever the first says: what nobody is told of now the next one would be told of.
        if let Some(ask) = elsewhere {
            outcome = outcome.and(ask());
        }
        let store = self.ask_store(outcome.is_ok());
        let Err(error) = outcome.and(store) else { return Ok(()) };
        if let Err(problem) = self.end_boot("the disk did not keep all that was written") {
            // The note stands: whoever comes next does it.
            tracing::warn!("left for later: {problem}");
        }
        Err(error)
    }

    /// By a descriptor that is open since before anything of the store was seen. Where the disk kept all, and `ends` it, the note
    /// is gone.
    fn ask_store(&self, ends: bool) -> Result<()> {
        let (store, asking) = (&self.db.0.in_use, &self.asking);
        let ask = || {
            asking.note_begin()?;
            rustix::fs::syncfs(store)?;
            if ends { asking.note_end() } else { Ok(()) }
        };
        process::survivor([store.as_fd(), asking.as_fd()], ask)
            .context(|| format!("writing out the filesystem of {}", self.db.root().display()))
    }

    fn end_boot(&self, why: &str) -> Result<()> {
        tracing::warn!("{why}: what is not known to be on it is made anew");
        self.db.write(|writer| writer.end_boot())?;
        let folded = self.db.fold_refused_logs();
        // A disk that is still full refuses this, too; nothing counts yet that was written since.
        if let Err(problem) = rustix::fs::syncfs(&self.db.0.in_use) {
            tracing::debug!(%problem, "and once more");
        }
        folded.and_then(|()| self.asking.end())
    }
}

/// Whether both are names of one boot of the machine: its id, and from the first refused write on a number.
pub(super) fn is_of(boot: &str, other: &str) -> bool {
    boot.split('+').next() == other.split('+').next()
}

impl Reader<'_> {
    pub(super) fn last_boot(&self) -> Result<Option<String>> {
        self.one("select value from meta where key = 'boot'", (), |row| row.get(0))
    }

    /// `Unavailable`: since the store was opened the disk refused something that was written, perhaps what was seen here.
    pub(super) fn boot_goes_on(&self) -> Result<()> {
        if self.last_boot()?.as_deref() == Some(self.db.boot()) {
            return Ok(());
        }
        Err(Error::unavailable("the disk did not keep something that was written to the store meanwhile")
            .hint("try again: what was lost is made anew"))
    }
}

impl Writer<'_> {
    fn end_boot(&self) -> Result<()> {
        let last = self.last_boot()?.unwrap_or_default();
        let (id, number) = last.split_once('+').unwrap_or((&last, "0"));
        let next = format!("{id}+{}", number.parse::<u64>().unwrap_or_default() + 1);
        self.set_boot(&next)?;
        // What came of blobs may be lost, too, though memory still has it.
        self.exec("update intent set at = 0 where what = 'incoming'", ())?;
        self.drop_suspects(&next)
    }

    pub(super) fn set_boot(&self, boot: &str) -> Result<()> {
        self.exec(
            "insert into meta (key, value) values ('boot', ?1) on conflict (key) do update set value = ?1",
            (boot,),
        )
        .map(drop)
    }
}
