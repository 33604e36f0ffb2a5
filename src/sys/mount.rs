//! Mounts as values, and the new mount API (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)).
//!
//! A mount is made *detached* first: a descriptor that is a directory, seen by nobody, gone when it is
//! closed. Then it is either worked under through `*at` calls or attached to a path of the caller's mount
//! namespace. Kernel 5.2 or newer.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use serde::{Deserialize, Serialize};

use super::{overlay, thin};
use crate::error::{Context, Result};

/// How to bring a stack to a mount point: a value, so that it can be handed to the process that will hold it.
/// Closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// overlayfs. Lowers nearest first. No upper: read-only, and then two lowers at least. `volatile`:
    /// fsync(2) inside does nothing; whoever needs the bytes on disk calls syncfs(2) on the upper's
    /// filesystem. `user`: its marks are `user.overlay.*`, as a user namespace wants them.
    Overlay {
        lowers: Vec<PathBuf>,
        upper: Option<PathBuf>,
        work: Option<PathBuf>,
        volatile: bool,
        user: bool,
    },
    /// A directory as it is.
    Bind { source: PathBuf, read_only: bool },
    /// The filesystem on a thin volume of device mapper, which becomes a device when it is mounted. `read_only`: it cannot be
    /// written through this mount, and perhaps through another one.
    Thin { volume: thin::Volume, filesystem: thin::Filesystem, read_only: bool },
}

/// What a mount forbids to those who look through it (mount_setattr(2), MOUNT_ATTR_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
}

impl Attributes {
    pub const NONE: Self = Attributes { read_only: false, nosuid: false, nodev: false, noexec: false };
    pub const READ_ONLY: Self = Attributes { read_only: true, ..Self::NONE };
    /// nosuid, nodev, noexec: for filesystems that hold no programs.
    pub const INERT: Self = Attributes { read_only: false, nosuid: true, nodev: true, noexec: true };

    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        flags
    }
}

/// How mounts and unmounts travel between copies of a mount (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    /// The host's unmounts arrive here, ours never there.
    Slave,
    Shared,
}

/// Whether what is mounted below comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    One,
    Tree,
}

/// Mounts it where nobody sees it. The descriptor is its root directory, and the mount is gone when it is
/// closed. It is an O_PATH one, as the kernel gives it: a base for `*at` calls and `/proc/self/fd/N`;
/// `openat(fd, ".")` to list or sync.
pub fn detached(mount: &Mount) -> Result<OwnedFd> {
    match mount {
        Mount::Overlay { lowers, upper, work, volatile, user } => {
            let upper = match (upper, work) {
                (Some(upper), Some(work)) => Some(overlay::Upper { dir: upper, work, volatile: *volatile }),
                (None, _) => None,
                (Some(upper), None) => {
                    return Err(crate::error::Error::internal(format!(
                        "mounting an overlay with the upper {} but no work directory",
                        upper.display()
                    )));
                }
            };
            let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
            overlay::detached(&lowers, upper.as_ref(), *user)
        }
        Mount::Bind { source, read_only } => {
            let tree = clone_tree(CWD, source, Reach::One)
                .context(|| format!("taking the directory {}", source.display()))?;
            if *read_only {
                restrict(tree.as_fd(), Attributes::READ_ONLY, Reach::One)
                    .context(|| format!("making a read-only view of {}", source.display()))?;
            }
            Ok(tree)
        }
        Mount::Thin { volume, filesystem, read_only } => {
            let root = volume.mount(filesystem)?;
            if *read_only {
                restrict(root.as_fd(), Attributes::READ_ONLY, Reach::One)
                    .context(|| format!("making a read-only view of {}", volume.name))?;
            }
            Ok(root)
        }
    }
}

/// Mounts it on an existing directory of the caller's mount namespace. The target's last component is not
/// followed.
pub fn attach(mount: &Mount, target: &Path) -> Result<()> {
    let detached = detached(mount)?;
    attach_at(detached.as_fd(), CWD, target).context(|| format!("mounting on {}", target.display()))
}

/// Puts a detached mount on `target`, relative to `dir`; an empty target is `dir` itself, so that a mount
/// point found safely (openat2(2)) stays the one that was found. Files can be mount points of files.
pub fn attach_at(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH, target.as_os_str().is_empty());
    Ok(rustix::mount::move_mount(mount, c"", dir, target, flags)?)
}

