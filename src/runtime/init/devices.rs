//! A container's /dev (runtime-spec config-linux.md, "Default Devices").

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, makedev};

use crate::error::{Context, Result};
use crate::sys::mount::{self, Attributes};

/// Name, major, minor; all mode 0666.
pub(super) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Major and minor of the character devices that a container may use: the nodes above, /dev/console, /dev/ptmx, and all
/// terminals.
pub(super) const ALLOWED: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// `/dev` in place, below the working directory's root.
pub(super) struct Devices {
    pub(super) dev: OwnedFd,
    pub(super) pts: OwnedFd,
}

/// What mounts images of disks, where the host has it: name, major, minor.
pub(super) fn loop_devices() -> Vec<(String, u32, u32)> {
    let numbered = (0..8).map(|number| (format!("loop{number}"), 7, number));
    let all = std::iter::once(("loop-control".to_owned(), 10, 237)).chain(numbered);
    all.filter(|(name, ..)| std::path::Path::new("/dev").join(name).exists()).collect()
}

/// As a config.json says it.
pub(super) fn node_type(name: &str) -> &'static str {
    if name == "loop-control" { "c" } else { "b" }
}

/// Mounts it on a directory of the container.
pub(super) fn mount(target: BorrowedFd<'_>, shm_size: u64, more: &[(String, u32, u32)]) -> Result<Devices> {
    let doing = || "making the container's /dev";
    let attributes = Attributes { nosuid: true, ..Attributes::NONE };
    let dev = mount::tmpfs(Some(64 << 20), 0o755, attributes)?;
    for (name, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
            // Whatever the umask.
            .and_then(|()| rustix::fs::chmodat(&dev, name, mode, AtFlags::empty()))
            .context(|| format!("making /dev/{name}"))?;
    }
    for (name, major, minor) in more {
        let kind = if node_type(name) == "c" { FileType::CharacterDevice } else { FileType::BlockDevice };
        rustix::fs::mknodat(&dev, name.as_str(), kind, Mode::from_raw_mode(0o660), makedev(*major, *minor))
            .context(|| format!("making /dev/{name}"))?;
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, name).context(doing)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)).context(doing)?;
    }
    mount::attach_at(dev.as_fd(), target, "".as_ref()).context(doing)?;
    let pts = mount::devpts()?;
    mount::attach_at(pts.as_fd(), dev.as_fd(), "pts".as_ref()).context(doing)?;
    let shm = mount::tmpfs(Some(shm_size), 0o1777, Attributes::INERT)?;
    mount::attach_at(shm.as_fd(), dev.as_fd(), "shm".as_ref()).context(doing)?;
    let mqueue = mount::mqueue()?;
    mount::attach_at(mqueue.as_fd(), dev.as_fd(), "mqueue".as_ref()).context(doing)?;
    Ok(Devices { dev, pts })
}

impl Devices {
    /// A new terminal: its master and its slave. The slave is /dev/console, too, and belongs to `uid`.
    pub(super) fn terminal(&self, size: crate::runtime::Size, uid: u32) -> Result<(OwnedFd, OwnedFd)> {
        let doing = || "making the container's terminal";
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(&self.pts, "ptmx", flags, Mode::empty()).context(doing)?;
        rustix::pty::unlockpt(&master).context(doing)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            rustix::pty::OpenptFlags::RDWR
                | rustix::pty::OpenptFlags::NOCTTY
                | rustix::pty::OpenptFlags::CLOEXEC,
        )
        .context(doing)?;
        let size =
            rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).context(doing)?;
        rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None).context(doing)?;

        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let _file =
            rustix::fs::openat(&self.dev, "console", flags, Mode::from_raw_mode(0o600)).context(doing)?;
        // The first one of its instance.
        let node = mount::clone_tree(self.pts.as_fd(), "0".as_ref(), mount::Reach::One).context(doing)?;
        mount::attach_at(node.as_fd(), self.dev.as_fd(), "console".as_ref()).context(doing)?;
        Ok((master, slave))
    }

    /// A mount of /dev/null, to hide a file behind.
    pub(super) fn null(&self) -> Result<OwnedFd> {
        mount::clone_tree(self.dev.as_fd(), "null".as_ref(), mount::Reach::One)
            .context(|| "taking /dev/null for a mask")
    }
}

/// Whether a directory descriptor is of the kind of filesystem it should be: nothing is mounted on what an image put
/// there instead (CVE-2019-19921).
pub(super) fn is_of_kind(dir: BorrowedFd<'_>, magic: u32) -> bool {
    rustix::fs::fstatfs(dir).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(magic))
}

/// The root directory of the caller.
pub(super) fn root() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).context(|| "opening the container's root")
}
