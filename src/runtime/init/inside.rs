//! What a container's first process does before it becomes the command.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};

use super::cgroup::{Cgroups, View};
use super::devices::{self, Devices};
use super::root::Volume;
use crate::error::{Context, Error, Result};
use crate::runtime::user::User;
use crate::runtime::wire::{self, Failure};
use crate::runtime::{Capability, Exit, File, Network, Rlimit, Spec};
use crate::sys::dir::{open_beneath, open_in_root};
use crate::sys::mount::{self, Attributes, Propagation, Reach};
use crate::sys::{namespace, process};

/// All it needs, taken while the host could be seen.
pub(super) struct Plan<'a> {
    pub(super) spec: &'a Spec,
    pub(super) user: User,
    pub(super) root: OwnedFd,
    pub(super) cgroups: &'a Cgroups,
    pub(super) doors: Vec<OwnedFd>,
    pub(super) volumes: Vec<Volume>,
    pub(super) filter: Option<Vec<libc::sock_filter>>,
    pub(super) stdio: [Option<OwnedFd>; 3],
}

/// What it tells the outer half. The end of the stream is the command's beginning.
#[derive(Serialize, Deserialize)]
pub(super) enum Inside {
    Warning(String),
    /// The master is beside it.
    Terminal,
    /// There is no such command, or it cannot be executed.
    Refused(Exit),
    Failed(Failure),
}

/// Becomes the command.
pub(super) fn run(plan: Plan<'_>, outer: UnixStream) -> ! {
    let body = std::panic::AssertUnwindSafe(|| become_command(plan, &outer));
    let last = match std::panic::catch_unwind(body) {
        Ok(Ok(refused)) => Inside::Refused(refused),
        Ok(Err(error)) => Inside::Failed(Failure::from(&error)),
        Err(_) => Inside::Failed(Failure::from(&Error::internal("a panic in the container's first process"))),
    };
    // An outer half that is gone needs no answer.
    let _unheard = wire::send(&outer, &last, &[]);
    std::process::exit(i32::from(!matches!(last, Inside::Refused(_))));
}

fn become_command(plan: Plan<'_>, outer: &UnixStream) -> Result<Exit> {
    let Plan { spec, user, root, cgroups, doors, volumes, filter, stdio } = plan;
    // While the host's /dev can be seen.
    let more_devices = if spec.reaches_host { devices::loop_devices() } else { Vec::new() };
    mount::set_propagation("/".as_ref(), Propagation::Slave, Reach::Tree)?;
    for door in &doors {
        rustix::io::write(door, b"0").context(|| "entering a cgroup")?;
    }
    namespace::unshare_cgroups().context(|| "entering a cgroup namespace")?;
    if spec.network == Network::None {
        namespace::raise_loopback().context(|| "raising the loopback interface")?;
    }
    rustix::system::sethostname(spec.hostname.as_bytes()).context(|| "setting the host name")?;

    let files = files(&spec.files)?;
    namespace::pivot(root.as_fd()).context(|| "changing to the container's root")?;
    let root = devices::root()?;
    let proc = mount_on(root.as_fd(), "proc", mount::proc()?.as_fd())?;
    let dev = directory(root.as_fd(), "dev")?;
    let devices = devices::mount(dev.as_fd(), spec.shm_size, &more_devices)?;
    mount_on(root.as_fd(), "sys", mount::sysfs(!spec.reaches_host)?.as_fd())?;
    show_cgroups(root.as_fd(), &cgroups.view()?).context(|| "mounting /sys/fs/cgroup")?;
    for volume in &volumes {
        attach(root.as_fd(), volume.mount.as_fd(), &volume.target, volume.directory)?;
    }
    for (file, target) in &files {
        attach(root.as_fd(), file.as_fd(), target, false)?;
    }
    let terminal = match spec.terminal {
        Some(size) => Some(devices.terminal(size, user.uid)?),
        None => None,
    };
    confine_paths(root.as_fd(), proc.as_fd(), &devices, spec)?;

    for rlimit in &spec.rlimits {
        if let Some(warning) = limit(rlimit)? {
            wire::send(outer, &Inside::Warning(warning), &[]).context(|| "warning")?;
        }
    }
    change_directory(&spec.cwd)?;
    rustix::process::setsid().context(|| "opening a session")?;
    process::leave_keyring().context(|| "leaving the host's keyring")?;
    if let Some((master, slave)) = &terminal {
        wire::send(outer, &Inside::Terminal, &[master.as_fd()]).context(|| "handing out the terminal")?;
        process::control_terminal(slave.as_fd()).context(|| "taking the terminal")?;
    }
    let slave = terminal.as_ref().map(|(_, slave)| slave.as_fd());
    install_stdio(&stdio, slave, &devices, user.uid)?;

    let program = Program::of(spec, &user)?;
    confine_process(spec, &user, filter.as_deref(), cgroups.devices_limited)?;
    process::default_signals();
    // Cleared by the change of user, so not before.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context(|| "binding the container to its outer half")?;
    if is_closed(outer.as_fd()) {
        return Err(Error::internal("the outer half of the container died"));
    }
    process::close_from(3, true).context(|| "closing descriptors")?;
    Ok(program.execute())
}

