//! A container's processes stopped for a while, so that its files can be copied as they are at one moment.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::directory;
use super::process::{began, fields, first_process};
use crate::db::{ContainerId, ContainerRow};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};

/// All processes of a container that runs, stopped; they go on when it is dropped, and when this process is killed. What
/// was stopped before stays so.
pub struct Frozen {
    stopped: Vec<OwnedFd>,
    waker: Waker,
}

/// How long a process may take to stop: one that writes does so once its write(2) has ended, however much that writes.
const PATIENCE: Duration = Duration::from_secs(30);

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.waker.wakes() {
            return;
        }
        for process in &self.stopped {
            // One that was killed meanwhile needs nothing.
            let _gone = rustix::process::pidfd_send_signal(process, Signal::CONT);
        }
    }
}

/// Nothing is written by the container while this lives. `Unavailable` where a process of it does not stop.
pub fn freeze(engine: &Engine, row: &ContainerRow) -> Result<Frozen> {
    let doing = || format!("pausing container {}", row.id.short());
    let turn = turn(engine, &row.id).context(doing)?;
    let mut frozen = Frozen { stopped: Vec::new(), waker: Waker::start(engine, turn).context(doing)? };
    // One that has ended meanwhile writes nothing, either.
    let Some(first) = first_process(engine, row)? else { return Ok(frozen) };
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let Ok(theirs) = namespace(first) else { return Ok(frozen) };
    let mut known = HashSet::new();
    loop {
        let (before, mut resting) = (known.len(), Vec::new());
        for entry in std::fs::read_dir("/proc").context(doing)? {
            let name = entry.context(doing)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if known.contains(&pid) || namespace(pid).ok().as_ref() != Some(&theirs) {
                continue;
            }
            if is_stopped(pid) {
                resting.push(pid);
                continue;
            }
            let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let Some(Ok(process)) = process.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            else {
                continue;
            };
            // The number may have become another's before it was opened.
            if namespace(pid).ok().as_ref() == Some(&theirs)
                && let Some(began) = began(pid)
            {
                frozen.waker.note(pid, began).context(doing)?;
                if rustix::process::pidfd_send_signal(&process, Signal::STOP).is_err() {
                    continue;
                }
                known.insert(pid);
                frozen.stopped.push(process);
            }
        }
        for pid in &known {
            wait_for_stop(*pid, &|| true).context(doing)?;
        }
        for pid in &resting {
            wait_for_stop(*pid, &|| is_stopped(*pid)).context(doing)?;
        }
        // Those that were made while we looked, or that somebody else has let go on.
        if known.len() == before && resting.into_iter().all(is_stopped) {
            return Ok(frozen);
        }
    }
}

/// A process of its own that knows what was stopped, and lets it go on once nobody is there who wants it so.
struct Waker {
    child: Child,
    list: Option<ChildStdin>,
}

impl Waker {
    /// `turn` is held until it has ended: whoever else wants them stopped would not notice that they go on.
    fn start(engine: &Engine, turn: Option<OwnedFd>) -> std::io::Result<Self> {
        let mut command = Command::new(engine.exe());
        command.arg0("outcrop").arg("__wake").stdin(Stdio::piped()).stderr(Stdio::null());
        command.stdout(turn.map_or_else(Stdio::null, Stdio::from));
        // What kills the group that we are in leaves it.
        let mut child = command.env_clear().current_dir("/").process_group(0).spawn()?;
        let list = child.stdin.take();
        Ok(Waker { child, list })
    }

    /// Before it is stopped.
    fn note(&mut self, pid: u32, began: u64) -> std::io::Result<()> {
        let list = self.list.as_mut().expect("taken at the end alone");
        list.write_all(format!("{pid} {began}\n").as_bytes())
    }

    fn wakes(&mut self) -> bool {
        drop(self.list.take());
        self.child.wait().is_ok_and(|status| status.success())
    }
}

/// `outcrop __wake`: once standard input ends, the processes that it named go on, each with its beginning.
pub fn wake() -> Result<()> {
    let doing = || "letting processes go on";
    let mut list = String::new();
    std::io::stdin().read_to_string(&mut list).context(doing)?;
    for line in list.lines() {
        let bad = || Error::invalid("`outcrop __wake` is for outcrop itself");
        let (pid, when) = line.split_once(' ').ok_or_else(bad)?;
        let pid = pid.parse::<i32>().ok().ok_or_else(bad)?;
        let when = when.parse::<u64>().ok().ok_or_else(bad)?;
        let Some(Ok(process)) =
            Pid::from_raw(pid).map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        else {
            continue;
        };
        // One that was killed meanwhile needs nothing.
        if began(pid.unsigned_abs()) == Some(when) {
            let _gone = rustix::process::pidfd_send_signal(process, Signal::CONT);
        }
    }
    Ok(())
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
fn wait_for_stop(pid: u32, heeds: &dyn Fn() -> bool) -> Result<()> {
    let since = Instant::now();
    while !is_still(pid) && heeds() {
        if since.elapsed() > PATIENCE {
            return Err(Error::unavailable(format!("process {pid} does not stop"))
                .hint("it waits for a disk or a server, perhaps: try again once that answers"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// By a signal, whoever sent it.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    fields(&stat).and_then(|mut fields| fields.next()) == Some("T")
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
