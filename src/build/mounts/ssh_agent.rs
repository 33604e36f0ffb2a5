//! The ssh agents of a build: the caller's, or one of our own with the keys that were named.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::db::random_name;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};

/// What stands behind a name of `--ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Of one that runs.
    Socket(PathBuf),
    /// Files of private keys, without a passphrase.
    Keys(Vec<PathBuf>),
}

/// Dropped, those that were started end.
#[derive(Default)]
pub struct Agents {
    sockets: BTreeMap<String, PathBuf>,
    started: Vec<Started>,
}

impl Agents {
    pub fn start(engine: &Engine, given: &BTreeMap<String, Agent>) -> Result<Agents> {
        let mut agents = Agents::default();
        for (id, agent) in given {
            let socket = match agent {
                Agent::Socket(path) => path.clone(),
                Agent::Keys(keys) => {
                    let started = Started::new(engine, keys)
                        .context(|| format!("starting an ssh agent for `--ssh {id}`"))?;
                    let socket = started.socket.clone();
                    agents.started.push(started);
                    socket
                }
            };
            agents.sockets.insert(id.clone(), socket);
        }
        Ok(agents)
    }

    pub(super) fn socket(&self, id: &str) -> Option<&Path> {
        self.sockets.get(id).map(PathBuf::as_path)
    }
}

/// An `ssh-agent` that ends with us, however we end: a shell ends it when its standard input is closed.
struct Started {
    shell: Child,
    socket: PathBuf,
}

/// Says the socket stands; then waits for the end of input.
const UNTIL_CLOSED: &str = "echo ready; cat >/dev/null; kill $SSH_AGENT_PID";

impl Started {
    fn new(engine: &Engine, keys: &[PathBuf]) -> Result<Started> {
        let program = |name: &str| {
            engine.program(name).ok_or_else(|| {
                Error::not_found(format!("`{name}` is not on PATH"))
                    .hint("install openssh-client, or name the socket of an agent that runs")
            })
        };
        let (agent, add) = (program("ssh-agent")?, program("ssh-add")?);
        let dir = engine.run.join("ssh");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .context(|| format!("making {}", dir.display()))?;
        let socket = dir.join(format!("agent-{}", random_name()));
        let doing = || "running ssh-agent";
        let mut shell = command(&agent, engine.search_path());
        shell.arg("-a").arg(&socket).args(["/bin/sh", "-c", UNTIL_CLOSED]);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context(doing)?;
        let mut started = Started { shell, socket };
        let out = started.shell.stdout.take().expect("piped above");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).context(doing)?;
        if line.trim() != "ready" {
            return Err(Error::internal("ssh-agent ended at once"));
        }
        for key in keys {
            started.add(&add, engine.search_path(), key)?;
        }
        Ok(started)
    }

    /// By standard input: `ssh-add` refuses files that others may read, and would ask for a passphrase.
    fn add(&self, program: &Path, path: &OsStr, key: &Path) -> Result<()> {
        let doing = || format!("reading the ssh key {}", key.display());
        let bytes = fs::read(key).context(doing)?;
        let mut command = command(program, path);
        command.args(["-q", "-"]).env("SSH_AUTH_SOCK", &self.socket).env("SSH_ASKPASS_REQUIRE", "never");
        let mut adding = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context(doing)?;
        if let Some(mut input) = adding.stdin.take() {
            // One that does not want all of it says why by its status.
            let _unread = input.write_all(&bytes);
        }
        match adding.wait().context(doing)? {
            status if status.success() => Ok(()),
            _ => Err(Error::invalid(doing()).because(Error::invalid("ssh-add cannot use it")).hint(
                "it must be a private key without a passphrase; for others start an agent and name its socket",
            )),
        }
    }
}

/// In a session of its own there is no terminal to ask on.
fn command(program: &Path, path: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path).stderr(Stdio::null()).current_dir("/");
    command
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ended = self.shell.wait();
        let _gone = fs::remove_file(&self.socket);
    }
}
