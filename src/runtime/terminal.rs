//! A container in the foreground: its terminal joined to the user's, signals handed on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, Winsize};
use signal_hook::SigId;

use super::{Exit, Running, Size};
use crate::error::{Context, Result};

/// The user's end of a container's terminal.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// `None`: nothing is typed (`-t` without `-i`).
    pub input: Option<BorrowedFd<'a>>,
    pub output: BorrowedFd<'a>,
}

/// Of the terminal behind a descriptor; what terminals once had, if it is none.
pub fn size(fd: impl AsFd) -> Size {
    match rustix::termios::tcgetwinsize(fd) {
        Ok(Winsize { ws_row: rows @ 1.., ws_col: columns @ 1.., .. }) => Size { rows, columns },
        _ => Size { rows: 24, columns: 80 },
    }
}

/// Handed on to the container's first process, unless it has a terminal that makes them from keys.
const HANDED_ON: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
];

/// So many times asked to stop, it is killed: a first process without handlers ignores SIGINT and SIGTERM.
const PATIENCE: usize = 3;

/// Waits for the container's end. Hands on the signals that were caught, before it started too, and puts a terminal that
/// is typed on into raw mode.
pub fn attend(running: &mut Running, local: Option<Local<'_>>, signals: &Signals) -> Result<Exit> {
    let doing = || "attending to a container";
    let mut session = match (running.terminal(), local) {
        (Some(master), Some(local)) => Some(Session::new(master, local).context(doing)?),
        _ => None,
    };
    let mut requests = 0;
    loop {
        let ready = wait(running.as_fd(), signals, session.as_ref()).context(doing)?;
        for signal in signals.arrived(&ready.signals) {
            if signal == libc::SIGWINCH {
                if let Some(session) = &session {
                    session.resize();
                }
                continue;
            }
            running.kill(signal)?;
            requests += usize::from(matches!(signal, libc::SIGINT | libc::SIGTERM));
            if requests == PATIENCE {
                running.kill(libc::SIGKILL)?;
            }
        }
        if let Some(open) = &mut session {
            if ready.input {
                open.type_in().context(doing)?;
            }
            if ready.master {
                open.flush().context(doing)?;
                if !open.show().context(doing)? {
                    session = None;
                }
            }
        }
        // What it wrote last is still in the terminal.
        if ready.ended && !ready.master {
            drop(session);
            return running.wait();
        }
    }
}

struct Ready {
    ended: bool,
    signals: Vec<bool>,
    master: bool,
    input: bool,
}

fn wait(container: BorrowedFd<'_>, signals: &Signals, session: Option<&Session<'_>>) -> io::Result<Ready> {
    let mut polled = vec![PollFd::new(&container, PollFlags::IN)];
    polled.extend(signals.0.iter().map(|one| PollFd::new(&one.read, PollFlags::IN)));
    let mut typed = None;
    if let Some(session) = session {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !session.pending.is_empty());
        polled.push(PollFd::new(&session.master, wanted));
        // No more is read than the container takes.
        typed = session.local.input.filter(|_| session.pending.is_empty() && session.typing);
    }
    if let Some(input) = &typed {
        polled.push(PollFd::new(input, PollFlags::IN));
    }
    loop {
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            answer => break answer.map(drop)?,
        }
    }
    let mut ready = polled.iter().map(|one| !one.revents().is_empty());
    let ended = ready.next().unwrap_or(false);
    let signals = ready.by_ref().take(signals.0.len()).collect();
    let master = session.is_some() && ready.next().unwrap_or(false);
    Ok(Ready { ended, signals, master, input: ready.next().unwrap_or(false) })
}

struct Session<'a> {
    master: OwnedFd,
    local: Local<'a>,
    /// Typed, and not yet taken.
    pending: Vec<u8>,
    /// Until the input ends.
    typing: bool,
    _raw: Option<Raw>,
}

impl<'a> Session<'a> {
    fn new(master: OwnedFd, local: Local<'a>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let raw = match local.input {
            Some(input) if rustix::termios::isatty(input) => Some(Raw::enter(input)?),
            _ => None,
        };
        Ok(Session { master, local, pending: Vec::new(), typing: true, _raw: raw })
    }

    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(self.local.output) {
            // A terminal whose container has just ended takes no size.
            let _gone = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    fn type_in(&mut self) -> io::Result<()> {
        let Some(input) = self.local.input else { return Ok(()) };
        let mut buffer = [0; 4096];
        match rustix::io::read(input, &mut buffer) {
            // EIO: the terminal was hung up.
            Ok(0) | Err(Errno::IO) => self.typing = false,
            Ok(length) => {
                self.pending.extend_from_slice(&buffer[..length]);
                self.flush()?;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.master, &self.pending) {
                Ok(taken) => drop(self.pending.drain(..taken)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody is left to read it.
                Err(Errno::IO) => self.pending.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// `false` when the container has closed its side.
    fn show(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let length = match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => return Ok(false),
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match rustix::io::write(self.local.output, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    rustix::event::poll(&mut [PollFd::new(&self.local.output, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// A terminal in raw mode, until dropped.
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = terminal.try_clone_to_owned()?;
        rustix::termios::tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _hung_up = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Signals of this process as readable descriptors, until dropped. Caught before a container is started, none is lost
/// that comes while it starts.
pub struct Signals(Vec<Caught>);

struct Caught {
    signal: i32,
    id: SigId,
    read: UnixStream,
}

impl Signals {
    pub fn catch() -> Result<Self> {
        Self::register().context(|| "catching signals")
    }

    /// For who wants none of them.
    pub fn none() -> Self {
        Signals(Vec::new())
    }

    fn register() -> io::Result<Self> {
        let mut caught = Signals(Vec::new());
        for signal in HANDED_ON.into_iter().chain([libc::SIGWINCH]) {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            let id = signal_hook::low_level::pipe::register(signal, write)?;
            caught.0.push(Caught { signal, id, read });
        }
        Ok(caught)
    }

    /// Several of one kind at once may count as one, as the kernel's do.
    fn arrived<'a>(&'a self, ready: &'a [bool]) -> impl Iterator<Item = i32> + 'a {
        self.0.iter().zip(ready).filter(|(_, ready)| **ready).map(|(caught, _)| {
            let mut buffer = [0; 64];
            let _emptied = rustix::io::read(&caught.read, &mut buffer);
            caught.signal
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for caught in &self.0 {
            signal_hook::low_level::unregister(caught.id);
        }
    }
}
