//! The process of a running container, for those who did not start it.
//!
//! A number alone means nothing once its process has ended: it is noted with the time at which the process began, and
//! believed only while both are true and the container's lease is held.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::directory;
use crate::db::{ContainerId, ContainerRow, ContainerState, Lease};
use crate::engine::Engine;
use crate::error::{Context as _, Result};

#[derive(Serialize, Deserialize)]
struct Process {
    pid: u32,
    /// Clock ticks since the machine started (proc_pid_stat(5), field 22).
    began: u64,
    /// Of the run that it belongs to.
    lease: String,
}

impl Process {
    fn runs(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

pub(super) fn note(engine: &Engine, id: &ContainerId, lease: &Lease, pid: u32) -> Result<()> {
    // One that has ended already is nobody's to find.
    let Some(began) = began(pid) else { return Ok(()) };
    let process = Process { pid, began, lease: lease.name().to_owned() };
    let text = serde_json::to_vec(&process).context(|| "noting a process")?;
    let path = directory(engine, id).join("process");
    std::fs::write(&path, text).context(|| format!("writing {}", path.display()))
}

pub(super) fn forget(engine: &Engine, id: &ContainerId) {
    // What stays is not believed.
    drop(std::fs::remove_file(directory(engine, id).join("process")));
}

/// What was noted of this run of it; `None` before and after.
fn noted(engine: &Engine, row: &ContainerRow) -> Option<Process> {
    let text = std::fs::read(directory(engine, &row.id).join("process")).ok()?;
    let noted: Process = serde_json::from_slice(&text).ok()?;
    (row.lease.as_ref() == Some(&noted.lease)).then_some(noted)
}

/// The host's number of its first process; `None` when it does not run, is being started, or runs where it cannot be seen.
pub fn process_id(engine: &Engine, row: &ContainerRow) -> Option<u32> {
    if row.state != ContainerState::Running {
        return None;
    }
    noted(engine, row).filter(Process::runs).map(|noted| noted.pid)
}

/// How long a container may take to start: its runtime makes its mounts first.
const START: Duration = Duration::from_secs(10);

/// As [`process_id`], and waits for the process of one that is being started.
pub(super) fn first_process(engine: &Engine, row: &ContainerRow) -> Result<Option<u32>> {
    let since = Instant::now();
    loop {
        if let Some(noted) = noted(engine, row) {
            return Ok(noted.runs().then_some(noted.pid));
        }
        let now = engine.db.read(|index| index.container(&row.id))?;
        let goes_on = now.is_some_and(|now| now.state == ContainerState::Running && now.lease == row.lease);
        let Some(lease) = row.lease.as_deref().filter(|_| goes_on) else { return Ok(None) };
        if engine.db.lease_is_free(lease)? || since.elapsed() > START {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to its first process: `false` where that has ended, or cannot be seen from here.
pub fn kill(engine: &Engine, row: &ContainerRow, signal: Signal) -> Result<bool> {
    let doing = || format!("sending a signal to container {}", row.id.short());
    let Some(pid) = first_process(engine, row)?.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    else {
        return Ok(false);
    };
    let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(false),
        process => process.context(doing)?,
    };
    // Now that it is held: still the one that was noted?
    if process_id(engine, row).is_none() {
        return Ok(false);
    }
    match rustix::process::pidfd_send_signal(process, signal) {
        Err(Errno::SRCH) => Ok(false),
        sent => sent.map(|()| true).context(doing),
    }
}

/// `None`: there is no such process, or it is dead and waits to be asked for.
pub(super) fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = fields(&stat)?;
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// From the state on, which is field 3: the name, in parentheses, may hold anything.
pub(super) fn fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let own = began(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(began(std::process::id()), Some(own));
        assert_eq!(began(u32::MAX), None);
    }
}
