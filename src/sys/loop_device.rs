//! Loop devices: files as block devices (loop(4), linux/loop.h).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::block::{Access, Block};
use super::dm::is;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
const MAJOR: u32 = 7;

/// `struct loop_info64`
#[repr(C)]
struct Status {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    limit: u64,
    number: u32,
    encrypt_type: u32,
    key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

impl Status {
    const EMPTY: Status = Status {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        limit: 0,
        number: 0,
        encrypt_type: 0,
        key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config`
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    status: Status,
    reserved: [u64; 8],
}

/// A device on this file, which is open for reading and writing. It goes when the last who has it open closes it. Where the
/// file's filesystem can, it is read and written past the page cache. Kernel 5.8 or newer.
pub fn attach(file: &File) -> io::Result<Block> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = rustix::fs::open("/dev/loop-control", flags, Mode::empty())?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    loop {
        let number = ioctl(&control, LOOP_CTL_GET_FREE, std::ptr::null_mut())?;
        let device = Block::open(rustix::fs::makedev(MAJOR, number.cast_unsigned()), Access::Write)?;
        let mut status = Status { flags: AUTOCLEAR | DIRECT_IO, ..Status::EMPTY };
        // For people who look at /sys and losetup(8); cut where it is too long.
        let name = path.as_os_str().as_encoded_bytes();
        let shown = name.len().min(status.file_name.len() - 1);
        status.file_name[..shown].copy_from_slice(&name[..shown]);
        let file = file.as_raw_fd().cast_unsigned();
        let mut config = Config { file, block_size: 0, status, reserved: [0; 8] };
        match ioctl(&device, LOOP_CONFIGURE, (&raw mut config).cast()) {
            Ok(_) => return Ok(device),
            // Somebody else was faster.
            Err(error) if is(&error, Errno::BUSY) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a device stands on this file.
pub fn is_attached(file: &File) -> io::Result<bool> {
    let wanted = file.metadata()?;
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse::<u32>().ok());
        let Some(number) = number else { continue };
        if !std::path::Path::new("/sys/block").join(&name).join("loop/backing_file").exists() {
            continue;
        }
        let Ok(device) = Block::open(rustix::fs::makedev(MAJOR, number), Access::Read) else { continue };
        let mut status = Status::EMPTY;
        match ioctl(&device, LOOP_GET_STATUS64, (&raw mut status).cast()) {
            Ok(_) if (status.device, status.inode) == (wanted.dev(), wanted.ino()) => return Ok(true),
            // Without a file again, or another's.
            _ => {}
        }
    }
    Ok(false)
}

#[allow(unsafe_code, reason = "ioctl(2)")]
fn ioctl(file: impl AsFd, request: libc::c_ulong, about: *mut libc::c_void) -> io::Result<i32> {
    // SAFETY: what is pointed to is the structure that this request is about, or nothing where it takes none.
    let answer = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request as _, about) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_of_the_kernels() {
        assert_eq!((size_of::<Status>(), size_of::<Config>()), (232, 304));
    }

    #[test]
    fn a_file_is_a_device_until_nobody_has_it_open() {
        let path = std::env::temp_dir().join(format!("outcrop-loop-{}", std::process::id()));
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!is_attached(&file).unwrap());
        let device = attach(&file).unwrap();
        assert!(is_attached(&file).unwrap());
        assert_eq!(device.size().unwrap(), 1 << 20);
        rustix::io::pwrite(&device, &[7; 4096], 8192).unwrap();
        device.flush().unwrap();
        let mut read = [0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 8192).unwrap();
        assert_eq!(read, [7; 4096]);
        drop(device);
        while is_attached(&file).unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
