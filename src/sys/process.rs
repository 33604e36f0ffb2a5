//! Processes: fork into namespaces, what a process may, exec.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// A child that was forked here.
pub struct Forked {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// What fork(2) comes back as.
pub enum Fork {
    Parent(Forked),
    Child,
}

/// The status of a child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed(i32),
}

/// A child in new namespaces (clone(2), CLONE_NEW*; mount, pid, ipc and uts always), born in a cgroup of version 2.
pub fn fork_into(network: bool, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if network {
        flags |= libc::CLONE_NEWNET;
    }
    fork_with(flags, cgroup)
}

/// Only for a process with one thread: the child goes on running Rust.
#[allow(unsafe_code, reason = "clone3(2)")]
fn fork_with(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    if rustix::fs::stat("/proc/self/task").is_ok_and(|stat| stat.st_nlink > 3) {
        return Err(io::Error::other("forking needs a process with one thread"));
    }
    // SAFETY: there is no other thread whose locks the child could inherit held.
    unsafe { clone(flags, cgroup) }
}

/// # Safety
///
/// Of a process with several threads the child may do no more than after fork(2) in C: system calls, and no memory.
#[allow(unsafe_code, reason = "clone3(2)")]
unsafe fn clone(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let bits = |flag: libc::c_int| u64::from(flag.cast_unsigned());
    // SAFETY: all zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = bits(flags) | bits(libc::CLONE_PIDFD);
    args.pidfd = (&raw mut pidfd).addr() as u64;
    args.exit_signal = bits(libc::SIGCHLD);
    if let Some(cgroup) = cgroup {
        // linux/sched.h, CLONE_INTO_CGROUP: past 32 bits.
        args.flags |= 0x2_0000_0000;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of this stack and all memory; args and its size belong together.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match answer {
        0 => Ok(Fork::Child),
        1.. => {
            let pid = i32::try_from(answer).ok().and_then(Pid::from_raw);
            // SAFETY: the kernel stored a new descriptor there, which nobody else knows.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent(Forked { pid: pid.expect("the kernel gives positive ids"), pidfd }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child does `work`, in a session of its own: it goes on to its end when this process is killed, or all of its group. It
/// has `kept` alone of the descriptors here. `work` must be system calls and nothing else: it may not even take memory, as another
/// thread may have been about to when the child was made (fork(2)). Where there can be no child this process does it.
pub fn survivor(kept: [BorrowedFd<'_>; 2], work: impl Fn() -> rustix::io::Result<()>) -> io::Result<()> {
    // SAFETY: what the child does are system calls.
    #[allow(unsafe_code, reason = "clone3(2)")]
    let child = match unsafe { clone(0, None) } {
        Ok(Fork::Parent(child)) => child,
        Ok(Fork::Child) => end_at_once(go_on_alone(kept).and_then(|()| work())),
        // As many processes, or as much memory, as there may be.
        Err(error) => {
            tracing::debug!(%error, "not in a child");
            return Ok(work()?);
        }
    };
    match child.wait()? {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(number) => Err(io::Error::from_raw_os_error(number)),
        Ended::Killed(signal) => {
            Err(io::Error::other(format!("the process that did it was ended by signal {signal}")))
        }
    }
}

fn go_on_alone(kept: [BorrowedFd<'_>; 2]) -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    let [one, other] = kept.map(|fd| fd.as_raw_fd());
    let (low, high) = (one.min(other), one.max(other));
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first <= last {
            close_range(first, last, 0)?;
        }
    }
    Ok(())
}

/// The exit status is the error's number.
#[allow(unsafe_code, reason = "_exit(2)")]
fn end_at_once(outcome: rustix::io::Result<()>) -> ! {
    // SAFETY: nothing of this copy of the process is used any more.
    unsafe { libc::_exit(outcome.map_or_else(Errno::raw_os_error, |()| 0)) }
}

impl Forked {
    /// A child that another process forked and left to this one (a subreaper). `pid` in decimal.
    pub fn adopt(pid: &str) -> io::Result<Self> {
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a process id"))?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        Ok(Forked { pid, pidfd })
    }

    /// Blocks until it has ended, and reaps it.
    pub fn wait(&self) -> io::Result<Ended> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    return Ok(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Ended::Exited(code),
                        (None, signal) => Ended::Killed(signal.unwrap_or(libc::SIGKILL)),
                    });
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Having ended is `Ok`.
    #[allow(unsafe_code, reason = "rustix's Signal has no real-time signals")]
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: no pointers but a null siginfo.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match answer {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }
}

/// Closes all descriptors from `first` on; with `on_exec` only when the process execs (close_range(2)).
pub fn close_from(first: RawFd, on_exec: bool) -> io::Result<()> {
    Ok(close_range(first, RawFd::MAX, if on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 })?)
}

#[allow(unsafe_code, reason = "close_range(2)")]
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> rustix::io::Result<()> {
    // SAFETY: callers close at the very start, when they own no descriptor yet, or on exec, or in a child that ends without
    // dropping a value.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if answer == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// Makes `fd` the process's descriptor `number`, which stays open over exec.
#[allow(unsafe_code, reason = "dup2(2) onto a descriptor by number")]
pub fn install(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        return Ok(());
    }
    // SAFETY: numbers 0 to 2, which no OwnedFd of ours stands for.
    let answer = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every signal with its default action and none blocked: what a program expects to find. Rust ignores SIGPIPE.
#[allow(unsafe_code, reason = "sigaction(2), sigprocmask(2)")]
pub fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is valid for each; SIGKILL, SIGSTOP and those of the C library are refused, which is right.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is made valid by sigemptyset.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Every system call from now on goes through the filter (seccomp(2)). Without no_new_privs it takes CAP_SYS_ADMIN.
#[allow(unsafe_code, reason = "seccomp(2)")]
pub fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: length and pointer belong together; the kernel copies it and writes nothing.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes a user, with these groups and no others.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// No program that is executed from here on gets any other capability: `bits` by capability number.
#[allow(unsafe_code, reason = "prctl(2) by number: the kernel may know more capabilities than rustix")]
pub fn bound_capabilities(bits: u64) -> io::Result<()> {
    for number in 0..64u32 {
        if bits & (1 << number) != 0 {
            continue;
        }
        // SAFETY: no pointers.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if answer != 0 {
            let error = io::Error::last_os_error();
            // EINVAL: past the last one that this kernel knows.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// By capability number: what this process can hand on.
pub fn permitted_capabilities() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Effective and permitted become `bits`, the rest empty.
pub fn set_capabilities(bits: u64) -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    let ours = rustix::thread::capabilities(None)?.permitted & CapabilitySet::from_bits_retain(bits);
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: ours, permitted: ours, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// A session keyring of its own: keys of whoever started this process are not handed on (keyctl(2)). A kernel without
/// keys is `Ok`.
#[allow(unsafe_code, reason = "keyctl(2)")]
pub fn leave_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let answer = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if answer >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // EPERM and EINVAL: in a container whose own filter knows nothing of keys.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => Ok(()),
        error => Err(error),
    }
}

/// The controlling terminal of this session.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Becomes another program; comes back only with an error.
#[allow(unsafe_code, reason = "execve(2)")]
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> Result<Infallible, io::Error> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists end with a null pointer, and all strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}
