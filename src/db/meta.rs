//! What the store says of itself.

use super::disk::is_of;
use super::time::Time;
use super::transaction::{Reader, Writer};
use super::{Db, EpochGuard};
use crate::error::Result;
use std::sync::PoisonError;

impl Reader<'_> {
    /// Never changes.
    pub fn uuid(&self) -> Result<String> {
        self.value("select value from meta where key = 'uuid'", ())
    }

    /// How owners are written on the files: `direct`.
    pub fn layout(&self) -> Result<String> {
        self.value("select value from meta where key = 'layout'", ())
    }

    /// The storage driver, once one was chosen.
    pub fn driver(&self) -> Result<Option<String>> {
        self.one("select value from meta where key = 'driver'", (), |row| row.get(0))
    }

    /// What the driver was told when it was chosen, `NAME=VALUE` each.
    pub fn driver_options(&self) -> Result<Vec<String>> {
        let text = "select value from meta where key = 'driver_options'";
        let lines: Option<String> = self.one(text, (), |row| row.get(0))?;
        Ok(lines.unwrap_or_default().lines().map(str::to_owned).collect())
    }

    pub fn store_made_at(&self) -> Result<Time> {
        self.value("select value from meta where key = 'made_at'", ())
    }

    /// The machine was started anew since trees were last compared with rows: a power cut loses the latest rows, and
    /// may leave trees that no row knows.
    pub fn trees_may_be_lost(&self) -> Result<bool> {
        self.value("select exists (select 1 from meta where key = 'trees_unchecked')", ())
    }
}

impl Writer<'_> {
    pub fn set_driver(&self, driver: &str, options: &[String]) -> Result<()> {
        for (key, value) in [("driver", driver), ("driver_options", &options.join("\n"))] {
            self.exec(
                "insert into meta (key, value) values (?1, ?2) on conflict (key) do update set value = ?2",
                (key, value),
            )?;
        }
        Ok(())
    }

    pub fn trees_checked(&self) -> Result<()> {
        self.exec("delete from meta where key = 'trees_unchecked'", ()).map(drop)
    }
}

impl Db {
    /// Begins the process's stay in the current epoch.
    pub(super) fn enter_epoch(&self) -> Result<()> {
        let guard = self.enter()?;
        *self.epoch_slot() = Some(guard);
        Ok(())
    }

    /// Nothing that this process saw is kept for it any longer, but for what it has leases or references on: for those
    /// that live long.
    pub fn leave_epoch(&self) {
        *self.epoch_slot() = None;
    }

    fn epoch_slot(&self) -> std::sync::MutexGuard<'_, Option<EpochGuard>> {
        self.0.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once after each boot: numbers go on beyond all that may be in use.
    pub(super) fn notice_reboot(&self) -> Result<()> {
        let noticed = |last: &Option<String>| last.as_deref().is_some_and(|last| is_of(last, self.boot()));
        if noticed(&self.read(|reader| reader.last_boot())?) {
            return Ok(());
        }
        self.durable(|writer| {
            let before = writer.last_boot()?;
            if noticed(&before) {
                return Ok(());
            }
            writer.set_boot(self.boot())?;
            if before.is_some() {
                writer.exec("update sequence set next = safe, safe = safe + 1024", ())?;
                writer.exec(
                    "insert into meta (key, value) values ('trees_unchecked', 1), ('names_unchecked', 1)
                     on conflict do nothing",
                    (),
                )?;
                // Nobody holds what was being made.
                writer.exec(
                    "update snapshot set state = 'removing', lease = null
                     where lease is not null and id not in (select snapshot from container)",
                    (),
                )?;
                writer.drop_suspects(self.boot())?;
            }
            Ok(())
        })
    }
}
