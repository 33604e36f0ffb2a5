//! The behaviour suite of storage drivers: every driver runs all of it by one line at the end; and
//! `Snapshots` on each.

mod left;

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use outcrop::error::Kind;
use outcrop::snapshot::driver::{self, Driver, Mount, Options, Setting, Shape, SnapshotId};
use outcrop::sys::mount::{Attributes, detached};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::sandbox::Sandbox;
use crate::zfs::Pool;

/// A driver on a root of its own.
struct Bench {
    /// Of the driver `zfs`; it ends before its sandbox.
    _pool: Option<Pool>,
    sandbox: Sandbox,
    root: PathBuf,
    driver: Box<dyn Driver>,
    /// What the root is on, if it is a filesystem of its own, mounted where nobody sees it.
    _disk: Option<OwnedFd>,
    next: Cell<u64>,
}

/// Sealed snapshots as the driver wants them for a stack: nearest first; of a Stacked one the nearest alone.
type Stack = Vec<SnapshotId>;

/// Without options.
fn setting(root: &Path) -> Setting<'_> {
    static NONE: LazyLock<Options> = LazyLock::new(Options::default);
    Setting { root, options: &NONE }
}

fn select(root: &Path, wanted: Option<&str>) -> outcrop::error::Result<driver::Selected> {
    driver::select(&setting(root), wanted)
}

/// A detached mount, as a path.
struct Seen(OwnedFd);

impl Seen {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/.", self.0.as_raw_fd()))
    }
    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }
    fn names(&self, dir: &str) -> Vec<String> {
        names(&self.at(dir))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Bench {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.root()).unwrap();
        let pool = (name == "zfs").then(|| Pool::new(&sandbox));
        let options = pool.as_ref().map(|_| Pool::options()).unwrap_or_default();
        let setting = Setting { root: &sandbox.root(), options: &options };
        let driver = driver::select(&setting, Some(name)).unwrap().driver;
        Bench { root: sandbox.root(), _pool: pool, sandbox, driver, _disk: None, next: Cell::new(1) }
    }
    /// The same on a new filesystem of this kind.
    fn on_filesystem(name: &str, kind: &str) -> Self {
        let sandbox = Sandbox::new();
        let disk = match kind {
            "tmpfs" => outcrop::sys::mount::tmpfs(Some(256 << 20), 0o755, Attributes::NONE).unwrap(),
            _ => new_disk(&sandbox, kind),
        };
        let root = PathBuf::from(format!("/proc/self/fd/{}/.", disk.as_raw_fd()));
        let driver = select(&root, Some(name)).unwrap().driver;
        Bench { root, _pool: None, sandbox, driver, _disk: Some(disk), next: Cell::new(1) }
    }
    /// In a machine: small, and with this filesystem in its volumes.
    fn devicemapper(filesystem: &str) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir_all(sandbox.root().join("trash")).unwrap();
        let kind = format!("dm.fs={filesystem}");
        let said = ["dm.basesize=512M", "dm.loopdatasize=4G", "dm.loopmetadatasize=32M", &kind];
        let options = Options::parse(&said).unwrap();
        let setting = Setting { root: &sandbox.root(), options: &options };
        let driver = driver::open(&setting, "devicemapper").unwrap();
        Bench { root: sandbox.root(), _pool: None, sandbox, driver, _disk: None, next: Cell::new(1) }
    }
    fn number(&self) -> SnapshotId {
        SnapshotId(self.next.replace(self.next.get() + 1))
    }
    fn open(&self, mount: &Mount) -> Seen {
        Seen(detached(mount).unwrap())
    }
    fn create(&self, below: &[SnapshotId]) -> SnapshotId {
        let id = self.number();
        self.driver.create(id, below).unwrap();
        id
    }
    /// A sealed snapshot on a stack, changed through its mount.
    fn on(&self, below: &[SnapshotId], change: impl FnOnce(&Seen)) -> Stack {
        let id = self.create(below);
        change(&self.open(&self.driver.mount(id, below).unwrap()));
        self.driver.release(id).unwrap();
        self.driver.seal(id).unwrap();
        match self.driver.shape() {
            Shape::Layered => [&[id], below].concat(),
            Shape::Stacked => vec![id],
        }
    }
    fn base(&self, change: impl FnOnce(&Seen)) -> Stack {
        self.on(&[], change)
    }
    fn tree(&self, id: SnapshotId) -> Seen {
        Seen(self.driver.tree(id).unwrap().dir)
    }
    fn view(&self, stack: &[SnapshotId]) -> Seen {
        self.open(&self.driver.view(stack).unwrap())
    }
}

/// A disk in a file; the loop device goes with the mount.
pub(crate) fn new_disk(sandbox: &Sandbox, kind: &str) -> OwnedFd {
    let image = sandbox.dir().join("disk");
    fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
    let device = run(Command::new("losetup").args(["-f", "--show"]).arg(&image));
    let mounted = || -> rustix::io::Result<OwnedFd> {
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "source", device.as_str())?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let disk = mounted();
    run(Command::new("losetup").arg("-d").arg(&device));
    disk.unwrap()
}

fn what_is_written_is_seen_from_then_on(bench: &Bench) {
    let stack = bench.base(|root| fs::write(root.at("file"), "content").unwrap());
    assert_eq!(bench.view(&stack).read("file"), "content");
}