/// The made files, each a mount of one file that has no other name.
fn files(files: &[File]) -> Result<Vec<(OwnedFd, &str)>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let doing = || "making the container's files";
    let place = mount::tmpfs(None, 0o755, Attributes { nosuid: true, nodev: true, ..Attributes::NONE })?;
    // Only what is attached can be taken again; here, over what is about to go away.
    mount::attach_at(place.as_fd(), CWD, "/proc".as_ref()).context(doing)?;
    let mut mounts = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let name = number.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place, &name, flags, Mode::from_raw_mode(0o644)).context(doing)?;
        write(fd, file).context(doing)?;
        let mount = mount::clone_tree(place.as_fd(), name.as_ref(), Reach::One).context(doing)?;
        if file.read_only {
            mount::restrict(mount.as_fd(), Attributes::READ_ONLY, Reach::One).context(doing)?;
        }
        mounts.push((mount, file.target.as_str()));
    }
    Ok(mounts)
}

/// What a new file is to hold, and whose it is.
pub(super) fn write(fd: OwnedFd, file: &File) -> io::Result<()> {
    let (uid, gid) = file.owner;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(file.mode))?;
    io::Write::write_all(&mut std::fs::File::from(fd), &file.content)
}

/// A directory of the image, which must be one: not a link to some other place (CVE-2019-19921).
fn directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    open_beneath(root, name.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)
        .context(|| format!("looking for the directory /{name} in the container"))
        .map_err(|error| error.hint(format!("the image must have a directory /{name} or nothing there")))
}

fn mount_on(root: BorrowedFd<'_>, name: &str, what: BorrowedFd<'_>) -> Result<OwnedFd> {
    let target = directory(root, name)?;
    mount::attach_at(what, target.as_fd(), "".as_ref()).context(|| format!("mounting /{name}"))?;
    what.try_clone_to_owned().context(|| format!("mounting /{name}"))
}

fn show_cgroups(root: BorrowedFd<'_>, view: &View) -> io::Result<()> {
    let place = match view {
        View::Nothing => return Ok(()),
        _ => open_beneath(root, b"sys/fs/cgroup", OFlags::PATH | OFlags::DIRECTORY)?,
    };
    match view {
        View::Nothing => Ok(()),
        View::Whole(mount) => mount::attach_at(mount.as_fd(), place.as_fd(), "".as_ref()),
        View::Each(mounts) => {
            let names = mount::tmpfs(Some(0), 0o755, Attributes::INERT).map_err(io::Error::other)?;
            for (name, _) in mounts {
                rustix::fs::mkdirat(&names, *name, Mode::from_raw_mode(0o755))?;
            }
            mount::attach_at(names.as_fd(), place.as_fd(), "".as_ref())?;
            for (name, mount) in mounts {
                mount::attach_at(mount.as_fd(), names.as_fd(), name.as_ref())?;
            }
            mount::restrict(names.as_fd(), Attributes::READ_ONLY, Reach::One)
        }
    }
}

/// linux/magic.h
const PROC_SUPER_MAGIC: u32 = 0x9fa0;

/// On what the path is in the container, links followed. Mount points inside other mounts are made here.
fn attach(root: BorrowedFd<'_>, what: BorrowedFd<'_>, target: &str, is_directory: bool) -> Result<()> {
    let doing = || format!("mounting something on {target} in the container");
    let found = match open_in_root(root, target.as_bytes(), OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(target, is_directory).context(doing)?;
            open_in_root(root, target.as_bytes(), OFlags::PATH).context(doing)?
        }
        found => found.context(doing)?,
    };
    if devices::is_of_kind(found.as_fd(), PROC_SUPER_MAGIC) {
        return Err(Error::invalid(format!("mounting something on {target}, which is inside /proc")));
    }
    mount::attach_at(what, found.as_fd(), "".as_ref()).context(doing)
}