/// A detached copy of what is mounted at `path` (a bind mount not yet attached): the sources of `-v`, taken
/// before pivot_root(2) and attached after. A directory or a file; with `Reach::Tree` what is mounted below
/// comes along.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &Path, reach: Reach) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, reach == Reach::Tree);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// The same of a part of a mount that is not attached: of all of it where `part` is its root. Linux before 6.15 copies
/// only what stands in the caller's mount namespace; there it is attached in one that ends at once. `mount` goes on
/// showing what it shows, but can be copied and attached no more.
pub fn clone_detached(mount: BorrowedFd<'_>, part: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match clone_tree(part, "".as_ref(), Reach::One) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => clone_attached(mount, part),
        cloned => cloned,
    }
}

fn clone_attached(mount: BorrowedFd<'_>, part: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attached = || -> Result<OwnedFd> {
        attach_at(mount, CWD, "/".as_ref()).context(|| "attaching a mount for a moment")?;
        clone_tree(part, "".as_ref(), Reach::One).context(|| "copying a mount")
    };
    Ok(in_own_mounts(attached)?)
}

/// Works in a thread with a mount namespace of its own; both are gone when it returns.
#[allow(unsafe_code, reason = "unshare(2) of one thread")]
pub(super) fn in_own_mounts<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let (told, number) = std::sync::mpsc::channel();
    let alone = move || {
        let _heard = told.send(rustix::thread::gettid());
        let flags = rustix::thread::UnshareFlags::FS | rustix::thread::UnshareFlags::NEWNS;
        // SAFETY: the file descriptor table stays shared.
        unsafe { rustix::thread::unshare_unsafe(flags) }
            .context(|| "mounting in the namespace of a thread")?;
        set_propagation(Path::new("/"), Propagation::Private, Reach::Tree)?;
        work()
    };
    let done =
        std::thread::scope(|scope| scope.spawn(alone).join().expect("the thread above does not panic"));
    // It is joined a moment before the kernel forgets it, and who forks must be one thread.
    let task = number.recv().ok().map(|tid| format!("/proc/self/task/{}", tid.as_raw_nonzero()));
    while task.as_ref().is_some_and(|task| Path::new(task).exists()) {
        std::thread::yield_now();
    }
    done
}

/// A bind mount, not attached, with everything it forbids; with `Reach::Tree` it forbids it in the mounts
/// below, too, which `mount --bind -o ro` does not.
pub fn bind(source: &Path, reach: Reach, attributes: Attributes) -> Result<OwnedFd> {
    let tree =
        clone_tree(CWD, source, reach).context(|| format!("taking {} for a mount", source.display()))?;
    if attributes != Attributes::NONE {
        restrict(tree.as_fd(), attributes, reach)
            .context(|| format!("restricting the mount of {}", source.display()))?;
    }
    Ok(tree)
}

/// Forbids more to a mount, attached or not; what is forbidden already stays so. Kernel 5.12 or newer.
pub fn restrict(mount: BorrowedFd<'_>, attributes: Attributes, reach: Reach) -> io::Result<()> {
    setattr(mount, u64::from(attributes.flags().bits()), 0, reach)
}

/// How mounts travel to and from a mount and, with `Reach::Tree`, all below it. Doing it twice is doing it
/// once.
pub fn set_propagation(target: &Path, propagation: Propagation, reach: Reach) -> Result<()> {
    let mut flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
    };
    flags.set(MountPropagationFlags::REC, reach == Reach::Tree);
    rustix::mount::mount_change(target, flags)
        .context(|| format!("making the mounts at {} {propagation:?}", target.display()))
}

/// The same for a mount that is not attached yet (`-v` with a propagation mode). Kernel 5.12 or newer.
pub fn set_propagation_of(mount: BorrowedFd<'_>, propagation: Propagation, reach: Reach) -> io::Result<()> {
    let flag = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    setattr(mount, 0, flag, reach)
}

