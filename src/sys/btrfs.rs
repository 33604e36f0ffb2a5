//! btrfs: subvolumes, snapshots, quotas, space, send (linux/btrfs.h, linux/btrfs_tree.h).

use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::Stat;

/// `f_type` of statfs(2).
pub const MAGIC: u64 = 0x9123_683e;
/// The inode number of every subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID).
const ROOT_INODE: u64 = 256;

/// Whether this is the root of a subvolume, seen from a filesystem that is btrfs.
pub fn is_root(stat: &Stat) -> bool {
    stat.st_ino == ROOT_INODE
}

/// An ioctl with what it takes and gives.
struct Request<T>(libc::Ioctl, PhantomData<fn(T)>);

const WRITE: u32 = 1;
const READ: u32 = 2;

impl<T> Request<T> {
    /// As `_IOC` does (asm-generic/ioctl.h).
    #[expect(clippy::cast_possible_truncation, reason = "no argument is larger than a page")]
    const fn new(direction: u32, number: u32) -> Self {
        let code = (direction << 30) | ((size_of::<T>() as u32) << 16) | (0x94 << 8) | number;
        Request(code as libc::Ioctl, PhantomData)
    }

    #[allow(unsafe_code, reason = "rustix has none of btrfs' ioctls")]
    fn call(&self, on: BorrowedFd<'_>, argument: &mut T) -> io::Result<()> {
        // SAFETY: the request's number holds the size of `T`, and each below stands with its own structure; the
        // kernel reads and writes no more, and keeps no pointer.
        let answer = unsafe { libc::ioctl(on.as_raw_fd(), self.0, std::ptr::from_mut(argument)) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Named {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct NamedFrom {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

const CREATE: Request<Named> = Request::new(WRITE, 14);
const DESTROY: Request<Named> = Request::new(WRITE, 15);
const SNAPSHOT: Request<NamedFrom> = Request::new(WRITE, 23);
const GET_FLAGS: Request<u64> = Request::new(READ, 25);
const SET_FLAGS: Request<u64> = Request::new(WRITE, 26);

const READ_ONLY: u64 = 1 << 1;

fn padded<const N: usize>(name: &CStr) -> io::Result<[u8; N]> {
    let bytes = name.to_bytes();
    let mut padded = [0; N];
    // One byte at least stays 0.
    let place = padded[..N - 1].get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidFilename)?;
    place.copy_from_slice(bytes);
    Ok(padded)
}

/// An empty subvolume. What stands there is EEXIST.
pub fn create(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    CREATE.call(dir, &mut Named { fd: 0, name: padded(name)? })
}

/// A subvolume with what `of` holds now, buffered writes too; a subvolume inside `of` is an empty directory in it.
pub fn snapshot(dir: BorrowedFd<'_>, name: &CStr, of: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let flags = if read_only { READ_ONLY } else { 0 };
    let mut argument =
        NamedFrom { fd: of.as_raw_fd().into(), transid: 0, flags, unused: [0; 4], name: padded(name)? };
    SNAPSHOT.call(dir, &mut argument)
}

/// In one step, read-only ones too, whoever has it mounted or open. ENOTEMPTY: another subvolume is in it.
pub fn destroy(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    DESTROY.call(dir, &mut Named { fd: 0, name: padded(name)? })
}

/// `subvolume` is its root.
pub fn is_read_only(subvolume: BorrowedFd<'_>) -> io::Result<bool> {
    let mut flags = 0;
    GET_FLAGS.call(subvolume, &mut flags)?;
    Ok(flags & READ_ONLY != 0)
}

/// `subvolume` is its root. Being so already is `Ok`.
pub fn set_read_only(subvolume: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let mut flags = 0;
    GET_FLAGS.call(subvolume, &mut flags)?;
    let wanted = if read_only { flags | READ_ONLY } else { flags & !READ_ONLY };
    if wanted == flags { Ok(()) } else { SET_FLAGS.call(subvolume, &mut { wanted }) }
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct Lookup {
    tree: u64,
    inode: u64,
    name: [u8; 4080],
}

const LOOKUP: Request<Lookup> = Request::new(READ | WRITE, 18);

/// The number of the subvolume that this stands in.
pub fn id(within: BorrowedFd<'_>) -> io::Result<u64> {
    let mut lookup = Lookup { tree: 0, inode: ROOT_INODE, name: [0; 4080] };
    LOOKUP.call(within, &mut lookup)?;
    Ok(lookup.tree)
}

/// `struct btrfs_ioctl_search_args`; the buffer begins with a `struct btrfs_ioctl_search_header` of 32 bytes.
#[repr(C)]
struct Search {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transids: [u64; 2],
    kinds: [u32; 2],
    items: u32,
    unused: [u32; 9],
    found: [u8; 3992],
}

const SEARCH: Request<Search> = Request::new(READ | WRITE, 17);
const ROOT_TREE: u64 = 1;
const QUOTA_TREE: u64 = 8;
const ROOT_REF: u32 = 156;
const QGROUP_STATUS: u32 = 240;
const QGROUP_USAGE: u32 = 242;

/// The first item of a kind; `None`: there is none, or no such tree. Needs CAP_SYS_ADMIN.
fn item(
    on: BorrowedFd<'_>,
    tree: u64,
    object: u64,
    kind: u32,
    offsets: [u64; 2],
) -> io::Result<Option<Vec<u8>>> {
    let mut search = Search {
        tree,
        objects: [object; 2],
        offsets,
        transids: [0, u64::MAX],
        kinds: [kind; 2],
        items: 1,
        unused: [0; 9],
        found: [0; 3992],
    };
    match SEARCH.call(on, &mut search) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    }
    if search.items == 0 {
        return Ok(None);
    }
    let length = u32::from_ne_bytes(search.found[28..32].try_into().expect("four bytes"));
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(32).min(search.found.len());
    Ok(Some(search.found[32..end].to_vec()))
}

/// Whether another subvolume stands somewhere in this one.
pub fn has_nested(subvolume: BorrowedFd<'_>) -> io::Result<bool> {
    let own = id(subvolume)?;
    Ok(item(subvolume, ROOT_TREE, own, ROOT_REF, [0, u64::MAX])?.is_some())
}

/// What a filesystem keeps of how much each subvolume takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotas {
    Off,
    /// What a subvolume reaches, shared or not.
    Full,
    /// What was written in a subvolume since they were switched on. Linux 6.7 and newer.
    Simple,
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct Control {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct Group {
    create: u64,
    id: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct Limit {
    group: u64,
    flags: u64,
    referenced: u64,
    exclusive: u64,
    reserved: [u64; 2],
}

const QUOTA_CONTROL: Request<Control> = Request::new(READ | WRITE, 40);
const QGROUP_CREATE: Request<Group> = Request::new(WRITE, 42);
const QGROUP_LIMIT: Request<Limit> = Request::new(READ, 43);

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at * 8..at * 8 + 8).and_then(|word| word.try_into().ok());
    u64::from_le_bytes(word.unwrap_or_default())
}

pub fn quotas(on: BorrowedFd<'_>) -> io::Result<Quotas> {
    // `struct btrfs_qgroup_status_item`: version, generation, flags.
    let status = item(on, QUOTA_TREE, 0, QGROUP_STATUS, [0, 0])?.unwrap_or_default();
    Ok(match word(&status, 2) {
        flags if flags & 1 == 0 => Quotas::Off,
        flags if flags & 1 << 3 != 0 => Quotas::Simple,
        _ => Quotas::Full,
    })
}

/// Bytes that a subvolume takes, as its quota counts them; `None` where nobody counts.
pub fn usage(subvolume: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let own = id(subvolume)?;
    // `struct btrfs_qgroup_info_item`: generation, referenced.
    Ok(item(subvolume, QUOTA_TREE, 0, QGROUP_USAGE, [own, own])?.map(|item| word(&item, 1)))
}

/// Lets a subvolume grow to this many bytes, then EDQUOT. Where no quotas are counted, that is switched on: simple
/// quotas, or full ones on kernels that have none. The quota has the number of the subvolume.
pub fn limit(subvolume: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    const ENABLE: u64 = 1;
    const ENABLE_SIMPLE: u64 = 4;
    if quotas(subvolume)? == Quotas::Off {
        let enable = |command| QUOTA_CONTROL.call(subvolume, &mut Control { command, status: 0 });
        enable(ENABLE_SIMPLE).or_else(|_too_old| enable(ENABLE))?;
    }
    let group = id(subvolume)?;
    // BTRFS_QGROUP_LIMIT_MAX_RFER
    let limit = || Limit { group, flags: 1, referenced: bytes, exclusive: 0, reserved: [0; 2] };
    match QGROUP_LIMIT.call(subvolume, &mut limit()) {
        // It was made before quotas were switched on.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            QGROUP_CREATE.call(subvolume, &mut Group { create: 1, id: group })?;
            QGROUP_LIMIT.call(subvolume, &mut limit())
        }
        other => other,
    }
}

/// Takes away what is kept of a subvolume that is gone. Newer kernels do that themselves (EBUSY until they have).
pub fn forget_limit(on: BorrowedFd<'_>, group: u64) -> io::Result<()> {
    QGROUP_CREATE.call(on, &mut Group { create: 0, id: group })
}

/// Bytes of one kind of block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Set aside for this kind.
    pub total: u64,
    pub used: u64,
}

/// As `btrfs filesystem df` shows them, profiles summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spaces {
    pub data: Space,
    pub metadata: Space,
}

/// `struct btrfs_ioctl_space_args` and what follows it: flags, total, used of each.
#[repr(C)]
struct SpaceSlots {
    slots: u64,
    spaces: u64,
    found: [[u64; 3]; 64],
}

/// `_IOWR` with the size of the first two words alone.
const SPACES: Request<SpaceSlots> =
    Request(((READ | WRITE) << 30 | 16 << 16 | 0x94 << 8 | 20) as libc::Ioctl, PhantomData);

pub fn spaces(on: BorrowedFd<'_>) -> io::Result<Spaces> {
    let mut slots = SpaceSlots { slots: 64, spaces: 0, found: [[0; 3]; 64] };
    SPACES.call(on, &mut slots)?;
    let mut spaces = Spaces::default();
    for [flags, total, used] in slots.found.into_iter().take(usize::try_from(slots.spaces).unwrap_or(64)) {
        // BTRFS_BLOCK_GROUP_DATA, _METADATA; the global reserve is part of the latter.
        let space = match flags & ((1 << 49) | 0b101) {
            flags if flags & 1 != 0 => &mut spaces.data,
            4 => &mut spaces.metadata,
            _ => continue,
        };
        space.total += total;
        space.used += used;
    }
    Ok(spaces)
}

/// `struct btrfs_ioctl_send_args`.
#[repr(C)]
struct Send {
    to: i64,
    clone_sources: u64,
    clone_source: u64,
    parent: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

const SEND: Request<Send> = Request::new(WRITE, 38);
/// BTRFS_SEND_FLAG_NO_FILE_DATA
const NO_DATA: u64 = 1;

/// Writes to the pipe `to` what makes of subvolume `parent` the subvolume `of`, without the bytes of files (a
/// stream of version 1). Both are read-only. Needs CAP_SYS_ADMIN.
pub fn send_changes(of: BorrowedFd<'_>, parent: u64, to: impl AsFd) -> io::Result<()> {
    let to = to.as_fd().as_raw_fd().into();
    let mut send =
        Send { to, clone_sources: 0, clone_source: 0, parent, flags: NO_DATA, version: 0, reserved: [0; 28] };
    SEND.call(of, &mut send)
}