/// By path: the container's root is this process's already.
fn make(target: &str, directory: bool) -> io::Result<()> {
    let path = std::path::Path::new(target);
    if directory {
        return std::fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::File::create_new(path).map(drop)
}

/// Hides some of /proc and /sys, and keeps more of it from being written.
fn confine_paths(root: BorrowedFd<'_>, proc: BorrowedFd<'_>, devices: &Devices, spec: &Spec) -> Result<()> {
    let open = |path: &str| {
        // Below our own /proc there are no links to be led astray by, whatever the image holds.
        match path.strip_prefix("/proc/") {
            Some(rest) => open_beneath(proc, rest.as_bytes(), OFlags::PATH),
            None => open_in_root(root, path.as_bytes(), OFlags::PATH),
        }
    };
    let mut empty: Option<OwnedFd> = None;
    for path in &spec.masked_paths {
        let doing = || format!("masking {path}");
        let target = match open(path) {
            Err(error) if is_absent(&error) => continue,
            target => target.context(doing)?,
        };
        let stat = rustix::fs::fstat(&target).context(doing)?;
        let mask = if FileType::from_raw_mode(stat.st_mode).is_dir() {
            match &empty {
                Some(attached) => {
                    mount::clone_tree(attached.as_fd(), "".as_ref(), Reach::One).context(doing)?
                }
                None => mount::tmpfs(Some(0), 0o755, Attributes { read_only: true, ..Attributes::INERT })?,
            }
        } else {
            devices.null()?
        };
        mount::attach_at(mask.as_fd(), target.as_fd(), "".as_ref()).context(doing)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            empty = Some(mask);
        }
    }
    for path in &spec.read_only_paths {
        let doing = || format!("making {path} read-only");
        let target = match open(path) {
            Err(error) if is_absent(&error) => continue,
            target => target.context(doing)?,
        };
        let view = mount::clone_tree(target.as_fd(), "".as_ref(), Reach::Tree).context(doing)?;
        mount::restrict(view.as_fd(), Attributes::READ_ONLY, Reach::Tree).context(doing)?;
        mount::attach_at(view.as_fd(), target.as_fd(), "".as_ref()).context(doing)?;
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// A warning when it was clamped.
fn limit(rlimit: &Rlimit) -> Result<Option<String>> {
    use rustix::process::Resource;
    let resource = match rlimit.name.as_str() {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        name => return Err(Error::invalid(format!("invalid ulimit type: {name}"))),
    };
    // u64::MAX is what getrlimit(2) calls infinity.
    let finite = |value| (value != u64::MAX).then_some(value);
    let wanted = rustix::process::Rlimit { current: finite(rlimit.soft), maximum: finite(rlimit.hard) };
    match rustix::process::setrlimit(resource, wanted) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::PERM) => {
            let most = rustix::process::getrlimit(resource).maximum;
            let most = most.unwrap_or(u64::MAX);
            let clamped = rustix::process::Rlimit {
                current: finite(rlimit.soft.min(most)),
                maximum: finite(rlimit.hard.min(most)),
            };
            rustix::process::setrlimit(resource, clamped)
                .context(|| format!("setting the limit {}", rlimit.name))?;
            Ok(Some(format!("the limit {} is {most} here, less than was asked for", rlimit.name)))
        }
        Err(error) => Err(error).context(|| format!("setting the limit {}", rlimit.name)),
    }
}

fn change_directory(path: &str) -> Result<()> {
    let doing = || format!("changing to the directory {path} in the container");
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{path}' is invalid, it needs to be an absolute path"
        )));
    }
    if std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        std::fs::create_dir_all(path).context(doing)?;
    }
    rustix::process::chdir(path).context(doing)?;
    // A directory that no path leads to is one of the host's (CVE-2024-21626).
    let here = rustix::process::getcwd(Vec::new()).context(doing)?;
    if !here.to_bytes().starts_with(b"/") {
        return Err(Error::invalid(format!("the working directory {path} is outside of the container")));
    }
    Ok(())
}