fn a_view_cannot_be_written(bench: &Bench) {
    let stack = bench.base(|root| fs::write(root.at("file"), "").unwrap());
    let view = bench.view(&stack);
    assert_eq!(fs::write(view.at("file"), "x").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::create_dir(view.at("dir")).unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

fn a_view_of_nothing_is_an_empty_directory(bench: &Bench) {
    assert_eq!(bench.view(&[]).names(""), [""; 0]);
}

/// From outside: the filesystem that the mount is, and the layout that people know.
fn the_driver_itself_serves(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::write(mounted.at("above"), "").unwrap();
    let kind = rustix::fs::fstatfs(&mounted.0).unwrap().f_type;
    let own = rustix::fs::statfs(&bench.root).unwrap().f_type;
    match bench.driver.name() {
        "overlay2" => {
            assert_eq!(kind, 0x794c_7630);
            assert_eq!(names(&bench.root.join("overlay2/2/diff")), ["above"]);
            assert_eq!(names(&bench.root.join("overlay2/1/diff")), ["below"]);
        }
        "vfs" => {
            assert_eq!(kind, own);
            assert_eq!(names(&bench.root.join("vfs/dir/2")), ["above", "below"]);
            assert_eq!(names(&bench.root.join("vfs/dir/1")), ["below"]);
        }
        "zfs" => {
            assert_eq!(kind, if crate::zfs::in_the_kernel() { 0x2fc1_2fc1 } else { 0x6573_5546 });
            assert_eq!(names(&bench.root.join("zfs/graph/2")), ["above", "below"]);
            assert_eq!(names(&bench.root.join("zfs/graph/1")), ["below"]);
            assert_eq!(crate::zfs::datasets(), ["1", "1@2", "2"]);
        }
        // tests/devicemapper.rs looks at its devices.
        "devicemapper" => assert_eq!(names(&bench.root.join("devicemapper/snapshots")), ["1", "2"]),
        "btrfs" => {
            assert_eq!(kind, 0x9123_683e);
            assert_eq!(names(&bench.root.join("btrfs/subvolumes/2")), ["above", "below"]);
            assert_eq!(names(&bench.root.join("btrfs/subvolumes/1")), ["below"]);
            assert_eq!(mounted.at("").metadata().unwrap().ino(), 256);
        }
        "overlay" => {
            assert_eq!(kind, 0x794c_7630);
            assert_eq!(names(&bench.root.join("overlay/2/upper")), ["above"]);
            assert_eq!(names(&bench.root.join("overlay/1/root")), ["below"]);
        }
        other => panic!("say here how {other} looks from outside"),
    }
}

/// Each deletes what the one below it made. Where a snapshot takes a tenth of a second, fewer must do.
fn stacks_of_many_layers_show_through(bench: &Bench) {
    let most = match bench.driver.name() {
        "devicemapper" => 50,
        "zfs" if crate::zfs::in_the_kernel() => 50,
        "zfs" => 200,
        _ => 600,
    };
    let mut stack = bench.base(|root| fs::write(root.at("first"), "").unwrap());
    for depth in 2..=most {
        stack = bench.on(&stack, |root| {
            fs::write(root.at("all"), depth.to_string()).unwrap();
            fs::write(root.at(format!("of-{depth}")), "").unwrap();
            if depth > 2 {
                fs::remove_file(root.at(format!("of-{}", depth - 1))).unwrap();
            }
        });
        if [2, 50, 200, 501, 600].contains(&depth) {
            let view = bench.view(&stack);
            assert_eq!(view.names(""), ["all", "first", &format!("of-{depth}")]);
            assert_eq!(view.read("all"), depth.to_string());
        }
    }
}

fn a_child_changes_nothing_below_it(bench: &Bench) {
    let parent = bench.base(|root| {
        fs::write(root.at("kept"), "kept").unwrap();
        fs::write(root.at("changed"), "before").unwrap();
        fs::write(root.at("deleted"), "").unwrap();
        fs::write(root.at("moved"), "moved").unwrap();
    });
    let child = bench.on(&parent, |root| {
        let mut file = fs::OpenOptions::new().append(true).open(root.at("changed")).unwrap();
        file.write_all(b" and after").unwrap();
        fs::remove_file(root.at("deleted")).unwrap();
        fs::rename(root.at("moved"), root.at("elsewhere")).unwrap();
        fs::set_permissions(root.at("kept"), Permissions::from_mode(0o600)).unwrap();
    });
    let (below, above) = (bench.view(&parent), bench.view(&child));
    assert_eq!(below.names(""), ["changed", "deleted", "kept", "moved"]);
    assert_eq!(below.read("changed"), "before");
    assert_eq!(below.at("kept").metadata().unwrap().mode() & 0o7777, 0o644);
    assert_eq!(above.names(""), ["changed", "elsewhere", "kept"]);
    assert_eq!(above.read("changed"), "before and after");
    assert_eq!(above.at("kept").metadata().unwrap().mode() & 0o7777, 0o600);
}

fn two_children_do_not_see_each_other(bench: &Bench) {
    let parent = bench.base(|root| fs::write(root.at("file"), "0").unwrap());
    let one = bench.on(&parent, |root| fs::write(root.at("file"), "1").unwrap());
    let two = bench.on(&parent, |root| fs::write(root.at("file"), "2").unwrap());
    let read = |stack| bench.view(stack).read("file");
    assert_eq!([read(&parent), read(&one), read(&two)], ["0", "1", "2"]);
}

fn what_was_deleted_stays_so_until_it_is_made_again(bench: &Bench) {
    let first = bench.base(|root| {
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("dir/one"), "1").unwrap();
        fs::write(root.at("dir/two"), "2").unwrap();
    });
    let second = bench.on(&first, |root| fs::remove_file(root.at("dir/one")).unwrap());
    let third = bench.on(&second, |root| fs::write(root.at("unrelated"), "").unwrap());
    assert_eq!(bench.view(&third).names("dir"), ["two"]);
    let fourth = bench.on(&third, |root| fs::write(root.at("dir/one"), "again").unwrap());
    assert_eq!(bench.view(&fourth).read("dir/one"), "again");
}

fn a_replaced_directory_hides_what_was_in_it(bench: &Bench) {
    let first = bench.base(|root| {
        fs::create_dir_all(root.at("dir/below")).unwrap();
        fs::write(root.at("dir/old"), "").unwrap();
    });
    let second = bench.on(&first, |root| {
        fs::remove_dir_all(root.at("dir")).unwrap();
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("dir/new"), "").unwrap();
    });
    let third = bench.on(&second, |root| fs::write(root.at("dir/newer"), "").unwrap());
    assert_eq!(bench.view(&third).names("dir"), ["new", "newer"]);
    assert_eq!(bench.view(&first).names("dir"), ["below", "old"]);
}

