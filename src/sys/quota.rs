//! Project quotas: how much the files of a directory may take (quotactl(2), `PRJQUOTA`; xfs and ext4 that are mounted with
//! `prjquota`). Linux 5.14 or newer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// linux/fs.h, `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f;
const SET_ATTRIBUTES: libc::Ioctl = 0x401c_5820;
/// What is made in the directory belongs to its project.
const INHERIT: u32 = 0x200;

/// linux/quota.h, `struct if_dqblk`: limits in blocks of 1,024 bytes, use in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Quota {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

const BLOCK: u64 = 1024;
const BLOCK_LIMITS: u32 = 1;
const GET: u32 = 0x80_0007;
const SET: u32 = 0x80_0008;
const PROJECT: u32 = 2;

/// The project of a directory's files; 0 for none.
pub fn project(dir: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(get_attributes(dir)?.project)
}

/// What is made in this directory from now on belongs to the project.
pub fn set_project(dir: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let attributes = get_attributes(dir)?;
    set_attributes(dir, Attributes { flags: attributes.flags | INHERIT, project, ..attributes })
}

/// What the file system that `dir` is on knows of a project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of its files.
    pub bytes: u64,
    pub files: u64,
    /// Bytes; 0: none.
    pub limit: u64,
}

pub fn usage(dir: BorrowedFd<'_>, project: u32) -> io::Result<Usage> {
    let mut quota = Quota::default();
    match call(dir, GET, project, &mut quota) {
        Ok(()) => Ok(Usage {
            bytes: quota.bytes,
            files: quota.inodes,
            limit: quota.hard_blocks.saturating_mul(BLOCK),
        }),
        // xfs has no record of it yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Usage::default()),
        Err(error) => Err(error),
    }
}

/// The files of the project take no more than so many bytes, to whole KiB; 0: as many as they like. `Unsupported` where the
/// file system is not mounted with project quotas.
pub fn limit(dir: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let mut quota = Quota { hard_blocks: bytes.div_ceil(BLOCK), valid: BLOCK_LIMITS, ..Quota::default() };
    call(dir, SET, project, &mut quota)
}

#[allow(unsafe_code, reason = "rustix has no FS_IOC_FSGETXATTR")]
fn get_attributes(dir: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the structure is the one that the call fills, and outlives it.
    let answer = unsafe { libc::ioctl(dir.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes) };
    if answer == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code, reason = "rustix has no FS_IOC_FSSETXATTR")]
fn set_attributes(dir: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    // SAFETY: the structure is the one that the call reads, and outlives it.
    let answer = unsafe { libc::ioctl(dir.as_raw_fd(), SET_ATTRIBUTES, &raw const attributes) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code, reason = "rustix has no quotactl_fd(2)")]
fn call(dir: BorrowedFd<'_>, command: u32, project: u32, quota: &mut Quota) -> io::Result<()> {
    // SAFETY: the structure is the one that the command reads or fills, and outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            dir.as_raw_fd(),
            command << 8 | PROJECT,
            project,
            std::ptr::from_mut(quota),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // No quotas at all, none for projects, a kernel without the call.
    let absent = [libc::ESRCH, libc::ENOSYS, libc::EINVAL, libc::ENODEV, libc::ENOTBLK];
    match error.raw_os_error() {
        Some(code) if command == SET && absent.contains(&code) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
        _ => Err(error),
    }
}
