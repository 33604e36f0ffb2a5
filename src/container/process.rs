//! The process of a running container, for those who did not start it.
//!
//! A number alone means nothing once its process has ended: it is noted with the time at which the process began, and
//! believed only while both are true and the container's lease is held.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::directory;
use crate::db::{ContainerId, ContainerRow, ContainerState, Lease};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};

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
fn first_process(engine: &Engine, row: &ContainerRow) -> Result<Option<u32>> {
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

/// All processes of a container that runs, stopped; they go on when it is dropped.
pub struct Frozen {
    stopped: Vec<OwnedFd>,
    /// Whoever else wants them stopped comes after: he would not notice that they go on.
    _turn: Option<OwnedFd>,
}

/// How long a process may take to stop: one that writes does so once its write(2) has ended, however much that writes.
const PATIENCE: Duration = Duration::from_secs(30);

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in &self.stopped {
            // One that was killed meanwhile needs nothing.
            let _gone = rustix::process::pidfd_send_signal(process, Signal::CONT);
        }
    }
}

/// Nothing is written by the container while this lives. `Unavailable` where a process of it does not stop.
pub fn freeze(engine: &Engine, row: &ContainerRow) -> Result<Frozen> {
    let doing = || format!("pausing container {}", row.id.short());
    let mut frozen = Frozen { stopped: Vec::new(), _turn: turn(engine, &row.id).context(doing)? };
    // One that has ended meanwhile writes nothing, either.
    let Some(first) = first_process(engine, row)? else { return Ok(frozen) };
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let Ok(theirs) = namespace(first) else { return Ok(frozen) };
    let mut known = HashSet::new();
    loop {
        let before = known.len();
        for entry in std::fs::read_dir("/proc").context(doing)? {
            let name = entry.context(doing)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if known.contains(&pid) || namespace(pid).ok().as_ref() != Some(&theirs) {
                continue;
            }
            let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let Some(Ok(process)) = process.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            else {
                continue;
            };
            // The number may have become another's before it was opened.
            if namespace(pid).ok().as_ref() == Some(&theirs)
                && rustix::process::pidfd_send_signal(&process, Signal::STOP).is_ok()
            {
                known.insert(pid);
                frozen.stopped.push(process);
            }
        }
        // Those that were made while we looked.
        if known.len() == before {
            return Ok(frozen);
        }
        for pid in &known {
            wait_for_stop(*pid).context(doing)?;
        }
    }
}

/// `None`: the container is gone.
fn turn(engine: &Engine, id: &ContainerId) -> std::io::Result<Option<OwnedFd>> {
    let path = directory(engine, id).join("pause");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let lock = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::NOENT) => return Ok(None),
        lock => lock?,
    };
    rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))?;
    Ok(Some(lock))
}

/// A signal is sent before it is heeded: until then the process goes on with what it does.
fn wait_for_stop(pid: u32) -> Result<()> {
    let since = Instant::now();
    while !is_still(pid) {
        if since.elapsed() > PATIENCE {
            return Err(Error::unavailable(format!("process {pid} does not stop"))
                .hint("it waits for a disk or a server, perhaps: try again once that answers"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether none of its threads does anything.
fn is_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    // One that has ended meanwhile has no state.
    let threads: Vec<(PathBuf, String)> = threads
        .flatten()
        .filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
            Some((thread.path(), fields(&stat)?.next()?.to_owned()))
        })
        .collect();
    let stopped = threads.iter().any(|(_, state)| state == "T" || state == "t");
    threads.iter().all(|(thread, state)| match state.as_str() {
        "T" | "t" | "Z" | "X" | "x" => true,
        // Once one has stopped all others were woken to stop: what sleeps still is a worker of the kernel's (io_uring(7)).
        "S" => stopped,
        // Whoever made a process by vfork(2) waits for it, and that one is stopped.
        "D" => std::fs::read_to_string(thread.join("syscall")).is_ok_and(|call| makes_process(&call)),
        _ => false,
    })
}

/// Of /proc/PID/syscall, for programs of the kernel's own architecture.
fn makes_process(call: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    const CALLS: [libc::c_long; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];
    #[cfg(not(target_arch = "x86_64"))]
    const CALLS: [libc::c_long; 2] = [libc::SYS_clone, libc::SYS_clone3];
    call.split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .is_some_and(|number| CALLS.contains(&number))
}

/// `None`: there is no such process, or it is dead and waits to be asked for.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = fields(&stat)?;
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// From the state on, which is field 3: the name, in parentheses, may hold anything.
fn fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
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