fn names_change_their_kind(bench: &Bench) {
    let first = bench.base(|root| {
        fs::write(root.at("file-dir"), "").unwrap();
        fs::create_dir_all(root.at("dir-file/inside")).unwrap();
        fs::create_dir(root.at("target")).unwrap();
        fs::write(root.at("target/inside"), "").unwrap();
        symlink("target", root.at("link-dir")).unwrap();
        fs::create_dir(root.at("dir-link")).unwrap();
    });
    let second = bench.on(&first, |root| {
        fs::remove_file(root.at("file-dir")).unwrap();
        fs::create_dir(root.at("file-dir")).unwrap();
        fs::remove_dir_all(root.at("dir-file")).unwrap();
        fs::write(root.at("dir-file"), "file").unwrap();
        fs::remove_file(root.at("link-dir")).unwrap();
        fs::create_dir(root.at("link-dir")).unwrap();
        fs::remove_dir(root.at("dir-link")).unwrap();
        symlink("target", root.at("dir-link")).unwrap();
    });
    let third = bench.on(&second, |root| {
        fs::remove_dir(root.at("file-dir")).unwrap();
        fs::write(root.at("file-dir"), "back").unwrap();
        fs::remove_file(root.at("dir-file")).unwrap();
        fs::create_dir(root.at("dir-file")).unwrap();
    });
    let view = bench.view(&second);
    assert!(view.at("file-dir").is_dir());
    assert_eq!(view.read("dir-file"), "file");
    assert_eq!(view.names("link-dir"), [""; 0]);
    assert_eq!(view.names("target"), ["inside"]);
    assert_eq!(fs::read_link(view.at("dir-link")).unwrap(), Path::new("target"));
    let view = bench.view(&third);
    assert_eq!(view.read("file-dir"), "back");
    assert_eq!(view.names("dir-file"), [""; 0]);
}

