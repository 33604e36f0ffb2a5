//! A command that is killed, or stands still while something else is done, before its n-th visible step: the kernel stops it (ptrace(2)) at each system call, and those
//! that others can see the effect of are counted, whichever of its threads makes them. Processes that it starts are let go.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use libc::{c_int, c_long, pid_t};

/// How it ended.
pub(crate) struct Ran {
    /// Up to its end, or to the one before which it died.
    pub(crate) steps: usize,
    /// The step before which it died or stood still; `None`: it did not come so far.
    pub(crate) before: Option<String>,
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

/// Runs it; kills it before this step, if it comes to it.
pub(crate) fn run(command: Command, die_before: Option<usize>, dir: &Path) -> Ran {
    follow(command, die_before, Then::Die, dir)
}

/// Runs it; before this step it stands still until `meanwhile` returns.
pub(crate) fn run_beside(command: Command, before: usize, dir: &Path, meanwhile: &mut dyn FnMut()) -> Ran {
    follow(command, Some(before), Then::Wait(meanwhile), dir)
}

enum Then<'t> {
    Die,
    Wait(&'t mut dyn FnMut()),
}

fn follow(mut command: Command, before: Option<usize>, then: Then<'_>, dir: &Path) -> Ran {
    let log = dir.join("said");
    let said = File::create(&log).unwrap();
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    trace_me(&mut command);
    // Waited for below.
    let process = pid_t::try_from(command.spawn().unwrap().id()).unwrap();
    let mut traced = Traced { process, threads: HashSet::new(), steps: 0 };
    let (before, code) = traced.follow(before, then);
    let said = fs::read_to_string(&log).unwrap();
    Ran { steps: traced.steps, before, code, said }
}

struct Traced {
    process: pid_t,
    /// Those that have been seen.
    threads: HashSet<pid_t>,
    steps: usize,
}

impl Traced {
    fn follow(&mut self, before: Option<usize>, mut then: Then<'_>) -> (Option<String>, Option<i32>) {
        let mut came_to = None;
        loop {
            let (thread, status) = wait();
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                if thread == self.process {
                    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                    return (came_to, code);
                }
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            if self.threads.insert(thread) {
                if thread == self.process {
                    let options =
                        libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
                    ptrace(libc::PTRACE_SETOPTIONS, thread, c_long::from(options));
                } else if !self.is_ours(thread) {
                    self.threads.remove(&thread);
                    ptrace(libc::PTRACE_DETACH, thread, 0);
                    continue;
                }
                // What it stopped with is the tracing's.
                ptrace(libc::PTRACE_SYSCALL, thread, 0);
                continue;
            }
            let mut deliver = 0;
            if signal == libc::SIGTRAP | 0x80 {
                if let Some(step) = self.visible_step(thread) {
                    self.steps += 1;
                    if Some(self.steps) == before {
                        came_to = Some(step);
                        match &mut then {
                            Then::Die => {
                                kill(self.process);
                                continue;
                            }
                            Then::Wait(meanwhile) => meanwhile(),
                        }
                    }
                }
            } else if signal != libc::SIGTRAP {
                deliver = signal;
            }
            ptrace(libc::PTRACE_SYSCALL, thread, c_long::from(deliver));
        }
    }

    /// A thread, and no process of its own.
    fn is_ours(&self, thread: pid_t) -> bool {
        Path::new(&format!("/proc/{}/task/{thread}", self.process)).exists()
    }

    /// What it is about to do, if others can see it.
    fn visible_step(&self, thread: pid_t) -> Option<String> {
        let (number, arguments) = entered(thread)?;
        let descriptor = |at: usize| {
            let link = format!("/proc/{}/fd/{}", self.process, arguments[at]);
            fs::read_link(link).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let file = |name: &str| {
            let path = descriptor(0);
            let seen = path.starts_with('/') && !path.starts_with("/dev/") && !path.ends_with("/said");
            seen.then(|| format!("{name} {path}"))
        };
        let named = |name: &str| Some(name.to_owned());
        match number {
            libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => named("rename"),
            libc::SYS_link | libc::SYS_linkat => named("link"),
            libc::SYS_unlink | libc::SYS_unlinkat | libc::SYS_rmdir => named("unlink"),
            libc::SYS_mkdir | libc::SYS_mkdirat => named("mkdir"),
            libc::SYS_symlink | libc::SYS_symlinkat | libc::SYS_mknod | libc::SYS_mknodat => named("make"),
            libc::SYS_openat if arguments[2] & libc::O_CREAT as u64 != 0 => named("create"),
            libc::SYS_open if arguments[1] & libc::O_CREAT as u64 != 0 => named("create"),
            libc::SYS_mount | libc::SYS_umount2 | libc::SYS_move_mount => named("mount"),
            libc::SYS_fsetxattr | libc::SYS_lsetxattr | libc::SYS_setxattr => named("attribute"),
            libc::SYS_wait4 | libc::SYS_waitid => named("wait for a program"),
            // btrfs' and those that clone.
            libc::SYS_ioctl if arguments[1] >> 8 & 0xff == 0x94 => file("ioctl"),
            libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_pwritev => file("write"),
            libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_copy_file_range => file("change"),
            _ => None,
        }
    }
}

#[allow(unsafe_code, reason = "ptrace(2)")]
fn trace_me(command: &mut Command) {
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// One that is gone by now does not matter.
#[allow(unsafe_code, reason = "ptrace(2)")]
fn ptrace(request: libc::c_uint, thread: pid_t, data: c_long) {
    // SAFETY: none of the requests above takes a pointer to our memory.
    unsafe { libc::ptrace(request, thread, 0, data) };
}

/// The next change of anything that this thread has started or traces.
#[allow(unsafe_code, reason = "waitpid(2) of traced threads")]
fn wait() -> (pid_t, c_int) {
    let mut status = 0;
    // SAFETY: `status` lives.
    let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "{}", std::io::Error::last_os_error());
    (thread, status)
}

#[allow(unsafe_code, reason = "kill(2)")]
fn kill(process: pid_t) {
    // SAFETY: it takes numbers. The process has not been waited for, so the number is still its own.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

/// The system call that a stopped thread is about to make; `None` where it comes back from one.
#[allow(unsafe_code, reason = "ptrace(2)")]
fn entered(thread: pid_t) -> Option<(c_long, [u64; 6])> {
    // SAFETY: all of it may be zero; the kernel writes no more than its size, and says which member it wrote.
    unsafe {
        let mut call: libc::ptrace_syscall_info = std::mem::zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        let told = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &mut call);
        if told <= 0 || call.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        let entry = call.u.entry;
        Some((c_long::try_from(entry.nr).ok()?, entry.args))
    }
}
