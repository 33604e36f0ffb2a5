//! Device mapper: the requests to /dev/mapper/control (linux/dm-ioctl.h; kernel
//! Documentation/admin-guide/device-mapper). No udev and no library has a part in it: devices are known by
//! their names, and opened by their numbers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Open as long as somebody asks for something.
pub struct Control(OwnedFd);

/// What a device is made of: one target, from its first sector to its last.
pub struct Table<'t> {
    /// Of 512 bytes.
    pub sectors: u64,
    pub target: &'t str,
    pub parameters: &'t str,
    /// Nobody can write to the device.
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its number.
    pub device: u64,
    /// It has a table and can be opened.
    pub live: bool,
    pub suspended: bool,
    /// How many have it open: mounts, processes, devices on it.
    pub openers: i32,
    /// It goes when the last of them does.
    pub goes: bool,
}

/// `struct dm_ioctl`: version, sizes, counts and flags in its first 48 bytes, then the name (128), then the uuid.
const HEADER: usize = 312;
const NAME: std::ops::Range<usize> = 48..176;
/// `struct dm_target_spec`
const SPEC: usize = 40;

const READ_ONLY: u32 = 1 << 0;
const SUSPEND: u32 = 1 << 1;
const ACTIVE_PRESENT: u32 = 1 << 5;
const BUFFER_FULL: u32 = 1 << 8;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// Their numbers in the interface.
#[derive(Clone, Copy)]
enum Command {
    Version = 0,
    ListDevices = 2,
    DevCreate = 3,
    DevRemove = 4,
    DevSuspend = 6,
    DevStatus = 7,
    TableLoad = 9,
    TableStatus = 12,
    TargetMsg = 14,
    GetTargetVersion = 17,
}

impl Command {
    /// `_IOWR(0xfd, command, struct dm_ioctl)`
    fn request(self) -> libc::c_ulong {
        0xc000_0000 | (HEADER as libc::c_ulong) << 16 | 0xfd << 8 | self as libc::c_ulong
    }
}

/// A request, and in its place the answer.
struct Request(Vec<u8>);