fn install_stdio(
    stdio: &[Option<OwnedFd>; 3],
    terminal: Option<BorrowedFd<'_>>,
    devices: &Devices,
    uid: u32,
) -> Result<()> {
    let doing = || "connecting standard input and output";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let null = rustix::fs::openat(&devices.dev, "null", flags, Mode::empty()).context(doing)?;
    for (number, given) in (0..).zip(stdio) {
        let fd = terminal.or_else(|| given.as_ref().map(AsFd::as_fd)).unwrap_or(null.as_fd());
        // So that the user may open /dev/stdout again, as a path.
        let is_pipe = rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo());
        if is_pipe {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None).context(doing)?;
        }
        process::install(fd, number).context(doing)?;
    }
    Ok(())
}

/// From here on there is no way back.
fn confine_process(
    spec: &Spec,
    user: &User,
    filter: Option<&[libc::sock_filter]>,
    devices_limited: bool,
) -> Result<()> {
    // Whoever can make a node of the host's disk could read it, where no cgroup forbids that.
    let kept = spec.capabilities.iter().filter(|one| devices_limited || **one != Capability::MKNOD);
    let bits = kept.fold(0, |bits, capability| bits | 1u64 << capability.0);
    process::bound_capabilities(bits).context(|| "dropping capabilities")?;
    if spec.no_new_privileges {
        rustix::thread::set_no_new_privs(true).context(|| "forbidding new privileges")?;
    }
    if let Some(filter) = filter {
        process::filter_calls(filter).context(|| "installing the system call filter")?;
    }
    process::become_user(user.uid, user.gid, &user.groups).context(|| "changing the user")?;
    process::set_capabilities(bits).context(|| "dropping capabilities")
}

fn is_closed(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// The command, as execve(2) takes it.
struct Program {
    name: String,
    /// Where it may be, in order.
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn of(spec: &Spec, user: &User) -> Result<Self> {
        let c = |text: &str| {
            CString::new(text).map_err(|cause| Error::invalid("a NUL byte in the command").because(cause))
        };
        let name = spec.args.first().ok_or_else(|| {
            Error::invalid("no command specified").hint("name one, or give the image a CMD or ENTRYPOINT")
        })?;
        let mut env: Vec<CString> = spec.env.iter().map(|pair| c(pair)).collect::<Result<_>>()?;
        if !spec.env.iter().any(|pair| pair.starts_with("HOME=")) {
            env.push(c(&format!("HOME={}", user.home))?);
        }
        let candidates = if name.contains('/') {
            vec![c(name)?]
        } else {
            let path = spec.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or("");
            path.split(':')
                .filter(|dir| !dir.is_empty())
                .map(|dir| c(&format!("{dir}/{name}")))
                .collect::<Result<_>>()?
        };
        let args = spec.args.iter().map(|arg| c(arg)).collect::<Result<_>>()?;
        Ok(Program { name: name.clone(), candidates, args, env })
    }

    /// Comes back when it cannot. Words and codes are those that Docker's users know.
    fn execute(self) -> Exit {
        let is_path = self.name.contains('/');
        let mut worst: Option<(i32, String)> = None;
        for candidate in &self.candidates {
            let path = OsStr::from_bytes(candidate.to_bytes());
            // A directory can be "executable"; execve(2) calls it EACCES.
            let found = std::fs::metadata(path);
            if found.as_ref().is_ok_and(|meta| meta.is_dir()) && !is_path {
                continue;
            }
            let error = match process::exec(candidate, &self.args, &self.env) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let refusal = match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if found.is_err() => {
                    if is_path {
                        worst = Some((
                            127,
                            format!("exec: {:?}: stat {}: no such file or directory", self.name, self.name),
                        ));
                    }
                    continue;
                }
                Some(libc::ENOENT) => (
                    127,
                    format!(
                        "exec {}: no such file or directory (its interpreter or loader is missing)",
                        path.display()
                    ),
                ),
                Some(libc::EACCES) if found.is_ok_and(|meta| meta.is_dir()) => {
                    (126, format!("exec: {:?}: is a directory", self.name))
                }
                Some(libc::EACCES) => (126, format!("exec: {:?}: permission denied", self.name)),
                Some(libc::ENOEXEC) => (126, format!("exec {}: exec format error", path.display())),
                _ => (126, format!("exec {}: {error}", path.display())),
            };
            // As in execvp(3): a file without permission does not end the search, another refusal does.
            let goes_on = refusal.0 == 126 && error.raw_os_error() == Some(libc::EACCES);
            worst = Some(refusal);
            if !goes_on {
                break;
            }
        }
        let (code, problem) = worst
            .unwrap_or_else(|| (127, format!("exec: {:?}: executable file not found in $PATH", self.name)));
        Exit { code, signal: None, problem: Some(problem) }
    }
}
