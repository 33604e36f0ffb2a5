//! Block devices by their numbers, and what filesystems on them do about their size.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::mount::{self, Attributes};

/// A device that is open, and stays what it is meanwhile.
#[derive(Debug)]
pub struct Block {
    file: OwnedFd,
    path: String,
    /// Where the machine has no node for it, an own one that nobody else sees.
    _node: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl Block {
    /// ENXIO where it has gone.
    pub fn open(device: u64, access: Access) -> io::Result<Block> {
        let access = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        let (path, node) = match node_of(device) {
            Some(path) => (path, None),
            None => {
                let node = own_node(device)?;
                // Other processes that we start find it, too.
                (format!("/proc/{}/fd/{}", std::process::id(), node.as_raw_fd()), Some(node))
            }
        };
        let file = rustix::fs::open(&path, access | OFlags::CLOEXEC, Mode::empty())?;
        // The node may have become another's.
        if rustix::fs::fstat(&file)?.st_rdev != device {
            return Err(rustix::io::Errno::NXIO.into());
        }
        Ok(Block { file, path, _node: node })
    }

    /// Leads to it as long as this lives.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// In bytes.
    pub fn size(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.file, rustix::fs::SeekFrom::End(0))?)
    }

    /// All that it was given is on disk.
    pub fn flush(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.file)?)
    }

    /// Gives back what its first `bytes` take where they lie.
    pub fn discard(&self, bytes: u64) -> io::Result<()> {
        /// `_IO(0x12, 119)` (linux/fs.h)
        const BLKDISCARD: libc::c_ulong = 0x1277;
        let mut range = [0, bytes];
        control(self.as_fd(), BLKDISCARD, &mut range)
    }
}

impl AsFd for Block {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What the kernel calls it, where the machine has a node of this name and number.
fn node_of(device: u64) -> Option<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let known = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let path = format!("/dev/{}", known.file_name()?.to_str()?);
    let stat = rustix::fs::stat(&path).ok()?;
    let right = FileType::from_raw_mode(stat.st_mode).is_block_device() && stat.st_rdev == device;
    right.then_some(path)
}

fn own_node(device: u64) -> io::Result<OwnedFd> {
    let dir = mount::tmpfs(Some(64 << 10), 0o700, Attributes::NONE).map_err(io::Error::from)?;
    rustix::fs::mknodat(&dir, "node", FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)?;
    Ok(rustix::fs::openat(&dir, "node", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// The number of a block device that has a path.
pub fn number_of(path: &std::path::Path) -> io::Result<u64> {
    let stat = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode).is_block_device() {
        return Ok(stat.st_rdev);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no block device"))
}

/// Gives back what a mounted filesystem does not use, in pieces of `least` bytes or more (ioctl_fitrim(2)).
pub fn trim(root: BorrowedFd<'_>, least: u64) -> io::Result<()> {
    /// `_IOWR('X', 121, struct fstrim_range)`
    const FITRIM: libc::c_ulong = 0xc018_5879;
    let mut range = [0, u64::MAX, least];
    control(root, FITRIM, &mut range)
}

/// Lets a mounted ext4 or xfs fill a device of this many bytes.
pub fn grow(root: BorrowedFd<'_>, filesystem: &str, bytes: u64) -> io::Result<()> {
    /// `_IOW('f', 16, __u64)`: the new number of blocks (kernel fs/ext4/ext4.h).
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    /// `_IOW('X', 110, struct xfs_growfs_data)`: the new number of blocks, and how many percent may be inodes.
    const XFS_IOC_FSGROWFSDATA: libc::c_ulong = 0x4010_586e;
    let size = u64::try_from(rustix::fs::fstatfs(root)?.f_bsize).map_err(io::Error::other)?;
    let blocks = bytes / size;
    match filesystem {
        "xfs" => control(root, XFS_IOC_FSGROWFSDATA, &mut [blocks, 25]),
        _ => control(root, EXT4_IOC_RESIZE_FS, &mut [blocks]),
    }
}

#[allow(unsafe_code, reason = "ioctl(2)")]
fn control<const N: usize>(
    file: BorrowedFd<'_>,
    request: libc::c_ulong,
    words: &mut [u64; N],
) -> io::Result<()> {
    // SAFETY: each request above is about a structure of as many 64-bit words as its caller gives.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request as _, words.as_mut_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_told() {
        let absent = Block::open(rustix::fs::makedev(259, 0xf_fff0), Access::Read).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENXIO));
        let wrong = number_of("/dev/null".as_ref()).unwrap_err();
        assert_eq!(wrong.to_string(), "it is no block device");
    }
}
