//! A disk as it was at each moment of its log, looked at on this machine.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guest::{Guest, Seen};
use super::history::{Act, History};
use super::log::{Entry, Log};
use crate::differential::random::Random;
use crate::sandbox::Outcome;

/// What was reported when the log came to a mark, and what was under way.
pub(super) struct Told<'a> {
    pub(super) acts: &'a [Act],
    /// Before the first act, and after each.
    pub(super) histories: &'a [History],
}

/// Looks at the disk after every flush and at every mark; and where `some` throws the dice, at what a disk may have
/// when it has written a part of what it holds. How often it looked.
pub(super) fn every_moment(
    guest: &Guest,
    empty: &Path,
    log: &Log,
    told: &Told,
    mut some: Option<Random>,
) -> usize {
    let state = guest.sandbox.dir().join("state");
    copy(empty, &state);
    let disk = OpenOptions::new().write(true).open(&state).unwrap();
    let (mut done, mut under_way, mut looked, mut changed) = (0, None, 0, true);
    let groups = log.entries.split_inclusive(|entry| entry.is_flush() || entry.mark.is_some());
    for group in groups {
        let look = |state: &Path, done: usize, under_way: Option<usize>, moment: &str| {
            look(guest, state, &mut told.histories[done].clone(), under_way.map(|n| &told.acts[n]), moment);
        };
        if let Some(random) = &mut some
            && group.len() > 1
        {
            let part = guest.sandbox.dir().join("part");
            copy(&state, &part);
            let disk = OpenOptions::new().write(true).open(&part).unwrap();
            let written = |entry: &&Entry| entry.is_forced() || random.one_in(2);
            group.iter().filter(written).for_each(|entry| log.apply(entry, &disk));
            look(&part, done, under_way, "a part of what was written");
            looked += 1;
        }
        for entry in group {
            log.apply(entry, &disk);
            changed |= !entry.is_empty();
        }
        let mark = group.last().and_then(|entry| entry.mark.as_deref()).unwrap_or("a flush");
        if let Some(number) = mark.strip_prefix("begin-") {
            under_way = Some(number.parse().unwrap());
        } else if let Some(number) = mark.strip_prefix("done-") {
            (done, under_way) = (number.parse::<usize>().unwrap() + 1, None);
            changed = true;
        }
        if changed {
            look(&state, done, under_way, mark);
            looked += 1;
            changed = false;
        }
    }
    looked
}

/// Mounts a copy, as what is mounted is written to.
fn look(guest: &Guest, state: &Path, history: &mut History, under_way: Option<&Act>, moment: &str) {
    let mounted = Mounted::new(guest, state, !history.names.is_empty());
    let moment = format!("{:?}, {under_way:?} under way, after {moment}", guest.ground);
    let seen = mounted.seen();
    assert!(!seen.damaged, "{moment}: {}", seen.check);
    if let Err(wrong) = history.found(&seen.names, under_way) {
        panic!("{moment}: {wrong}");
    }
    if !mounted.at.join("store").exists() {
        return;
    }
    // Any verb that writes clears up what was under way.
    mounted.outcrop(&["cache", "prune", "-f", "--keep-storage", "1g"]).ok();
    let swept = mounted.seen();
    assert!(!swept.damaged && !swept.has_leftovers(), "{moment}, swept: {}", swept.check);
    assert_eq!(swept.names, seen.names, "{moment}, swept");
}

struct Mounted<'g> {
    guest: &'g Guest,
    at: PathBuf,
    /// The store has a driver.
    settled: bool,
}

impl<'g> Mounted<'g> {
    fn new(guest: &'g Guest, state: &Path, settled: bool) -> Self {
        let (image, at) = (guest.sandbox.dir().join("mounted"), guest.sandbox.dir().join("at"));
        copy(state, &image);
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop", "-t", guest.ground.filesystem]).args([&image, &at]);
        drop(Outcome::of(&mut mount).ok());
        Mounted { guest, at, settled }
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        // Nothing is lost with a store that was not made yet.
        if !self.at.join("store").exists() {
            return seen;
        }
        let check = self.outcrop(&["system", "check"]);
        seen.damaged = check.code() != Some(0);
        seen.check = check.report();
        let listed = self.outcrop(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
        listed.ok().lines().iter().for_each(|line| seen.name(line));
        seen
    }

    fn outcrop(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outcrop"));
        if !self.settled {
            command.env("OUTCROP_STORAGE_DRIVER", self.guest.ground.driver);
        }
        command.current_dir("/");
        command.arg("--root").arg(self.at.join("store")).arg("--run-root").arg(self.guest.sandbox.run_root());
        Outcome::of(command.args(words))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::empty()).unwrap();
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status().unwrap();
    assert!(copied.success(), "copying {}", from.display());
}
