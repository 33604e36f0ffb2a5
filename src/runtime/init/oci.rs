//! The outer half of a container that another OCI runtime runs.
//!
//! The runtime is a command that comes and goes: `create` and `start` leave the container's first process to its nearest
//! subreaper, which is this process. The root is mounted in a mount namespace of this process, so that the host never
//! sees it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Inherit};

use rustix::fs::{Mode, OFlags};

use super::config::{self, Source};
use super::embedded::{Said, announce, watch};
use super::inside;
use super::root::{self, Root};
use crate::error::{Context, Error, Result};
use crate::runtime::{Exit, Spec, Stdio, user};
use crate::sys::mount::{self, Attributes};
use crate::sys::namespace;
use crate::sys::process::Forked;

pub(super) fn carry_out(
    engine: &UnixStream,
    spec: &Spec,
    stdio: Stdio,
    program: &Path,
    run: &Path,
) -> Result<Exit> {
    let doing = || format!("running a container with {}", program.display());
    namespace::unshare_mounts().context(doing)?;
    rustix::process::set_child_subreaper(rustix::process::getpid().into()).context(doing)?;
    if is_crun(program) {
        hide_unified_cgroups()?;
    }

    let Stdio { stdin, stdout, stderr, hold } = stdio;
    let mut root = Root::mount(spec)?;
    let user = user::resolve(root.as_fd(), &spec.user, &spec.groups)?;
    let volumes = root::volumes(root.as_fd(), spec)?;
    root.prepare(&root::mount_points(spec, &volumes))?;

    let bundle = Bundle::new(run, spec).context(doing)?;
    let mut sources = Vec::new();
    for volume in &volumes {
        let path = bundle.place(sources.len(), volume.directory)?;
        mount::attach_at(volume.mount.as_fd(), rustix::fs::CWD, &path).context(doing)?;
        sources.push(Source { path, target: volume.target.clone(), read_only: volume.read_only });
    }
    let files = bundle.files()?;
    for (number, file) in spec.files.iter().enumerate() {
        let name = number.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&files, &name, flags, Mode::from_raw_mode(0o600)).context(doing)?;
        inside::write(fd, file).context(doing)?;
        let path = bundle.path.join("files").join(name);
        sources.push(Source { path, target: file.target.clone(), read_only: file.read_only });
    }
    mount::attach_at(root.as_fd(), rustix::fs::CWD, &bundle.rootfs()).context(doing)?;
    let config = config::config(spec, &user, &bundle.rootfs(), &sources);
    fs::write(bundle.path.join("config.json"), config.to_string()).context(doing)?;

    let runtime = Client { program, bundle: &bundle, id: &spec.id };
    let ended = match runtime.create(spec, [stdin, stdout, stderr])? {
        Created::Refused(exit) => Ok(exit),
        Created::Ready { first, terminal } => {
            let outcome = runtime.start().and_then(|()| {
                announce(engine, &first, &mut Said::with_terminal(terminal));
                watch(engine, &first, None, Said::default())
            });
            if outcome.is_err() {
                let _gone = first.signal(libc::SIGKILL);
            }
            let ended = first.wait().context(doing)?;
            outcome.and_then(|said| said.exit(ended))
        }
    };
    runtime.delete();
    bundle.detach(volumes.len());
    let closed = root.close();
    drop(hold);
    let exit = ended?;
    closed.map(|()| exit)
}

/// crun gives up when the second hierarchy of a hybrid layout has a controller, whatever it is asked to do.
fn hide_unified_cgroups() -> Result<()> {
    mount::detach("/sys/fs/cgroup/unified".as_ref())
}

fn is_crun(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "crun")
}

/// The directory that a runtime is given. Dropped, it is gone.
struct Bundle {
    path: PathBuf,
    state: PathBuf,
}

impl Bundle {
    fn new(run: &Path, spec: &Spec) -> io::Result<Self> {
        fs::create_dir_all(run.join("bundles"))?;
        // Without links: runc insists on it.
        let run = run.canonicalize()?;
        let path = run.join("bundles").join(&spec.id);
        // What a killed one may have left.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The environment is written there.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        fs::create_dir(path.join("rootfs"))?;
        Ok(Bundle { path, state: run.join("oci") })
    }

    fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// In memory, and in this mount namespace alone: some are secrets.
    fn files(&self) -> Result<OwnedFd> {
        let path = self.path.join("files");
        fs::create_dir(&path).context(|| format!("making {}", path.display()))?;
        let files = mount::tmpfs(None, 0o700, Attributes { nosuid: true, nodev: true, ..Attributes::NONE })?;
        mount::attach_at(files.as_fd(), rustix::fs::CWD, &path)
            .context(|| format!("mounting {}", path.display()))?;
        Ok(files)
    }

    fn source(&self, number: usize) -> PathBuf {
        self.path.join(format!("source-{number}"))
    }

