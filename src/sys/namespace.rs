//! Namespaces: entering new ones, and what is set inside them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::CWD;
use rustix::mount::UnmountFlags;
use rustix::thread::UnshareFlags;

/// Leaves the host's view of the cgroups: the group this process is in becomes `/` (cgroup_namespaces(7)).
#[allow(unsafe_code, reason = "unshare(2)")]
pub fn unshare_cgroups() -> io::Result<()> {
    // SAFETY: the table of descriptors stays shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?)
}

/// A mount namespace of its own, into which the host's unmounts still come (a slave).
#[allow(unsafe_code, reason = "unshare(2)")]
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: the table of descriptors stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", slave)?)
}

/// Puts a detached mount in place of `/` and takes everything else out of this mount namespace: nothing of the host is
/// reachable or kept busy from here. Afterwards the working directory is the new root.
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    // On top of the present root, where there surely is a directory.
    crate::sys::mount::attach_at(root, CWD, "/".as_ref())?;
    rustix::process::fchdir(root)?;
    // The old root lands on top of the new one (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// `ip link set lo up`: the kernel gives it its addresses.
#[allow(unsafe_code, reason = "netdevice(7) ioctls")]
pub fn raise_loopback() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).map_err(io::Error::other)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