impl Request {
    /// With room for an answer of `room` bytes where the payload is shorter.
    fn new(name: &str, flags: u32, payload: &[u8], room: usize) -> io::Result<Request> {
        if name.len() >= NAME.len() || name.contains(['/', '\0']) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{name}` is no name of a device"),
            ));
        }
        let mut bytes = vec![0; HEADER + payload.len().max(room).next_multiple_of(8)];
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let targets = 1;
        let header = u32::try_from(HEADER).expect("312 is small");
        for (at, number) in [4, 0, 0, size, header, targets, 0, flags].into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&number.to_ne_bytes());
        }
        bytes[NAME][..name.len()].copy_from_slice(name.as_bytes());
        bytes[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        Ok(Request(bytes))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
    fn flags(&self) -> u32 {
        self.word(28)
    }
    fn openers(&self) -> i32 {
        self.word(24).cast_signed()
    }
    fn device(&self) -> u64 {
        u64::from_ne_bytes(self.0[40..48].try_into().expect("eight bytes"))
    }
    /// What the kernel gave, from `data_start` to `data_size`.
    fn answer(&self) -> &[u8] {
        let (end, start) = (self.word(12) as usize, self.word(16) as usize);
        self.0.get(start..end.min(self.0.len())).unwrap_or_default()
    }
}

impl Control {
    /// `NotFound` where the kernel has no device mapper, or nobody made its node.
    pub fn open() -> io::Result<Control> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = Control(rustix::fs::open("/dev/mapper/control", flags, Mode::empty())?);
        control.ask(Command::Version, "", 0, &[], 0)?;
        Ok(control)
    }

    #[allow(unsafe_code, reason = "ioctl(2)")]
    fn send(&self, command: Command, request: &mut Request) -> io::Result<()> {
        // SAFETY: the request says its own length, which the kernel does not go beyond, and outlives the call.
        let answer =
            unsafe { libc::ioctl(self.0.as_raw_fd(), command.request() as _, request.0.as_mut_ptr()) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn ask(
        &self,
        command: Command,
        name: &str,
        flags: u32,
        payload: &[u8],
        room: usize,
    ) -> io::Result<Request> {
        let mut room = room;
        loop {
            let mut request = Request::new(name, flags, payload, room)?;
            self.send(command, &mut request)?;
            if request.flags() & BUFFER_FULL == 0 {
                return Ok(request);
            }
            room = (room * 2).max(4096);
        }
    }

    /// Whether tables may have this target; the kernel loads its module if it can.
    pub fn has_target(&self, target: &str) -> io::Result<bool> {
        match self.ask(Command::GetTargetVersion, target, 0, &[], 512) {
            Ok(_) => Ok(true),
            Err(error) if is(&error, Errno::INVAL) || is(&error, Errno::NXIO) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of all devices.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let answer = self.ask(Command::ListDevices, "", 0, &[], 16 * 1024)?;
        Ok(names_in(answer.answer()))
    }

    /// `None`: there is no such device.
    pub fn state(&self, name: &str) -> io::Result<Option<State>> {
        match self.ask(Command::DevStatus, name, 0, &[], 0) {
            Ok(answer) => Ok(Some(State {
                device: answer.device(),
                live: answer.flags() & ACTIVE_PRESENT != 0,
                suspended: answer.flags() & SUSPEND != 0,
                openers: answer.openers(),
                goes: answer.flags() & DEFERRED_REMOVE != 0,
            })),
            Err(error) if is(&error, Errno::NXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new device with this table; its number. EBUSY where there is one of this name.
    pub fn create(&self, name: &str, table: &Table<'_>) -> io::Result<u64> {
        let device = self.ask(Command::DevCreate, name, 0, &[], 0)?.device();
        let filled = self.load(name, table).and_then(|()| self.resume(name));
        if filled.is_err() {
            let _half_made = self.remove_when_closed(name);
        }
        filled.map(|()| device)
    }

    /// What the device is made of from the next `resume` on.
    pub fn load(&self, name: &str, table: &Table<'_>) -> io::Result<()> {
        let flags = if table.read_only { READ_ONLY } else { 0 };
        self.ask(Command::TableLoad, name, flags, &specification(table)?, 0).map(drop)
    }

    /// Writes wait from now on, and what was written is on the device, of a mounted filesystem too.
    pub fn suspend(&self, name: &str) -> io::Result<()> {
        self.ask(Command::DevSuspend, name, SUSPEND, &[], 0).map(drop)
    }

    pub fn resume(&self, name: &str) -> io::Result<()> {
        self.ask(Command::DevSuspend, name, 0, &[], 0).map(drop)
    }

    /// EBUSY while somebody has it open. Being gone is `Ok`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.remove_with(name, 0)
    }

    /// Now, or when the last who has it open closes it: also when it is killed.
    pub fn remove_when_closed(&self, name: &str) -> io::Result<()> {
        self.remove_with(name, DEFERRED_REMOVE)
    }

    fn remove_with(&self, name: &str, flags: u32) -> io::Result<()> {
        match self.ask(Command::DevRemove, name, flags, &[], 0) {
            Err(error) if is(&error, Errno::NXIO) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// What the target of a live device says of itself. A thin pool commits its metadata first.
    pub fn status(&self, name: &str) -> io::Result<String> {
        let answer = self.ask(Command::TableStatus, name, 0, &[], 4096)?;
        let text = answer.answer().get(SPEC..).unwrap_or_default();
        Ok(until_nul(text))
    }

    /// An order to the target.
    pub fn message(&self, name: &str, text: &str) -> io::Result<()> {
        // `struct dm_target_msg`: the sector it is about, and the text.
        let mut payload = 0_u64.to_ne_bytes().to_vec();
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.ask(Command::TargetMsg, name, 0, &payload, 0).map(drop)
    }
}

/// Is it this one?
pub fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// `struct dm_target_spec` and its text, padded to 8 bytes.
fn specification(table: &Table<'_>) -> io::Result<Vec<u8>> {
    let length = SPEC + (table.parameters.len() + 1).next_multiple_of(8);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(0_u64.to_ne_bytes());
    bytes.extend(table.sectors.to_ne_bytes());
    bytes.extend(0_i32.to_ne_bytes());
    bytes.extend(u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
    bytes.extend(table.target.as_bytes());
    if table.target.len() >= 16 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no target has so long a name"));
    }
    bytes.resize(SPEC, 0);
    bytes.extend(table.parameters.as_bytes());
    bytes.resize(length, 0);
    Ok(bytes)
}

/// `struct dm_name_list`: number, the way to the next, name.
fn names_in(mut list: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while list.len() > 12 {
        let device = u64::from_ne_bytes(list[..8].try_into().expect("eight bytes"));
        let next = u32::from_ne_bytes(list[8..12].try_into().expect("four bytes")) as usize;
        if device != 0 {
            names.push(until_nul(&list[12..]));
        }
        if next == 0 {
            break;
        }
        list = list.get(next..).unwrap_or_default();
    }
    names
}

fn until_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        // As printed by a C program that includes linux/dm-ioctl.h.
        assert_eq!(Command::Version.request(), 0xc138_fd00);
        assert_eq!(Command::TableLoad.request(), 0xc138_fd09);
        assert_eq!(Command::GetTargetVersion.request(), 0xc138_fd11);
    }

    #[test]
    fn a_request_is_a_header_with_a_name_and_what_follows() {
        let request = Request::new("pool", DEFERRED_REMOVE, b"payload", 0).unwrap();
        let word = |at| request.word(at);
        assert_eq!(request.0.len(), HEADER + 8);
        assert_eq!([word(0), word(4), word(8)], [4, 0, 0]);
        assert_eq!([word(12), word(16), word(20), word(28)], [320, 312, 1, 1 << 17]);
        assert_eq!(&request.0[48..53], b"pool\0");
        assert_eq!(&request.0[312..320], b"payload\0");
        assert_eq!(request.answer(), b"payload\0");
    }

    #[test]
    fn names_that_the_kernel_would_cut_or_refuse_are_refused() {
        assert!(Request::new(&"n".repeat(127), 0, &[], 0).is_ok());
        for wrong in [&"n".repeat(128), "a/b", "a\0b"] {
            let Err(error) = Request::new(wrong, 0, &[], 0) else { panic!("{wrong}") };
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_table_is_one_target_with_its_text_padded() {
        let table = Table { sectors: 0x0102, target: "thin", parameters: "253:0 7", read_only: false };
        let bytes = specification(&table).unwrap();
        assert_eq!(bytes.len(), 48);
        assert_eq!(bytes[8..16], 0x0102_u64.to_ne_bytes());
        assert_eq!(bytes[20..24], 48_u32.to_ne_bytes());
        assert_eq!(&bytes[24..40], b"thin\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&bytes[40..], b"253:0 7\0");
        // A full word needs another one for its end.
        let longer = specification(&Table { parameters: "253:0 77", ..table }).unwrap();
        assert_eq!(longer.len(), 56);
    }

    #[test]
    fn lists_of_devices_are_read() {
        let mut list = Vec::new();
        for (device, next, name) in [(0xfd00_u64, 24_u32, "one"), (0xfd01, 0, "two")] {
            list.extend(device.to_ne_bytes());
            list.extend(next.to_ne_bytes());
            list.extend(name.as_bytes());
            list.resize(list.len().next_multiple_of(8) + 8, 0);
        }
        assert_eq!(names_in(&list), ["one", "two"]);
        assert_eq!(names_in(&[0; 24]), [""; 0]);
        assert_eq!(names_in(&[]), [""; 0]);
    }
}
