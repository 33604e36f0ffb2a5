//! The outer half of a container that outcrop runs itself.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};

use super::cgroup::Cgroups;
use super::inside::{self, Inside, Plan};
use super::root::{self, Root};
use crate::error::{Context, Error, Result};
use crate::runtime::wire::{self, Down, Failure, Up};
use crate::runtime::{Exit, Network, Seccomp, Spec, Stdio, seccomp, user};
use crate::sys::process::{self, Ended, Fork, Forked};

pub(super) fn carry_out(engine: &UnixStream, spec: &Spec, stdio: Stdio) -> Result<Exit> {
    let Stdio { stdin, stdout, stderr, hold } = stdio;
    let mut root = Root::mount(spec)?;
    let user = user::resolve(root.as_fd(), &spec.user, &spec.groups)?;
    let volumes = root::volumes(root.as_fd(), spec)?;
    root.prepare(&root::mount_points(spec, &volumes))?;
    let filter = match spec.seccomp {
        Seccomp::Default => Some(seccomp::program(&spec.capabilities)),
        Seccomp::Unconfined => None,
    };
    let mut cgroups = Cgroups::create(spec)?;
    let plan = Plan {
        spec,
        user,
        root: root.for_container(spec.read_only_root, cgroups.devices_limited)?,
        doors: cgroups.doors()?,
        cgroups: &cgroups,
        volumes,
        filter,
        stdio: [stdin, stdout, stderr],
    };

    let doing = || "starting the container's first process";
    let (status, theirs) = UnixStream::pair().context(doing)?;
    let first = match process::fork_into(spec.network == Network::None, cgroups.cradle()).context(doing)? {
        Fork::Child => inside::run(plan, theirs),
        Fork::Parent(first) => first,
    };
    // Its ends of the pipes are the command's alone, and nothing of the host's is kept busy from here.
    drop((plan, theirs));

    let said = Said { warnings: std::mem::take(&mut cgroups.warnings), ..Said::default() };
    let watched = watch(engine, &first, Some(status), said);
    let ended = first.wait().context(|| "waiting for the container's first process")?;
    let closed = root.close();
    drop(cgroups);
    drop(hold);
    let exit = watched?.exit(ended)?;
    closed.map(|()| exit)
}

/// What the first process said before it became the command.
#[derive(Default)]
pub(super) struct Said {
    warnings: Vec<String>,
    terminal: Option<OwnedFd>,
    refused: Option<Exit>,
    failed: Option<Failure>,
}

impl Said {
    pub(super) fn with_terminal(terminal: Option<OwnedFd>) -> Self {
        Said { terminal, ..Said::default() }
    }

    pub(super) fn exit(self, ended: Ended) -> Result<Exit> {
        match (self.failed, self.refused, ended) {
            (Some(failure), _, _) => Err(Error::from(failure)),
            (None, Some(exit), _) => Ok(exit),
            (None, None, Ended::Exited(code)) => Ok(Exit { code, signal: None, problem: None }),
            (None, None, Ended::Killed(signal)) => {
                Ok(Exit { code: 128 + signal, signal: Some(signal), problem: None })
            }
        }
    }
}

/// Until the first process has ended: tells the engine what it says, and it what the engine says.
pub(super) fn watch(
    engine: &UnixStream,
    first: &Forked,
    status: Option<UnixStream>,
    mut said: Said,
) -> Result<Said> {
    let doing = || "watching the container";
    // Closed by exec.
    let mut status = status;
    let mut engine = Some(engine);
    loop {
        let mut polled = vec![PollFd::new(&first.pidfd, PollFlags::IN)];
        let listens = engine.is_some();
        polled.extend(engine.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)));
        polled.extend(status.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        match rustix::event::poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            answer => answer.context(doing)?,
        };
        let mut ready = polled.iter().map(|one| !one.revents().is_empty());
        let ended = ready.next().unwrap_or(false);
        let ordered = listens && ready.next().unwrap_or(false);
        let spoke = ready.next().unwrap_or(false);

        // Before its end: what it said, it said while it lived.
        if let (true, Some(socket)) = (spoke, &status) {
            match wire::receive(socket).context(doing)? {
                Some((Inside::Warning(text), _)) => said.warnings.push(text),
                Some((Inside::Terminal, fds)) => said.terminal = fds.into_iter().next(),
                Some((Inside::Refused(exit), _)) => said.refused = Some(exit),
                Some((Inside::Failed(failure), _)) => said.failed = Some(failure),
                None => {
                    status = None;
                    if let (Some(engine), None, None) = (engine, &said.failed, &said.refused) {
                        announce(engine, first, &mut said);
                    }
                }
            }
            continue;
        }
        if ended {
            return Ok(said);
        }
        if let (true, Some(socket)) = (ordered, engine) {
            match wire::receive(socket).context(doing)? {
                Some((Down::Signal(signal), _)) => {
                    // A number that is no signal is the engine's mistake, not the container's.
                    let _refused = first.signal(signal);
                }
                None => {
                    engine = None;
                    first.signal(libc::SIGKILL).context(|| "killing a container whose engine is gone")?;
                }
            }
        }
    }
}

pub(super) fn announce(engine: &UnixStream, first: &Forked, said: &mut Said) {
    let pid = first.pid.as_raw_nonzero().get().unsigned_abs();
    let up = Up::Running { pid, warnings: std::mem::take(&mut said.warnings) };
    let beside = said.terminal.take();
    let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
    // When it is gone, its socket says so next.
    let _unheard = wire::send(engine, &up, &beside);
}
