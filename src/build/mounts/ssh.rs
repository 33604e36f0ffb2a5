//! `type=ssh`: a socket behind which an agent of the caller signs.
//!
//! The command does not get the agent's own socket: an agent answers its owner and root only, whoever the command runs as,
//! and it can be told to add or forget keys. What passes here is asking for the keys' names, and for signatures.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};

use super::super::stage::Stage;
use crate::build::key;
use crate::db::random_name;
use crate::error::{Context as _, Result};
use crate::plan;
use crate::runtime::{Bind, Spec};

pub(super) struct Ssh<'m> {
    plan: &'m plan::Ssh,
    agent: &'m Path,
}

impl<'m> Ssh<'m> {
    /// `None`: it was not given, and then it is not there.
    pub(super) fn of<'b: 'm>(stage: &Stage<'b>, plan: &'m plan::Ssh) -> Option<Self> {
        let agent = stage.inputs.run.agents.socket(&plan.id)?;
        Some(Ssh { plan, agent })
    }

    pub(super) fn key(&self) -> key::Mount<'m> {
        let plan::Ssh { id, target, mode, owner } = self.plan;
        key::Mount::Ssh { id, target, mode: *mode, owner: *owner }
    }

    pub(super) fn prepare(&self, stage: &Stage<'_>, spec: &mut Spec) -> Result<Socket> {
        let dir = stage.engine.run.join("ssh");
        let socket = Socket::open(&dir, self.agent, self.plan.mode, self.plan.owner)
            .context(|| format!("opening a way to the ssh agent `{}`", self.plan.id))?;
        spec.binds.push(Bind {
            source: socket.path.clone(),
            target: self.plan.target.clone(),
            read_only: false,
        });
        // The first one, unless the Dockerfile says otherwise.
        if !spec.env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK=")) {
            spec.env.push(format!("SSH_AUTH_SOCK={}", self.plan.target));
        }
        Ok(socket)
    }
}

/// A socket that is listened to. Dropped, it is gone.
pub(super) struct Socket {
    path: PathBuf,
    /// Closed, the listener ends.
    stop: Option<OwnedFd>,
    listener: Option<JoinHandle<()>>,
}

impl Socket {
    fn open(dir: &Path, agent: &Path, mode: u32, owner: (u32, u32)) -> Result<Socket> {
        let doing = || format!("making a socket in {}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context(doing)?;
        remove_the_dead(dir);
        let path = dir.join(random_name());
        let listener = UnixListener::bind(&path).context(doing)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context(doing)?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).context(doing)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(doing)?;
        let agent = agent.to_owned();
        let listener = std::thread::spawn(move || listen(&listener, &stopped, &agent));
        Ok(Socket { path, stop: Some(stop), listener: Some(listener) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
        drop(self.stop.take());
        if let Some(listener) = self.listener.take() {
            let _ended = listener.join();
        }
    }
}

/// Sockets that nobody listens to: those of processes that were killed.
fn remove_the_dead(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let refused = UnixStream::connect(entry.path())
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            let _gone = fs::remove_file(entry.path());
        }
    }
}

fn listen(listener: &UnixListener, stopped: &OwnedFd, agent: &Path) {
    loop {
        let mut polled = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !polled[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let Ok((client, _)) = listener.accept() else { continue };
        let agent = agent.to_owned();
        // Ends with its client, which ends with the container.
        std::thread::spawn(move || {
            if let Err(error) = forward(client, &agent) {
                tracing::debug!(%error, "a connection to an ssh agent ended");
            }
        });
    }
}

/// draft-ietf-sshm-ssh-agent, "Message numbers".
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// As OpenSSH's agent.
const LONGEST: usize = 256 * 1024;

/// Request by request.
fn forward(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(agent)?;
    while let Some(request) = frame(&mut client)? {
        match request.get(4) {
            Some(&REQUEST_IDENTITIES | &SIGN_REQUEST) => {
                agent.write_all(&request)?;
                let Some(answer) = frame(&mut agent)? else { return Ok(()) };
                client.write_all(&answer)?;
            }
            _ => client.write_all(&FAILURE)?,
        }
    }
    Ok(())
}

/// A message with its length; `None` at the end.
fn frame(from: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let count = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if count == 0 || count > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of an impossible length"));
    }
    let mut message = vec![0; 4 + count];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..])?;
    Ok(Some(message))
}