#[allow(unsafe_code, reason = "rustix has no mount_setattr(2)")]
fn setattr(mount: BorrowedFd<'_>, set: u64, propagation: u64, reach: Reach) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the structure and its size belong together, both outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A filesystem without a device, not attached: proc, sysfs, tmpfs, devpts, mqueue, cgroup2. Options as in
/// mount(8), values up to 255 bytes. It belongs to the caller's namespaces (proc: pid, sysfs: net, mqueue:
/// ipc).
pub fn filesystem(kind: &str, options: &[(&str, Option<&str>)], attributes: Attributes) -> Result<OwnedFd> {
    let doing = || format!("mounting a {kind}");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).context(doing)?;
    let configured = || -> rustix::io::Result<OwnedFd> {
        rustix::mount::fsconfig_set_string(&context, "source", kind)?;
        for (key, value) in options {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value)?,
                None => rustix::mount::fsconfig_set_flag(&context, *key)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())
    };
    configured().map_err(|errno| with_log(errno, context.as_fd())).context(doing)
}

/// A filesystem on a device (`source`), not attached, with options as in mount(8); those that belong to a mount point
/// (`noatime`) too.
pub(super) fn on_device(kind: &str, options: &[(&str, Option<&str>)]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut attributes = MountAttrFlags::empty();
    let mut configured = || -> rustix::io::Result<OwnedFd> {
        for (key, value) in options {
            match (*key, value) {
                ("nosuid", None) => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
                ("nodev", None) => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
                ("noexec", None) => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
                ("noatime", None) => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
                ("strictatime", None) => attributes |= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
                ("nodiratime", None) => attributes |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
                ("defaults" | "relatime" | "suid" | "dev" | "exec", None) => {}
                (key, Some(value)) => rustix::mount::fsconfig_set_string(&context, key, *value)?,
                (key, None) => rustix::mount::fsconfig_set_flag(&context, key)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    configured().map_err(|errno| match errno {
        // For who tries again.
        rustix::io::Errno::BUSY => errno.into(),
        _ => with_log(errno, context.as_fd()),
    })
}

/// The processes of the caller's pid namespace.
pub fn proc() -> Result<OwnedFd> {
    filesystem("proc", &[], Attributes::INERT)
}

/// The devices of the host, the network devices of the caller's network namespace.
pub fn sysfs(read_only: bool) -> Result<OwnedFd> {
    filesystem("sysfs", &[], Attributes { read_only, ..Attributes::INERT })
}

/// Files in memory; `size` in bytes, `None` for half of it; `mode` of its root.
pub fn tmpfs(size: Option<u64>, mode: u32, attributes: Attributes) -> Result<OwnedFd> {
    let (size, mode) = (size.map(|bytes| bytes.to_string()), format!("{mode:o}"));
    let mut options = vec![("mode", Some(mode.as_str()))];
    options.extend(size.as_deref().map(|size| ("size", Some(size))));
    filesystem("tmpfs", &options, attributes)
}

/// An instance of its own (`newinstance`), group 5 (tty), as the classic engine mounts it.
pub fn devpts() -> Result<OwnedFd> {
    let options =
        [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    filesystem("devpts", &options, Attributes { nosuid: true, noexec: true, ..Attributes::NONE })
}

/// POSIX message queues of the caller's ipc namespace.
pub fn mqueue() -> Result<OwnedFd> {
    filesystem("mqueue", &[], Attributes::INERT)
}

/// Takes what is mounted at `target` out of the tree now; it ends when its last user does. Not being mounted
/// is `Ok`.
pub fn detach(target: &Path) -> Result<()> {
    use rustix::io::Errno;
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("unmounting {}", target.display())),
    }
}

/// The cause with what the kernel says of it: a filesystem context is a log to read (fsopen(2), "The message
/// log").
pub(super) fn with_log(errno: rustix::io::Errno, context: BorrowedFd<'_>) -> io::Error {
    let mut text = String::new();
    let mut line = [0u8; 1024];
    // One message a read, ENODATA after the last.
    while let Ok(length @ 1..) = rustix::io::read(context, &mut line) {
        let message = String::from_utf8_lossy(&line[..length]);
        // Each begins with its weight: "e " error, "w " warning, "i " information.
        if let Some(message) = message.strip_prefix("e ").or(message.strip_prefix("w ")) {
            let separator = if text.is_empty() { "" } else { "; " };
            write!(text, "{separator}{}", message.trim_end()).expect("a String takes all that is written");
        }
    }
    let cause = io::Error::from(errno);
    if text.is_empty() { cause } else { io::Error::new(cause.kind(), format!("{cause}: {text}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_kernel_said() {
        let error = filesystem("tmpfs", &[("nonsense", Some("1"))], Attributes::NONE).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "Invalid argument (os error 22): tmpfs: Unknown parameter 'nonsense'");
    }

    #[test]
    fn what_a_container_needs_is_mounted() {
        let all = [
            proc().unwrap(),
            sysfs(true).unwrap(),
            tmpfs(Some(65536), 0o1777, Attributes::INERT).unwrap(),
            devpts().unwrap(),
            mqueue().unwrap(),
        ];
        let kinds = all.each_ref().map(|root| rustix::fs::fstatfs(root).unwrap().f_type);
        assert_eq!(kinds, [0x9fa0, 0x6265_6572, 0x0102_1994, 0x1cd1, 0x1980_0202]);
        assert_eq!(rustix::fs::fstat(&all[2]).unwrap().st_mode & 0o7777, 0o1777);
    }

    #[test]
    fn a_mount_is_copied_as_before_linux_6_15() {
        let file = |mount: &OwnedFd| format!("/proc/self/fd/{}/dir/file", mount.as_raw_fd());
        let whole = tmpfs(Some(65536), 0o755, Attributes::INERT).unwrap();
        std::fs::create_dir(format!("/proc/self/fd/{}/dir", whole.as_raw_fd())).unwrap();
        std::fs::write(file(&whole), "here").unwrap();
        let copy = clone_attached(whole.as_fd(), whole.as_fd()).unwrap();
        restrict(copy.as_fd(), Attributes::READ_ONLY, Reach::One).unwrap();
        assert_eq!(std::fs::read_to_string(file(&copy)).unwrap(), "here");
        assert!(std::fs::write(file(&copy), "").is_err());
        std::fs::write(file(&whole), "changed").unwrap();
        assert_eq!(std::fs::read_to_string(file(&copy)).unwrap(), "changed");
    }

    #[test]
    fn a_read_only_bind_cannot_be_written_through() {
        let source = std::env::temp_dir().join(format!("outcrop-bind-{}", std::process::id()));
        std::fs::create_dir(&source).unwrap();
        let write = |read_only| {
            let root = detached(&Mount::Bind { source: source.clone(), read_only }).unwrap();
            std::fs::write(format!("/proc/self/fd/{}/file", root.as_raw_fd()), "")
                .map_err(|error| error.kind())
        };
        let answers = (write(true), write(false));
        std::fs::remove_dir_all(&source).unwrap();
        assert_eq!(answers, (Err(io::ErrorKind::ReadOnlyFilesystem), Ok(())));
    }

    #[test]
    #[allow(unsafe_code, reason = "unshare(2) of one thread")]
    fn what_is_attached_in_a_namespace_is_seen_there_alone() {
        let place = std::env::temp_dir().join(format!("outcrop-attach-{}", std::process::id()));
        for dir in ["near", "far", "root"] {
            std::fs::create_dir_all(place.join(dir)).unwrap();
            std::fs::write(place.join(dir).join(dir), "").unwrap();
        }
        let stack = Mount::Overlay {
            lowers: vec![place.join("near"), place.join("far")],
            upper: None,
            work: None,
            volatile: false,
            user: false,
        };
        let names = || {
            let entries = std::fs::read_dir(place.join("root")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let inside = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    use rustix::thread::UnshareFlags;
                    // SAFETY: the file descriptor table stays shared.
                    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
                        .unwrap();
                    for _ in 0..2 {
                        set_propagation(Path::new("/"), Propagation::Slave, Reach::Tree).unwrap();
                    }
                    attach(&stack, &place.join("root")).unwrap();
                    let bound = bind(&place.join("root"), Reach::Tree, Attributes::READ_ONLY).unwrap();
                    attach_at(bound.as_fd(), CWD, &place.join("far")).unwrap();
                    assert!(place.join("far/near").exists());
                    detach(&place.join("far")).unwrap();
                    detach(&place.join("far")).unwrap();
                    names()
                })
                .join()
                .unwrap()
        });
        let outside = names();
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!((inside, outside), (vec!["far".into(), "near".into()], vec!["root".into()]));
    }
}