fn hard_links_stay_one_file(bench: &Bench) {
    let first = bench.base(|root| {
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("one"), "linked").unwrap();
        fs::hard_link(root.at("one"), root.at("dir/two")).unwrap();
        fs::hard_link(root.at("one"), root.at("three")).unwrap();
        symlink("nowhere", root.at("link")).unwrap();
        rustix::fs::linkat(CWD, root.at("link"), CWD, root.at("link2"), rustix::fs::AtFlags::empty())
            .unwrap();
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    for stack in [first, second] {
        let view = bench.view(&stack);
        let inode = |name| view.at(name).symlink_metadata().map(|meta| (meta.ino(), meta.nlink())).unwrap();
        assert_eq!([inode("dir/two"), inode("three")], [inode("one"), inode("one")]);
        // Two trees have it there.
        let shared = if bench.driver.name() == "overlay" { 2 } else { 1 };
        assert_eq!(inode("one").1, 3 * shared);
        assert_eq!(inode("link"), inode("link2"));
    }
}

fn devices_fifos_and_sockets_are_kept(bench: &Bench) {
    let first = bench.base(|root| {
        let make = |name, kind, mode, (major, minor)| {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(CWD, root.at(name), kind, Mode::empty(), device).unwrap();
            fs::set_permissions(root.at(name), Permissions::from_mode(mode)).unwrap();
        };
        make("null", FileType::CharacterDevice, 0o666, (1, 3));
        make("loop", FileType::BlockDevice, 0o660, (7, 300));
        make("fifo", FileType::Fifo, 0o640, (0, 0));
        make("socket", FileType::Socket, 0o600, (0, 0));
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    let device = |name| {
        let meta = view.at(name).symlink_metadata().unwrap();
        (meta.mode(), rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
    };
    assert_eq!(device("null"), (0o020_666, 1, 3));
    assert_eq!(device("loop"), (0o060_660, 7, 300));
    assert_eq!(device("fifo"), (0o010_640, 0, 0));
    assert!(view.at("socket").symlink_metadata().unwrap().file_type().is_socket());
}

/// `cap_net_raw+ep`, as `setcap` writes it (capability.h, VFS_CAP_REVISION_2).
const NET_RAW: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 70_000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

fn owners_modes_xattrs_and_capabilities_are_kept(bench: &Bench) {
    let set = |path: PathBuf, name, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    let first = bench.base(|root| {
        fs::write(root.at("program"), "").unwrap();
        chown(root.at("program"), Some(2_097_152), Some(5)).unwrap();
        fs::set_permissions(root.at("program"), Permissions::from_mode(0o6755)).unwrap();
        set(root.at("program"), "security.capability", NET_RAW);
        set(root.at("program"), "user.empty", b"");
        set(root.at("program"), "user.bytes", b"\x00\xff\n");
        fs::create_dir(root.at("dir")).unwrap();
        set(root.at("dir"), "trusted.mark", b"dir");
        fs::set_permissions(root.at("dir"), Permissions::from_mode(0o1000)).unwrap();
        symlink("nowhere", root.at("link")).unwrap();
        set(root.at("link"), "trusted.mark", b"link");
        std::os::unix::fs::lchown(root.at("link"), Some(3), Some(4)).unwrap();
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    let program = view.at("program");
    let meta = program.metadata().unwrap();
    assert_eq!((meta.mode(), meta.uid(), meta.gid()), (0o106_755, 2_097_152, 5));
    assert_eq!(xattr(&program, "security.capability"), NET_RAW);
    assert_eq!(xattr(&program, "user.empty"), b"");
    assert_eq!(xattr(&program, "user.bytes"), b"\x00\xff\n");
    assert_eq!(xattr(&view.at("dir"), "trusted.mark"), b"dir");
    assert_eq!(view.at("dir").metadata().unwrap().mode(), 0o041_000);
    assert_eq!(xattr(&view.at("link"), "trusted.mark"), b"link");
    let link = view.at("link").symlink_metadata().unwrap();
    assert_eq!((link.uid(), link.gid()), (3, 4));
}

fn is_zfs_fuse(bench: &Bench) -> bool {
    bench.driver.name() == "zfs" && !crate::zfs::in_the_kernel()
}

fn times_are_kept_those_of_directories_too(bench: &Bench) {
    // zfs-fuse keeps whole seconds.
    let nanoseconds = if is_zfs_fuse(bench) { 0 } else { 123_456_789 };
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, nanoseconds);
    let before_1970 = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1_000);
    let first = bench.base(|root| {
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("dir/file"), "x").unwrap();
        fs::File::open(root.at("dir/file")).unwrap().set_modified(before_1970).unwrap();
        fs::File::open(root.at("dir")).unwrap().set_modified(time).unwrap();
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    assert_eq!(view.at("dir").metadata().unwrap().modified().unwrap(), time);
    assert_eq!(view.at("dir/file").metadata().unwrap().modified().unwrap(), before_1970);
}

fn holes_stay_holes(bench: &Bench) {
    const SIZE: u64 = 8 << 30;
    let first = bench.base(|root| {
        let mut file = fs::File::create(root.at("sparse")).unwrap();
        file.seek(SeekFrom::Start(SIZE / 2)).unwrap();
        file.write_all(b"middle").unwrap();
        file.set_len(SIZE).unwrap();
        fs::File::create(root.at("empty")).unwrap().set_len(SIZE).unwrap();
    });
    let second = bench.on(&first, |root| {
        fs::set_permissions(root.at("sparse"), Permissions::from_mode(0o600)).unwrap();
    });
    let view = bench.view(&second);
    let meta = view.at("sparse").metadata().unwrap();
    assert_eq!(meta.len(), SIZE);
    // overlayfs copies up in pieces of 1 MiB.
    assert!(meta.blocks() * 512 <= 1 << 20, "{} blocks", meta.blocks());
    let mut middle = [0; 8];
    let file = fs::File::open(view.at("sparse")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut middle, SIZE / 2 - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
    // ZFS counts the block of the inode.
    let own = u64::from(bench.driver.name() == "zfs");
    assert_eq!(view.at("empty").metadata().unwrap().blocks(), own);
}

fn any_name_is_kept(bench: &Bench) {
    let odd: Vec<OsString> = [
        vec![b'n'; 255],
        b"\xff\xfe not utf-8".to_vec(),
        b"line\nbreak".to_vec(),
        b"colon:comma,back\\slash".to_vec(),
        b" ".to_vec(),
        "\u{1F9F1}".as_bytes().to_vec(),
    ]
    .map(OsString::from_vec)
    .into();
    let first = bench.base(|root| {
        for name in &odd {
            fs::create_dir(root.at(name)).unwrap();
            fs::write(root.at(name).join(name), "").unwrap();
        }
    });
    let second = bench.on(&first, |root| fs::remove_file(root.at(&odd[0]).join(&odd[0])).unwrap());
    let view = bench.view(&second);
    let mut seen: Vec<OsString> =
        fs::read_dir(view.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut expected = odd.clone();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    assert!(!view.at(&odd[0]).join(&odd[0]).exists());
    assert!(odd[1..].iter().all(|name| view.at(name).join(name).exists()));
}

fn the_root_keeps_its_owner_mode_and_xattrs(bench: &Bench) {
    let of = |view: &Seen| {
        let meta = view.path().metadata().unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    let first = bench.base(|root| assert_eq!(of(root), (0o755, 0, 0)));
    let second = bench.on(&first, |root| {
        chown(root.path(), Some(7), Some(8)).unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o3711)).unwrap();
        rustix::fs::setxattr(root.path(), "trusted.mark", b"root", XattrFlags::empty()).unwrap();
    });
    let third = bench.on(&second, |root| fs::write(root.at("unrelated"), "").unwrap());
    assert_eq!(of(&bench.view(&first)), (0o755, 0, 0));
    for stack in [second, third] {
        assert_eq!(of(&bench.view(&stack)), (0o3711, 7, 8));
        assert_eq!(xattr(&bench.view(&stack).path(), "trusted.mark"), b"root");
    }
}

/// 40 x 255 bytes is more than twice PATH_MAX.
fn trees_deeper_than_any_path_are_kept_and_removed(bench: &Bench) {
    let name = OsString::from_vec(vec![b'd'; 255]);
    let first = bench.base(|root| {
        let mut at = rustix::fs::openat(&root.0, c".", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..40 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            rustix::fs::openat(
                &at,
                c"file",
                rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
                Mode::RUSR,
            )
            .unwrap();
            at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        }
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    let mut depth = 0;
    let mut at = rustix::fs::openat(&view.0, c".", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    while let Ok(below) = rustix::fs::openat(&at, &name, rustix::fs::OFlags::RDONLY, Mode::empty()) {
        assert!(rustix::fs::statat(&at, c"file", rustix::fs::AtFlags::empty()).is_ok());
        (at, depth) = (below, depth + 1);
    }
    assert_eq!(depth, 40);
    drop((view, at));
    for number in 1..=2 {
        bench.driver.remove(SnapshotId(number)).unwrap();
    }
    nothing_is_left(bench);
}

/// Deeper than the directories that removal keeps open, and wide down there.
fn trees_of_many_levels_are_removed(bench: &Bench) {
    bench.base(|root| {
        let deep = root.at(vec!["d"; 200].join("/"));
        fs::create_dir_all(&deep).unwrap();
        for number in 0..20 {
            fs::create_dir_all(deep.join(format!("{number}/x/y"))).unwrap();
        }
    });
    bench.driver.remove(SnapshotId(1)).unwrap();
    nothing_is_left(bench);
}

fn what_even_root_may_not_delete_is_removed(bench: &Bench) {
    let id = bench.create(&[]);
    let tree = bench.tree(id);
    fs::create_dir(tree.at("dir")).unwrap();
    fs::write(tree.at("dir/file"), "").unwrap();
    for path in ["dir/file", "dir"] {
        let file = fs::File::open(tree.at(path)).unwrap();
        // zfs-fuse has no such flags.
        if is_zfs_fuse(bench) {
            continue;
        }
        rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE).unwrap();
    }
    bench.driver.remove(id).unwrap();
    nothing_is_left(bench);
}

fn nothing_is_left(bench: &Bench) {
    assert_eq!(bench.driver.list().unwrap(), []);
    let trash = bench.root.join("trash");
    assert!(!trash.exists() || names(&trash).is_empty());
}

fn a_snapshot_is_removed_while_it_is_mounted(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::write(mounted.at("above"), "").unwrap();
    let open = fs::File::open(mounted.at("below")).unwrap();
    for id in [id, below[0]] {
        bench.driver.remove(id).unwrap();
    }
    nothing_is_left(bench);
    drop((mounted, open));
    nothing_is_left(bench);
}

fn everything_but_create_may_be_done_again(bench: &Bench) {
    let id = bench.create(&[]);
    assert_eq!(bench.driver.create(id, &[]).unwrap_err().kind(), Kind::Conflict);
    for _ in 0..2 {
        bench.driver.release(id).unwrap();
        bench.driver.seal(id).unwrap();
        bench.driver.sync(&[id]).unwrap();
    }
    for _ in 0..2 {
        bench.driver.remove(id).unwrap();
    }
    bench.driver.remove(SnapshotId(4_711)).unwrap();
    nothing_is_left(bench);
}

fn a_parent_may_go_before_its_child_is_removed(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    bench.driver.remove(below[0]).unwrap();
    bench.driver.remove(id).unwrap();
    nothing_is_left(bench);
}

/// As one finds it after a kill or a power cut: something of everything, and another process.
fn the_rest_of_a_killed_process_is_removed(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::write(mounted.at("above"), "").unwrap();
    drop(mounted);
    let again = driver::open(&setting(&bench.root), bench.driver.name()).unwrap();
    assert_eq!(again.list().unwrap().len(), 2);
    again.remove(id).unwrap();
    // A removal that was killed after its first step.
    if again.name() == "zfs" {
        fs::write(bench.root.join(format!("zfs/removed/{}", below[0])), "").unwrap();
        assert_eq!(again.list().unwrap(), []);
        again.remove(below[0]).unwrap();
        assert_eq!(crate::zfs::datasets(), [""; 0]);
        return nothing_is_left(bench);
    }
    if again.name() == "devicemapper" {
        let records = bench.root.join("devicemapper");
        let of = |state: &str| records.join(state).join(below[0].to_string());
        fs::rename(of("snapshots"), of("deleted")).unwrap();
        again.remove(below[0]).unwrap();
        // Of the other one the first driver still has its mount.
        assert_eq!(names(&records.join("deleted")), ["2"]);
        return nothing_is_left(bench);
    }
    begin_removal(bench, below[0]);
    again.remove(below[0]).unwrap();
    nothing_is_left(bench);
}

/// Its first step, as each driver does it.
fn begin_removal(bench: &Bench, id: SnapshotId) {
    let path = bench.driver.path(id);
    let number = id.to_string();
    let home = path.ancestors().find(|at| at.ends_with(&number)).unwrap();
    if bench.driver.name() == "btrfs" {
        let dir = fs::File::open(home).unwrap();
        outcrop::sys::btrfs::set_read_only(std::os::fd::AsFd::as_fd(&dir), false).unwrap();
    }
    fs::rename(home, bench.root.join(format!("trash/{}-{id}", bench.driver.name()))).unwrap();
}

fn a_tree_is_written_without_a_mount(bench: &Bench) {
    let id = bench.create(&[]);
    let tree = bench.tree(id);
    fs::write(tree.at("file"), "applied").unwrap();
    drop(tree);
    bench.driver.seal(id).unwrap();
    assert_eq!(bench.view(&[id]).read("file"), "applied");
}

/// Where a driver says that the changes lie, there they lie, and nothing else does.
fn a_delta_holds_the_changes_alone(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let above = bench.on(&below, |root| fs::write(root.at("above"), "").unwrap());
    match bench.driver.delta(above[0]) {
        Some(delta) => assert_eq!(names(&delta.dir), ["above"]),
        None => assert_eq!(bench.driver.shape(), Shape::Stacked),
    }
}

fn a_copy_is_made_of_what_is_not_sealed(bench: &Bench) {
    let below = bench.base(|root| {
        fs::create_dir(root.at("replaced")).unwrap();
        fs::write(root.at("replaced/old"), "").unwrap();
        fs::write(root.at("deleted"), "").unwrap();
    });
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::remove_file(mounted.at("deleted")).unwrap();
    fs::remove_dir_all(mounted.at("replaced")).unwrap();
    fs::create_dir(mounted.at("replaced")).unwrap();
    fs::write(mounted.at("replaced/new"), "").unwrap();
    let copy = bench.number();
    bench.driver.copy(copy, id).unwrap();
    fs::write(mounted.at("later"), "").unwrap();
    bench.driver.seal(copy).unwrap();
    let stack =
        if bench.driver.shape() == Shape::Layered { [&[copy], &below[..]].concat() } else { vec![copy] };
    let view = bench.view(&stack);
    assert_eq!(view.names(""), ["replaced"]);
    assert_eq!(view.names("replaced"), ["new"]);
    assert_eq!(mounted.names(""), ["later", "replaced"]);
}

fn a_mount_is_made_again_after_it_is_gone(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    for number in 0..3 {
        let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
        fs::write(mounted.at(number.to_string()), "").unwrap();
        assert_eq!(mounted.names("").len(), 2 + number);
        drop(mounted);
        bench.driver.release(id).unwrap();
    }
}

fn an_open_file_outlives_its_mount(bench: &Bench) {
    let stack = bench.base(|root| fs::write(root.at("file"), "content").unwrap());
    let view = bench.view(&stack);
    let file = fs::File::open(view.at("file")).unwrap();
    drop(view);
    assert_eq!(std::io::read_to_string(file).unwrap(), "content");
}

fn eight_writers_at_once(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "below").unwrap());
    let driver = &bench.driver;
    std::thread::scope(|scope| {
        for writer in 1..=8u64 {
            let below = &below;
            scope.spawn(move || {
                for round in 0..5 {
                    let id = SnapshotId(writer * 100 + round);
                    driver.create(id, below).unwrap();
                    let mounted = Seen(detached(&driver.mount(id, below).unwrap()).unwrap());
                    fs::write(mounted.at("own"), writer.to_string()).unwrap();
                    fs::remove_file(mounted.at("below")).unwrap();
                    assert_eq!(mounted.names(""), ["own"]);
                    drop(mounted);
                    driver.seal(id).unwrap();
                    driver.sync(&[id]).unwrap();
                    if round > 0 {
                        driver.remove(id).unwrap();
                    }
                }
            });
        }
    });
    let mut left = driver.list().unwrap();
    left.sort();
    assert_eq!(left, [1, 100, 200, 300, 400, 500, 600, 700, 800].map(SnapshotId));
    assert_eq!(bench.view(&below).read("below"), "below");
}

macro_rules! suite {
    ($dollar:tt $($test:ident)*) => {
        macro_rules! driver {
            ($dollar name:ident) => {
                mod $dollar name {
                    $(
                        #[test]
                        fn $test() {
                            super::$test(&super::Bench::new(stringify!($dollar name)));
                        }
                    )*
                }
            };
            ($dollar name:ident in_a_machine on $dollar kind:ident) => {
                mod $dollar kind {
                    $(
                        #[test]
                        #[ignore = "tests/devicemapper.rs runs it in a machine"]
                        fn $test() {
                            super::super::$test(&super::super::Bench::$dollar name(stringify!($dollar kind)));
                        }
                    )*
                }
            };
            ($dollar name:ident on $dollar kind:ident) => {
                mod $dollar kind {
                    $(
                        #[test]
                        fn $test() {
                            let (name, kind) = (stringify!($dollar name), stringify!($dollar kind));
                            super::super::$test(&super::super::Bench::on_filesystem(name, kind));
                        }
                    )*
                }
            };
        }
    };
}

suite! { $
    what_is_written_is_seen_from_then_on
    a_view_cannot_be_written
    a_view_of_nothing_is_an_empty_directory
    the_driver_itself_serves
    stacks_of_many_layers_show_through
    a_child_changes_nothing_below_it
    two_children_do_not_see_each_other
    what_was_deleted_stays_so_until_it_is_made_again
    a_replaced_directory_hides_what_was_in_it
    names_change_their_kind
    hard_links_stay_one_file
    devices_fifos_and_sockets_are_kept
    owners_modes_xattrs_and_capabilities_are_kept
    times_are_kept_those_of_directories_too
    holes_stay_holes
    any_name_is_kept
    the_root_keeps_its_owner_mode_and_xattrs
    trees_deeper_than_any_path_are_kept_and_removed
    trees_of_many_levels_are_removed
    what_even_root_may_not_delete_is_removed
    a_snapshot_is_removed_while_it_is_mounted
    everything_but_create_may_be_done_again
    a_parent_may_go_before_its_child_is_removed
    the_rest_of_a_killed_process_is_removed
    a_tree_is_written_without_a_mount
    a_delta_holds_the_changes_alone
    a_copy_is_made_of_what_is_not_sealed
    a_mount_is_made_again_after_it_is_gone
    an_open_file_outlives_its_mount
    eight_writers_at_once
}

driver!(overlay2);
driver!(zfs);
driver!(overlay);
driver!(vfs);

mod in_a_machine {
    use super::*;

    driver!(devicemapper in_a_machine on ext4);

    mod xfs {
        macro_rules! some {
            ($($test:ident)*) => {
                $(
                    #[test]
                    #[ignore = "tests/devicemapper.rs runs it in a machine"]
                    fn $test() {
                        super::super::$test(&super::super::Bench::devicemapper("xfs"));
                    }
                )*
            };
        }
        some! {
            a_child_changes_nothing_below_it
            owners_modes_xattrs_and_capabilities_are_kept
            holes_stay_holes
            a_snapshot_is_removed_while_it_is_mounted
            a_copy_is_made_of_what_is_not_sealed
        }
    }

    macro_rules! limited_by_projects {
        ($($name:ident: $driver:literal),*) => {$(
            #[test]
            #[ignore = "the host's kernel may have no quotas: it runs in the machine of tests/devicemapper.rs"]
            fn $name() {
                is_limited_by_projects($driver);
            }
        )*};
    }
    limited_by_projects! {
        overlay2_limits_containers_by_projects_of_xfs: "overlay2",
        overlay_limits_containers_by_projects_of_xfs: "overlay",
        vfs_limits_containers_by_projects_of_xfs: "vfs"
    }

    fn is_limited_by_projects(driver: &str) {
        let disk = Sandbox::new();
        let (image, root) = (disk.dir().join("disk"), disk.root());
        fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        fs::create_dir(&root).unwrap();
        let ran = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        ran(Command::new("mkfs.xfs").arg("-q").arg(&image));
        ran(Command::new("mount").args(["-o", "loop,prjquota"]).arg(&image).arg(&root));
        let driver = select(&root, Some(driver)).unwrap().driver;
        let bench =
            Bench { root: root.clone(), _pool: None, sandbox: disk, driver, _disk: None, next: Cell::new(1) };
        let below = bench.base(|root| {
            fs::write(root.at("below"), vec![1; 8 << 20]).unwrap();
            std::os::unix::fs::symlink("below", root.at("link")).unwrap();
        });
        let free = bench.create(&below);
        let limited = bench.create(&below);
        bench.driver.limit(limited, 4 << 20).unwrap();
        let write = |id, bytes: usize| {
            let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
            let mut file = fs::File::create(mounted.at("own")).unwrap();
            file.write_all(&vec![7; bytes]).and_then(|()| file.sync_all()).map_err(|error| error.kind())
        };
        assert_eq!(write(limited, 3 << 20), Ok(()));
        assert!(matches!(
            write(limited, 6 << 20),
            Err(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        ));
        assert_eq!(write(free, 6 << 20), Ok(()));
        // It is full, and can be mounted all the same. Room is given back, and what lies below counts only once it is copied up.
        let mounted = bench.open(&bench.driver.mount(limited, &below).unwrap());
        fs::remove_file(mounted.at("own")).unwrap();
        if bench.driver.name() != "vfs" {
            assert!(fs::OpenOptions::new().append(true).open(mounted.at("below")).is_err());
        }
        fs::rename(mounted.at("link"), mounted.at("moved")).unwrap();
        assert_eq!(fs::read(mounted.at("moved")).unwrap().len(), 8 << 20);
        drop(mounted);
        assert_eq!(write(limited, 3 << 20), Ok(()));
        let reported = || {
            let mut report = Command::new("xfs_quota");
            let output = report.args(["-x", "-c", "report -p -N -b"]).arg(&root).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        // Of vfs, what was there at first is no part of what is limited.
        let at_first = if bench.driver.name() == "vfs" { 8 << 10 } else { 0 };
        let limits = |reported: &str| -> Vec<u64> {
            let limits = reported.lines().filter_map(|line| line.split_whitespace().nth(3)?.parse().ok());
            limits.filter(|limit| *limit > 0).collect()
        };
        let report = reported();
        assert!(matches!(limits(&report)[..], [limit] if limit.abs_diff(4096 + at_first) < 100), "{report}");
        bench.driver.remove(limited).unwrap();
        assert_eq!(limits(&reported()), [0; 0]);
        bench.driver.remove(free).unwrap();
        bench.driver.remove(below[0]).unwrap();
        nothing_is_left(&bench);
        ran(Command::new("umount").arg("-l").arg(&root));
    }
}

/// The plain root of a test is on whatever there is.
mod btrfs_on {
    driver!(btrfs on btrfs);
}
mod overlay_on {
    driver!(overlay on xfs);
    driver!(overlay on btrfs);
    driver!(overlay on tmpfs);
}
mod overlay2_on {
    driver!(overlay2 on xfs);
    driver!(overlay2 on btrfs);
    driver!(overlay2 on tmpfs);
}
mod vfs_on {
    driver!(vfs on xfs);
    driver!(vfs on btrfs);
    driver!(vfs on tmpfs);
}

/// Where the filesystem can, a copy takes no room.
#[test]
fn vfs_shares_blocks_by_reflink() {
    for kind in ["xfs", "btrfs"] {
        let bench = Bench::on_filesystem("vfs", kind);
        let below = bench.base(|root| fs::write(root.at("big"), vec![7; 64 << 20]).unwrap());
        let used = || {
            bench.driver.sync(&[]).unwrap();
            let stat = rustix::fs::statvfs(&bench.root).unwrap();
            (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        };
        let before = used();
        let child = bench.on(&below, |_| {});
        assert!(used() < before + (8 << 20), "{kind}: {before} -> {}", used());
        assert_eq!(fs::read(bench.view(&child).at("big")).unwrap(), vec![7; 64 << 20]);
    }
}

/// Without CAP_SYS_ADMIN on the host: overlayfs without `userxattr` mounts there, and fails on what it deletes.
#[test]
fn overlay2_works_in_a_user_namespace() {
    let inside = "OUTCROP_TEST_IN_NAMESPACE";
    if std::env::var_os(inside).is_none() {
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "--propagation", "unchanged"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "snapshot::overlay2_works_in_a_user_namespace", "--nocapture"])
            .env(inside, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
        return;
    }
    for test in [
        what_is_written_is_seen_from_then_on,
        a_view_cannot_be_written,
        what_was_deleted_stays_so_until_it_is_made_again,
        a_replaced_directory_hides_what_was_in_it,
        names_change_their_kind,
        hard_links_stay_one_file,
        a_copy_is_made_of_what_is_not_sealed,
        the_rest_of_a_killed_process_is_removed,
        everything_but_create_may_be_done_again,
        eight_writers_at_once,
    ] {
        test(&Bench::new("overlay2"));
    }
    let bench = Bench::new("overlay2");
    let first = bench.base(|root| fs::create_dir(root.at("dir")).unwrap());
    let second = bench.on(&first, |root| {
        fs::remove_dir(root.at("dir")).unwrap();
        fs::create_dir(root.at("dir")).unwrap();
    });
    assert_eq!(xattr(&bench.driver.path(second[0]).join("dir"), "user.overlay.opaque"), b"y");
    let selected = select(&bench.root, None).unwrap();
    assert!(selected.reason.ends_with(", in a user namespace"), "{}", selected.reason);
}

/// Where the file system keeps no quotas the user is told what would.
#[test]
fn a_limit_that_cannot_be_kept_is_refused() {
    for (driver, kind) in [("overlay2", "xfs"), ("vfs", "tmpfs")] {
        let bench = Bench::on_filesystem(driver, kind);
        let id = bench.create(&[]);
        let error = bench.driver.limit(id, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{}", error.one_line());
        assert!(error.hint_text().unwrap().contains("size="), "{:?}", error.hint_text());
    }
}

#[test]
fn every_driver_of_the_table_runs_the_suite() {
    let text = include_str!("snapshot.rs");
    for entry in driver::TABLE {
        let name = entry.name;
        let lines = [
            format!("\ndriver!({name});"),
            format!("driver!({name} on "),
            format!("driver!({name} in_a_machine on "),
        ];
        assert!(lines.iter().any(|line| text.contains(line)), "{}", entry.name);
    }
}

#[test]
fn the_first_driver_that_works_is_selected_and_the_reason_is_kept() {
    let sandbox = Sandbox::new();
    let selected = select(sandbox.dir(), None).unwrap();
    assert_eq!(selected.driver.name(), "overlay2");
    assert!(selected.reason.starts_with("kernel overlayfs on "), "{}", selected.reason);
    assert!(selected.refused.is_empty());
}

/// The kernel has no overlay on overlay with an upper, so there the next one serves.
#[test]
fn where_overlayfs_cannot_work_vfs_is_selected() {
    let bench = Bench::new("overlay2");
    let below = bench.base(|_| {});
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    let selected = select(&mounted.path(), None).unwrap();
    assert_eq!(selected.driver.name(), "vfs");
    assert_eq!(selected.reason, "copies on overlayfs");
    let (name, why) = &selected.refused[0];
    assert_eq!(*name, "overlay2");
    assert!(why.starts_with("overlayfs cannot be mounted with its upper directory on overlayfs"), "{why}");
    let probed = driver::probe_all(&setting(&mounted.path()));
    // Each probe works under a name of its own.
    let (name, refused) = &probed[0];
    let again = refused.as_ref().unwrap_err();
    assert_eq!((*name, &again[..70]), ("overlay2", &why[..70]));
    assert_eq!(*probed.last().unwrap(), ("vfs", Ok("copies on overlayfs".into())));
    let Err(error) = select(&mounted.path(), Some("overlay2")) else { panic!("it works") };
    assert!(error.hint_text().is_some());
    let root = mounted.names("");
    assert_eq!(root, ["trash", "vfs"], "a probe leaves nothing");
}

#[test]
fn an_unknown_driver_is_refused_with_the_names_of_all() {
    let sandbox = Sandbox::new();
    let Err(error) = select(sandbox.dir(), Some("overlay3")) else { panic!("it is there") };
    assert_eq!(error.kind(), Kind::Invalid);
    let names: Vec<&str> = driver::TABLE.iter().map(|entry| entry.name).collect();
    assert_eq!(error.hint_text(), Some(&*format!("there are: {}", names.join(", "))));
}

#[test]
fn what_is_mounted_inside_stops_a_removal_and_stays_whole() {
    let bench = &Bench::new("vfs");
    let id = bench.create(&[]);
    let tree = bench.tree(id);
    fs::create_dir(tree.at("mounted")).unwrap();
    let precious = bench.sandbox.dir().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    rustix::mount::mount_bind(&precious, tree.at("mounted")).unwrap();
    let refused = bench.driver.remove(id);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mountinfo.lines().filter(|line| line.contains(bench.sandbox.dir().to_str().unwrap())) {
        let at = line.split(' ').nth(4).unwrap();
        rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    assert!(refused.is_err());
    assert_eq!(names(&precious), ["file"]);
    bench.driver.remove(id).unwrap();
    nothing_is_left(bench);
}
