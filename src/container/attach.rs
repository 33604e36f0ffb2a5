//! The streams of a container in the foreground, while the runtime attends to its terminal and its signals.
//!
//! What the container gets are pipes or a terminal of its own, never the caller's descriptors: through /proc/self/fd it
//! could open the files behind those again, with root's rights.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread::Scope;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::Config;
use crate::error::{Context as _, Result};
use crate::runtime::terminal::{self, Local, Signals};
use crate::runtime::{Exit, Running, Size, Stdio};

/// The caller's side; what is absent is not attached.
#[derive(Clone, Copy, Default)]
pub struct Console<'c> {
    pub stdin: Option<BorrowedFd<'c>>,
    pub stdout: Option<BorrowedFd<'c>>,
    pub stderr: Option<BorrowedFd<'c>>,
    /// For the container's first process. A terminal that is to follow the size of the caller's needs them.
    pub signals: Option<&'c Signals>,
}

impl Console<'_> {
    /// Of the caller's terminal, where there is one.
    pub(super) fn size(&self) -> Size {
        let streams = [self.stdout, self.stdin, self.stderr];
        let terminal = streams.into_iter().flatten().find(|stream| rustix::termios::isatty(stream));
        terminal.map_or(Size { rows: 24, columns: 80 }, terminal::size)
    }
}

/// Our ends and the container's ends.
#[derive(Default)]
pub(super) struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    theirs: [Option<OwnedFd>; 3],
}

impl Pipes {
    pub(super) fn make(config: &Config, console: &Console<'_>) -> Result<Self> {
        let doing = || "making pipes for a container";
        let mut pipes = Pipes::default();
        if config.tty {
            return Ok(pipes);
        }
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context(doing);
        if config.open_stdin {
            let (theirs, ours) = pipe()?;
            // Our end alone: whoever reads the other one may take its time.
            rustix::io::ioctl_fionbio(&ours, true).context(doing)?;
            pipes.theirs[0] = Some(theirs);
            // With nobody to write to it, it is at its end.
            pipes.stdin = console.stdin.map(|_| ours);
        }
        if console.stdout.is_some() {
            let (ours, theirs) = pipe()?;
            (pipes.stdout, pipes.theirs[1]) = (Some(ours), Some(theirs));
        }
        if console.stderr.is_some() {
            let (ours, theirs) = pipe()?;
            (pipes.stderr, pipes.theirs[2]) = (Some(ours), Some(theirs));
        }
        Ok(pipes)
    }

    pub(super) fn stdio(&mut self, hold: Vec<OwnedFd>) -> Stdio {
        let [stdin, stdout, stderr] = std::mem::take(&mut self.theirs);
        Stdio { stdin, stdout, stderr, hold }
    }
}

/// Until it has ended and its output is written.
pub(super) fn attach(
    running: &mut Running,
    config: &Config,
    pipes: Pipes,
    console: &Console<'_>,
) -> Result<Exit> {
    let doing = || "handing on what a container reads and writes";
    if config.tty {
        let nowhere = std::fs::File::options().write(true).open("/dev/null").context(doing)?;
        let output = console.stdout.unwrap_or(nowhere.as_fd());
        let local = Local { input: console.stdin, output };
        let none = Signals::none();
        return terminal::attend(running, Some(local), console.signals.unwrap_or(&none));
    }
    let Pipes { stdin, stdout, stderr, .. } = pipes;
    let (ended, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context(doing)?;
    std::thread::scope(|scope| {
        copy_out(scope, stdout, console.stdout);
        copy_out(scope, stderr, console.stderr);
        if let (Some(from), Some(to)) = (console.stdin, stdin) {
            scope.spawn(move || copy_in(from, to, ended));
        }
        let exit = match console.signals {
            Some(signals) => terminal::attend(running, None, signals),
            None => running.wait(),
        };
        // The caller may have nothing to say for long.
        drop(end);
        exit
    })
}

/// The caller may read slowly. When it reads no more, the pipe is closed, and the container hears of it as in a
/// shell's pipeline.
fn copy_out<'s>(scope: &'s Scope<'s, '_>, from: Option<OwnedFd>, to: Option<BorrowedFd<'s>>) {
    let (Some(from), Some(to)) = (from, to) else { return };
    scope.spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match rustix::io::read(&from, &mut buffer[..]) {
                Ok(got) if got > 0 && write_all(to, &buffer[..got]).is_ok() => {}
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    });
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Somebody else made it so; it may be the same terminal.
            Err(Errno::AGAIN) => {
                let _ready = rustix::event::poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Until the input ends, the container reads no more, or it has ended: then `ended` is closed at its other side.
fn copy_in(from: BorrowedFd<'_>, to: OwnedFd, ended: OwnedFd) {
    let mut buffer = vec![0; 64 * 1024];
    let mut waiting = 0..0;
    loop {
        let next = match waiting.is_empty() {
            true => PollFd::from_borrowed_fd(from, PollFlags::IN),
            false => PollFd::new(&to, PollFlags::OUT),
        };
        let mut polled = [next, PollFd::new(&ended, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !polled[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let moved = match waiting.is_empty() {
            true => rustix::io::read(from, &mut buffer[..]).map(|got| waiting = 0..got),
            false => rustix::io::write(&to, &buffer[waiting.clone()]).map(|put| waiting.start += put),
        };
        match moved {
            Ok(()) if waiting.end > 0 => {}
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => return,
        }
    }
}
