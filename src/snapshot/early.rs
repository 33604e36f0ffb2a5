//! Writing to the disk while more is still coming, so that little is left to wait for at the barrier.
//!
//! Whoever calls syncfs(2) is told what the disk refused, and who opens the store later is not (`db/disk.rs`); so it must not
//! be called by somebody who may be killed before he has taken note. An overlay that has its upper directory on the store's
//! filesystem passes syncfs(2) on to it (fs/overlayfs/super.c, `ovl_sync_fs`) and takes what was refused for nobody's: the
//! barrier, and everybody else, hear it as if nothing had been written out before. (sync(2) tells nobody either, and would wait for
//! every disk of the machine.)

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::driver::{Mount, Shape};
use super::{Draft, Purpose, Snapshots};
use crate::error::{Context as _, Error, Result};
use crate::sys;

/// Between two looks; short work is over before the first.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that are worth a turn: others' files on the same filesystem are written out with ours.
const WORTH: u64 = 64 << 20;

impl Snapshots {
    /// What `work` writes is on its way to the disk while it goes on: no promise that any of it is there, the barrier makes it.
    /// Of Layered drivers whose mounts are overlays; others write when they are told to.
    pub fn writing_out<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.driver.shape() != Shape::Layered || self.writes_out.swap(true, Ordering::Relaxed) {
            return work();
        }
        let (done, is_done) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if let Err(problem) = self.write_out_until(&is_done) {
                    tracing::debug!(%problem, "nothing more is written out before the end");
                }
            });
            let result = work();
            drop(done);
            self.writes_out.store(false, Ordering::Relaxed);
            result
        })
    }

    fn write_out_until(&self, is_done: &Receiver<()>) -> Result<()> {
        let mut before = written()?;
        if !is_worth_a_turn(&mut before, is_done)? {
            return Ok(());
        }
        // It is nobody's layer, and nothing is ever written to it.
        let draft = self.draft(None, Purpose::Container)?;
        let Some(overlay) = overlay(&draft)? else { return Ok(()) };
        loop {
            rustix::fs::syncfs(&overlay).context(|| "writing out what came so far")?;
            if !is_worth_a_turn(&mut before, is_done)? {
                return Ok(());
            }
        }
    }
}

/// Waits until so much was written that it is; false: the work is done.
fn is_worth_a_turn(before: &mut u64, is_done: &Receiver<()>) -> Result<bool> {
    while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(PAUSE) {
        let now = written()?;
        if now - *before >= WORTH {
            *before = now;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes that this process, and those that it has waited for, wrote to files on disks (proc_pid_io(5)).
fn written() -> Result<u64> {
    let path = "/proc/self/io";
    let text = std::fs::read_to_string(path).context(|| format!("reading {path}"))?;
    let said = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    said.and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| Error::unsupported(format!("{path} does not say what was written")))
}

/// Mounted, where the driver mounts overlays.
fn overlay(draft: &Draft<'_>) -> Result<Option<OwnedFd>> {
    let mount = draft.mount()?;
    let Mount::Overlay { upper: Some(_), .. } = &mount else { return Ok(None) };
    let root = sys::mount::detached(&mount)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&root, c".", flags, Mode::empty()).map(Some).context(|| "opening an overlay")
}