    fn place(&self, number: usize, directory: bool) -> Result<PathBuf> {
        let path = self.source(number);
        let made = if directory { fs::create_dir(&path) } else { fs::write(&path, "") };
        made.context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// So that nothing is removed but the bundle itself.
    fn detach(&self, sources: usize) {
        let own = [self.path.join("files"), self.rootfs()];
        for path in (0..sources).map(|number| self.source(number)).chain(own) {
            if let Err(error) = mount::detach(&path) {
                tracing::warn!(%error, "a mount of a bundle stays");
            }
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A directory that something is mounted on refuses to go, and that is as it should be.
        let _kept = fs::remove_dir(self.rootfs());
        if !self.rootfs().exists() {
            let _kept = fs::remove_dir_all(&self.path);
        }
    }
}

enum Created {
    Ready { first: Forked, terminal: Option<OwnedFd> },
    Refused(Exit),
}

struct Client<'a> {
    program: &'a Path,
    bundle: &'a Bundle,
    id: &'a str,
}

impl Client<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--root").arg(&self.bundle.state);
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        command.stdin(Inherit::null()).stdout(Inherit::null()).stderr(Inherit::null());
        command.env("XDG_RUNTIME_DIR", &self.bundle.state);
        command
    }

    fn log(&self) -> PathBuf {
        self.bundle.path.join("log")
    }

    fn create(&self, spec: &Spec, stdio: [Option<OwnedFd>; 3]) -> Result<Created> {
        let doing = || format!("creating a container with {}", self.program.display());
        let pid_file = self.bundle.path.join("pid");
        let console = self.bundle.path.join("tty");
        let mut command = self.command();
        command.arg("create").arg("--bundle").arg(&self.bundle.path).arg("--pid-file").arg(&pid_file);
        let listener = match spec.terminal {
            Some(_) => {
                command.arg("--console-socket").arg(&console);
                Some(UnixListener::bind(&console).context(doing)?)
            }
            None => {
                let [stdin, stdout, stderr] = stdio.map(|fd| fd.map_or_else(Inherit::null, Inherit::from));
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
        };
        let status = command.arg(self.id).status().context(doing)?;
        // It has the container's ends of the pipes.
        drop(command);
        if !status.success() {
            return match self.refusal(spec) {
                Some(exit) => Ok(Created::Refused(exit)),
                None => Err(self.failure(doing())),
            };
        }
        let pid = fs::read_to_string(&pid_file).context(doing)?;
        let first = Forked::adopt(pid.trim()).context(doing)?;
        let terminal = match listener {
            Some(listener) => Some(receive_terminal(&listener).context(doing)?),
            None => None,
        };
        Ok(Created::Ready { first, terminal })
    }

    fn start(&self) -> Result<()> {
        let doing = || format!("starting a container with {}", self.program.display());
        match self.command().arg("start").arg(self.id).status().context(doing)? {
            status if status.success() => Ok(()),
            _ => Err(self.failure(doing())),
        }
    }

    /// Takes its cgroups away, too.
    fn delete(&self) {
        let done = self.command().args(["delete", "--force"]).arg(self.id).status();
        tracing::debug!(?done, "deleting a container");
    }

    fn complaint(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let last = log.lines().rev().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["level"] == "error").then(|| line["msg"].as_str().unwrap_or_default().to_owned())
        });
        last.unwrap_or_else(|| "it does not say why".into())
    }

    fn failure(&self, doing: String) -> Error {
        Error::internal(doing).because(Error::internal(self.complaint()))
    }

    /// When it was the command's fault: what Docker's users know, from what the runtimes say.
    fn refusal(&self, spec: &Spec) -> Option<Exit> {
        let complaint = self.complaint();
        let lower = complaint.to_ascii_lowercase();
        let name = spec.args.first()?;
        let about_command =
            ["exec: ", "exec `", "executable", "find `"].iter().any(|word| lower.contains(word));
        if !about_command {
            return None;
        }
        let refused = |code, problem| Some(Exit { code, signal: None, problem: Some(problem) });
        if lower.contains("not found in $path") || (lower.contains("not found") && !name.contains('/')) {
            return refused(127, format!("exec: {name:?}: executable file not found in $PATH"));
        }
        if lower.contains("no such file") {
            return refused(127, format!("exec: {name:?}: stat {name}: no such file or directory"));
        }
        if lower.contains("permission denied") {
            return refused(126, format!("exec: {name:?}: permission denied"));
        }
        refused(126, complaint)
    }
}

/// A runtime sends the master of the terminal that it made, with a name as payload.
fn receive_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let (socket, _) = listener.accept()?;
    let mut payload = [0; 256];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [io::IoSliceMut::new(&mut payload)];
    rustix::net::recvmsg(&socket, &mut iov, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(mut rights) = message
            && let Some(master) = rights.next()
        {
            return Ok(master);
        }
    }
    Err(io::Error::other("the runtime sent no terminal"))
}
