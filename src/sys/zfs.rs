//! ZFS as the kernel sees it: what a path stands on, what is mounted at one, a dataset's mount.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Nothing, or what is below.
    NoMount,
    Mount,
    /// A mount whose server is gone (zfs-fuse was ended).
    Dead,
}

/// The last component is not followed. Kernel 5.8 or newer (STATX_ATTR_MOUNT_ROOT).
pub fn at(path: &Path) -> io::Result<At> {
    // What the kernel remembers says nothing of a server that is gone.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_FORCE_SYNC;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => Ok(At::Mount),
        Ok(_) | Err(Errno::NOENT) => Ok(At::NoMount),
        Err(Errno::NOTCONN | Errno::CONNABORTED) => Ok(At::Dead),
        Err(errno) => Err(errno.into()),
    }
}

/// Mounts a dataset whose mount point is `legacy` (mount.zfs(8)). For the kernel's own ZFS alone.
pub fn mount(dataset: &str, place: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount(dataset, place, "zfs", MountFlags::empty(), None::<&CStr>)?)
}

/// Waits until zfs-fuse has done all that it was told through the mount at `place`, a second at the most: its daemon
/// hangs for good when a mount ends while the closing of a file is still on its way (seen with 0.7.0 in 2 of 40 cases).
pub fn drain(place: &Path) -> io::Result<()> {
    let device = rustix::fs::stat(place)?.st_dev;
    let control = super::mount::filesystem("fusectl", &[], super::mount::Attributes::INERT)
        .map_err(io::Error::other)?;
    // "The number of requests which are waiting" (fuse.rst, "Control filesystem").
    let path = format!("{}/waiting", rustix::fs::minor(device));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let waiting = match super::dir::open_beneath(control.as_fd(), path.as_bytes(), OFlags::RDONLY) {
            Ok(file) => io::read_to_string(std::fs::File::from(file))?,
            // It has no connection: it is no FUSE, or its server is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        if waiting.trim() == "0" {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The dataset that `path` stands on. `None`: it is on no ZFS.
pub fn dataset_of(path: &Path) -> io::Result<Option<String>> {
    let device = rustix::fs::stat(path)?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // Not `self`: another thread's mount namespace may be another one.
    let mounts = std::fs::read("/proc/thread-self/mountinfo")?;
    Ok(mounts.split(|byte| *byte == b'\n').find_map(|line| dataset_in(line, &device)))
}

/// In a line of mountinfo (proc_pid_mountinfo(5)) of this device.
fn dataset_in(line: &[u8], device: &str) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (mount, filesystem) = line.split_once(" - ")?;
    if mount.split(' ').nth(2)? != device {
        return None;
    }
    let (kind, rest) = filesystem.split_once(' ')?;
    let source = rest.split(' ').next()?;
    matches!(kind, "zfs" | "fuse.zfs").then(|| unescape(source).into_string().ok())?
}

/// `\040` is a space.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_found_by_its_device() {
        let fuse = b"115 89 0:51 / /srv/a\\040b rw,relatime shared:1 - fuse.zfs tank/a\\040b rw,user_id=0";
        let kernel = b"116 89 0:52 /dir /mnt rw - zfs tank rw,xattr,noacl";
        let other = b"117 89 0:51 / /mnt rw - ext4 /dev/vda rw";
        assert_eq!(dataset_in(fuse, "0:51"), Some("tank/a b".into()));
        assert_eq!(dataset_in(fuse, "0:5"), None);
        assert_eq!(dataset_in(kernel, "0:52"), Some("tank".into()));
        assert_eq!(dataset_in(other, "0:51"), None);
        assert_eq!(dataset_of(Path::new("/proc")).unwrap(), None);
    }

    #[test]
    fn a_mount_point_is_told_from_a_directory() {
        assert_eq!(at(Path::new("/proc")).unwrap(), At::Mount);
        assert_eq!(at(Path::new("/proc/self/")).unwrap(), At::NoMount);
        assert_eq!(at(Path::new("/nowhere")).unwrap(), At::NoMount);
    }
}
