//! A container that runs: the engine's end of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio as Inherit};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::wire::{self, Down, How, Order, Up};
use super::{Exit, Spec, Stdio};
use crate::error::{Context, Error, Kind, Result};
use crate::job::{Cancel, Stream};

/// Dropped, it kills the container and waits until nothing of it is left.
pub struct Running {
    init: Child,
    socket: UnixStream,
    pid: u32,
    warnings: Vec<String>,
    terminal: Option<OwnedFd>,
    exit: Option<Exit>,
}

/// Starts the outer half and hands it its order. `exe` must be a file that the container cannot write to.
pub(super) fn launch(exe: &Path, how: How, spec: &Spec, stdio: Stdio) -> Result<Running> {
    let doing = || format!("starting a container for `{}`", spec.args.join(" "));
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(Kind::Denied, doing())
            .because(Error::new(Kind::Denied, "only root can make mounts and namespaces"))
            .hint("run it as root: containers of other users are not supported by this version"));
    }
    let (ours, theirs) = UnixStream::pair().context(doing)?;
    // Standard input is the one descriptor that a child gets without a moment in which other children get it too.
    let init = Command::new(exe)
        .arg0("outcrop")
        .arg("__init")
        .stdin(OwnedFd::from(theirs))
        .stdout(Inherit::null())
        .stderr(Inherit::null())
        .env_clear()
        .current_dir("/")
        .spawn()
        .context(doing)?;
    let mut running =
        Running { init, socket: ours, pid: 0, warnings: Vec::new(), terminal: None, exit: None };

    let Stdio { stdin, stdout, stderr, hold } = stdio;
    let given = [stdin.is_some(), stdout.is_some(), stderr.is_some()];
    let fds: Vec<OwnedFd> = [stdin, stdout, stderr].into_iter().flatten().chain(hold).collect();
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let order = Order { spec: spec.clone(), how, given };
    wire::send(&running.socket, &order, &borrowed).context(doing)?;
    drop(fds);

    match running.receive().context(doing)? {
        (Up::Running { pid, warnings }, fds) => {
            running.pid = pid;
            running.warnings = warnings;
            running.terminal = fds.into_iter().next();
        }
        (Up::Ended(exit), _) => running.exit = Some(exit),
        (Up::Failed(failure), _) => return Err(failure.into()),
    }
    Ok(running)
}

impl Running {
    /// The host's number of the container's first process; 0 when it never ran.
    pub fn pid(&self) -> u32 {
        self.pid
    }
    /// What was asked for and could not be had.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
    /// The master of the container's terminal, once, if the spec asked for one.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Sends a signal, by number, to the container's first process. None is sent to what has ended.
    pub fn kill(&self, signal: i32) -> Result<()> {
        match wire::send(&self.socket, &Down::Signal(signal), &[]) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context(|| format!("sending signal {signal} to the container"))
            }
            _ => Ok(()),
        }
    }

    /// Until the command has ended and all that was made for it is gone.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = &self.exit {
            return Ok(exit.clone());
        }
        let exit = match self.receive().context(|| "waiting for the container")? {
            (Up::Ended(exit), _) => exit,
            (Up::Failed(failure), _) => return Err(failure.into()),
            (Up::Running { .. }, _) => return Err(Error::internal("the container started twice")),
        };
        self.exit = Some(exit.clone());
        // The outer half has nothing more to do than to exit.
        let _status = self.init.wait().context(|| "waiting for the container's outer half")?;
        Ok(exit)
    }

    /// `None` when it still runs after that time.
    pub fn wait_for(&mut self, time: Duration) -> Result<Option<Exit>> {
        let end = Instant::now() + time;
        while self.exit.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            match rustix::event::poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timespec(left)))
            {
                Ok(0) => return Ok(None),
                Ok(_) => return self.wait().map(Some),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context(|| "waiting for the container"),
            }
        }
        Ok(self.exit.clone())
    }

    fn receive(&mut self) -> Result<(Up, Vec<OwnedFd>)> {
        let answer = wire::receive(&self.socket).context(|| "listening to the container's outer half")?;
        let Some(answer) = answer else {
            let status = self.init.wait().context(|| "waiting for the container's outer half")?;
            return Err(Error::internal(format!("the container's outer half died: {status}")));
        };
        Ok(answer)
    }
}

/// Readable when the container has ended.
impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _closed = self.socket.shutdown(std::net::Shutdown::Both);
        let _status = self.init.wait();
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

/// Runs a build step to its end: no input, output handed on as it comes. Cancelled, it kills the container and is an
/// error of kind `Cancelled`.
pub fn run(
    runtime: &dyn super::Runtime,
    spec: &Spec,
    hold: Vec<OwnedFd>,
    cancel: &Cancel,
    output: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
) -> Result<(Exit, Vec<String>)> {
    let doing = || "reading the output of a container";
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (out, stdout) = rustix::pipe::pipe_with(flags).context(doing)?;
    let (err, stderr) = rustix::pipe::pipe_with(flags).context(doing)?;
    let stdio = Stdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr), hold };
    let mut running = runtime.start(spec, stdio)?;

    let mut open = vec![(out, Stream::Out), (err, Stream::Err)];
    let mut buffer = vec![0; 64 * 1024];
    while !open.is_empty() {
        if cancel.is_set() {
            drop(running);
            return Err(Error::cancelled());
        }
        let mut polled: Vec<PollFd<'_>> = open.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)).collect();
        // A tenth of a second: cancelling is a flag, which wakes nobody.
        match rustix::event::poll(&mut polled, Some(&timespec(Duration::from_millis(100)))) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context(doing),
        }
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut closed = vec![false; open.len()];
        for index in (0..open.len()).filter(|index| ready[*index]) {
            let (fd, stream) = &open[index];
            match rustix::io::read(fd, &mut buffer[..]) {
                Ok(0) => closed[index] = true,
                Ok(got) => output(*stream, &buffer[..got])?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context(doing),
            }
        }
        let mut closed = closed.into_iter();
        open.retain(|_| !closed.next().unwrap_or_default());
    }
    // Both closed, but it may still run.
    loop {
        if let Some(exit) = running.wait_for(Duration::from_millis(100))? {
            return Ok((exit, std::mem::take(&mut running.warnings)));
        }
        if cancel.is_set() {
            drop(running);
            return Err(Error::cancelled());
        }
    }
}
