//! Random trees and random changes: the layer that a driver's own way finds is that of a full comparison by contents, and
//! what it makes of the tree below is the tree.
//!
//! OUTCROP_CASES and OUTCROP_SEED make it longer and other.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outcrop::image::Digest;
use outcrop::job::Job;
use outcrop::layer::{Changes, Form, Kinship, PackOptions, apply, compare, pack};
use outcrop::snapshot::driver::{self, Driver, Mount, Options, Setting, Shape, SnapshotId, Stamps};
use outcrop::sys::mount::detached;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};

use super::disk::run;
use crate::sandbox::{Sandbox, all_paths, remove};
use crate::zfs::Pool;

/// xorshift64: the same changes with the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.below(2);
        }
        random
    }
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % bound as u64).unwrap()
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
    fn name(&mut self) -> OsString {
        const NAMES: [&[u8]; 14] = [
            b"a",
            b"b",
            b"c",
            b"dd",
            b"e e",
            b"\xff\xfe",
            b"\xc3\xbc",
            b"o257-7-0",
            b"n\nl",
            b"-",
            b"x.y",
            b"x",
            b".hidden",
            b"tmp",
        ];
        OsString::from_vec(self.pick(&NAMES).to_vec())
    }
    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 100, 4096, 5000, 70_000, 200_000][self.below(7)];
        let byte = u8::try_from(self.below(256)).unwrap();
        (0..length).map(|at: usize| byte.wrapping_add(u8::try_from(at % 251).unwrap())).collect()
    }
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    rustix::fs::utimensat(CWD, path, &time, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn keeping_mtime(path: &Path, change: impl FnOnce()) {
    let meta = fs::symlink_metadata(path).unwrap();
    change();
    set_mtime(path, meta.mtime(), meta.mtime_nsec());
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// overlayfs refuses to rename directories that lie below; the others do it.
fn rename(from: &Path, to: &Path) {
    use std::io::ErrorKind::{CrossesDevices, DirectoryNotEmpty, IsADirectory, NotADirectory};
    match fs::rename(from, to) {
        Ok(()) => {}
        Err(error)
            if [CrossesDevices, DirectoryNotEmpty, IsADirectory, NotADirectory].contains(&error.kind()) => {}
        Err(error) => panic!("{} -> {}: {error}", from.display(), to.display()),
    }
}

/// One of the things that somebody may do to a tree.
fn change(root: &Path, random: &mut Random) {
    let (dirs, others) = all_paths(root);
    let dir = random.pick(&dirs).clone();
    let fresh = dir.join(random.name());
    let any = if others.is_empty() { fresh.clone() } else { random.pick(&others).clone() };
    let kind = fs::symlink_metadata(&any).map(|meta| meta.file_type());
    let is_file = kind.as_ref().is_ok_and(fs::FileType::is_file);
    let is_there = kind.is_ok();
    let inside = dir != root;
    match random.below(40) {
        0..=3 => {
            remove(&fresh);
            fs::write(&fresh, random.bytes()).unwrap();
        }
        4 | 5 => {
            remove(&fresh);
            fs::create_dir(&fresh).unwrap();
            for _ in 0..random.below(4) {
                let name = fresh.join(random.name());
                remove(&name);
                fs::write(name, random.bytes()).unwrap();
            }
        }
        6 => {
            remove(&fresh);
            symlink(["x", "/etc", "../.."][random.below(3)], &fresh).unwrap();
        }
        7 if is_file => {
            let mut file = fs::OpenOptions::new().append(true).open(&any).unwrap();
            file.write_all(b"appended").unwrap();
        }
        // Same size, same time: the bytes alone tell.
        8 | 9 if is_file => keeping_mtime(&any, || {
            let file = fs::OpenOptions::new().read(true).write(true).open(&any).unwrap();
            let length = file.metadata().unwrap().len();
            if length > 0 {
                let at = length / 2;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            }
        }),
        10 if is_file => {
            let file = fs::OpenOptions::new().write(true).open(&any).unwrap();
            file.set_len([0, 10, 4096, 300_000][random.below(4)]).unwrap();
        }
        11 if is_file => {
            // A hole where bytes were.
            let file = fs::OpenOptions::new().write(true).open(&any).unwrap();
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&file, how, 0, 8192) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => panic!("{error}"),
            }
        }
        12 if is_file => {
            // Bytes where a hole was, far behind the end.
            let mut file = fs::OpenOptions::new().write(true).open(&any).unwrap();
            file.seek(SeekFrom::End(1 << 20)).unwrap();
            file.write_all(b"far").unwrap();
        }
        13 if is_file => {
            // Nothing changed, and it was written.
            let bytes = fs::read(&any).unwrap();
            keeping_mtime(&any, || fs::write(&any, bytes).unwrap());
        }
        14 if is_file => {
            let mode = [0o600, 0o644, 0o4711, 0o2755][random.below(4)];
            fs::set_permissions(&any, Permissions::from_mode(mode)).unwrap();
        }
        15 => fs::set_permissions(&dir, Permissions::from_mode([0o700, 0o755, 0o1777][random.below(3)]))
            .unwrap(),
        16 if is_there => lchown(&any, Some(u32::try_from(random.below(3)).unwrap()), Some(7)).unwrap(),
        17 => lchown(&dir, Some(u32::try_from(random.below(3)).unwrap()), None).unwrap(),
        18 if is_there => set_mtime(&any, 1_000_000_000, 5),
        19 => set_mtime(&dir, 1_000_000_000, 5),
        20..=22 => remove(&any),
        23 if inside => remove(&dir),
        24 if inside => {
            remove(&dir);
            fs::create_dir(&dir).unwrap();
        }
        25 if inside => {
            remove(&dir);
            match random.below(3) {
                0 => fs::write(&dir, random.bytes()).unwrap(),
                1 => symlink("elsewhere", &dir).unwrap(),
                _ => rustix::fs::mkfifoat(CWD, &dir, Mode::from_raw_mode(0o600)).unwrap(),
            }
        }
        26 if is_there => {
            remove(&any);
            fs::create_dir(&any).unwrap();
            fs::write(any.join("inside"), random.bytes()).unwrap();
        }
        27 | 28 if is_there && any != fresh && !any.starts_with(&fresh) => {
            remove(&fresh);
            rename(&any, &fresh);
        }
        29 | 30 if inside => {
            let to = random.pick(&dirs).join(random.name());
            if !to.starts_with(&dir) && !dir.starts_with(&to) {
                remove(&to);
                rename(&dir, &to);
            }
        }
        31 if is_there && !others.is_empty() => {
            // Two change places, directories too.
            let other = if random.below(2) == 0 { &dir } else { random.pick(&others) };
            if other != root && !any.starts_with(other) && !other.starts_with(&any) {
                let _overlayfs_may_refuse =
                    rustix::fs::renameat_with(CWD, &any, CWD, other, RenameFlags::EXCHANGE);
            }
        }
        32 | 33 if is_there && any != fresh && !any.starts_with(&fresh) => {
            remove(&fresh);
            rustix::fs::linkat(CWD, &any, CWD, &fresh, AtFlags::empty()).unwrap();
        }
        34 if is_file => {
            // A link broken: the same content and time in a file of its own.
            let copy = dir.join("copying");
            run(Command::new("cp").arg("-a").arg(&any).arg(&copy));
            rename(&copy, &any);
            remove(&copy);
        }
        35 if is_file => {
            set_xattr(&any, "user.set", &random.bytes()[..].iter().copied().take(50).collect::<Vec<_>>())
        }
        36 => set_xattr(&dir, ["trusted.set", "user.dir"][random.below(2)], b"v"),
        37 => {
            for name in ["user.set", "trusted.set", "user.dir"] {
                for path in [&any, &dir] {
                    let _absent = rustix::fs::lremovexattr(path, name);
                }
            }
        }
        38 => {
            remove(&fresh);
            match random.below(3) {
                0 => rustix::fs::mkfifoat(CWD, &fresh, Mode::from_raw_mode(0o640)).unwrap(),
                1 => drop(std::os::unix::net::UnixListener::bind(&fresh)),
                _ => {
                    let device = rustix::fs::makedev(1, 3);
                    let kind = rustix::fs::FileType::CharacterDevice;
                    rustix::fs::mknodat(CWD, &fresh, kind, Mode::from_raw_mode(0o666), device).unwrap();
                }
            }
        }
        39 if inside => {
            // The same again, by other inodes.
            let copy = root.join("copying");
            run(Command::new("cp").arg("-a").arg(&dir).arg(&copy));
            remove(&dir);
            run(Command::new("cp").arg("-a").arg(&copy).arg(&dir));
            remove(&copy);
        }
        _ => {}
    }
}

/// A line for everything in a tree that a layer can tell of; and for each name of a file, the first name of it.
struct Listing {
    lines: Vec<String>,
    first: BTreeMap<String, String>,
}

fn listing(root: &Path) -> Listing {
    let (dirs, others) = all_paths(root);
    let mut paths: Vec<&PathBuf> = dirs.iter().chain(&others).collect();
    paths.sort();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let (mut lines, mut first) = (Vec::new(), BTreeMap::new());
    for path in paths {
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        if kind.is_socket() {
            continue;
        }
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let mut line = format!("{name} {:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        // Layers that only add to `/` do not tell its time.
        if path != root {
            line += &format!(" @{}", meta.mtime());
        }
        if kind.is_file() {
            line += &format!(" {} {}", meta.len(), Digest::of(&fs::read(path).unwrap()).short());
        } else if kind.is_symlink() {
            line += &format!(" -> {}", fs::read_link(path).unwrap().display());
        } else if kind.is_char_device() {
            line += &format!(" {}", meta.rdev());
        }
        if !kind.is_dir() {
            first.insert(name.clone(), inodes.entry(meta.ino()).or_insert(name).clone());
        }
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
        let mut names: Vec<&[u8]> =
            list[..length].split(|byte| *byte == 0).filter(|n| !n.is_empty()).collect();
        names.sort_unstable();
        for name in names.into_iter().filter(|name| !name.starts_with(b"trusted.overlay.")) {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            line += &format!(" {}={}", name.escape_ascii(), value[..length].escape_ascii());
        }
        lines.push(line);
    }
    Listing { lines, first }
}

/// A driver on a filesystem.
pub(super) struct Place {
    /// Of the driver `zfs`; it ends before its sandbox.
    _pool: Option<Pool>,
    sandbox: Sandbox,
    root: PathBuf,
    pub(super) driver: Box<dyn Driver>,
    _disk: Option<OwnedFd>,
}

impl Place {
    pub(super) fn new(name: &str, filesystem: Option<&str>) -> Self {
        let sandbox = Sandbox::new();
        let disk = filesystem.map(|kind| crate::snapshot::new_disk(&sandbox, kind));
        let root = match &disk {
            Some(disk) => PathBuf::from(format!("/proc/self/fd/{}/.", disk.as_raw_fd())),
            None => sandbox.root(),
        };
        let pool = (name == "zfs").then(|| Pool::new(&sandbox));
        let options = pool.as_ref().map(|_| Pool::options()).unwrap_or_default();
        Place::of(sandbox, root, name, &options, (pool, disk))
    }
    /// In a machine: with this filesystem in its volumes.
    fn devicemapper(filesystem: &str) -> Self {
        let sandbox = Sandbox::new();
        let root = sandbox.root();
        let kind = format!("dm.fs={filesystem}");
        let said = ["dm.basesize=512M", "dm.loopdatasize=4G", "dm.loopmetadatasize=32M", &kind];
        Place::of(sandbox, root, "devicemapper", &Options::parse(&said).unwrap(), (None, None))
    }
    fn of(
        sandbox: Sandbox,
        root: PathBuf,
        name: &str,
        options: &Options,
        (pool, disk): (Option<Pool>, Option<OwnedFd>),
    ) -> Self {
        fs::create_dir_all(&root).unwrap();
        let setting = Setting { root: &root, options };
        let driver = driver::select(&setting, Some(name)).unwrap().driver;
        Place { _pool: pool, sandbox, root, driver, _disk: disk }
    }
}

/// A detached mount, for this process and its children.
struct Seen(OwnedFd);

impl Seen {
    fn of(mount: &Mount) -> Self {
        Seen(detached(mount).unwrap())
    }
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}/.", std::process::id(), self.0.as_raw_fd()))
    }
}

struct Layer {
    tar: Vec<u8>,
    rows: Vec<String>,
}

fn packed(changes: Changes<'_>, stamp: bool) -> Layer {
    let (mut tar, mut rows) = (Vec::new(), Vec::<outcrop::layer::Row>::new());
    let options = PackOptions { tee: Some(&mut tar), stamp, ..PackOptions::default() };
    pack(&Job::silent(), changes, options, &mut rows, &mut std::io::sink()).unwrap();
    let rows = rows.iter().map(|row| format!("{} {row:?}", row.path.escape_ascii())).collect();
    Layer { tar, rows }
}

#[track_caller]
fn assert_same(what: &str, left: &[String], right: &[String]) {
    let only = |of: &[String], not: &[String]| {
        of.iter().filter(|line| !not.contains(line)).take(5).cloned().collect::<Vec<_>>()
    };
    let (more, less) = (only(left, right), only(right, left));
    assert!(left == right, "{what}:\nonly left: {more:#?}\nonly right: {less:#?}");
}

fn one_case(place: &Place, number: u64, seed: u64) {
    let what = format!("{} at {}, seed {seed}", place.driver.name(), place.root.display());
    let driver = &place.driver;
    let mut random = Random::new(seed);
    let [base, child, third] = [1, 2, 3].map(|n| SnapshotId(number * 3 + n));
    driver.create(base, &[]).unwrap();
    {
        let mounted = Seen::of(&driver.mount(base, &[]).unwrap());
        for _ in 0..10 + random.below(50) {
            change(&mounted.path(), &mut random);
        }
    }
    driver.seal(base).unwrap();
    // Now and then nothing was written just now, so that times tell: zfs-fuse's are whole seconds.
    if seed.is_multiple_of(8) {
        std::thread::sleep(Duration::from_millis(if driver.name() == "zfs" { 1100 } else { 40 }));
    }
    let sealed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    driver.create(child, &[base]).unwrap();
    {
        let mounted = Seen::of(&driver.mount(child, &[base]).unwrap());
        for _ in 0..random.below(25) {
            change(&mounted.path(), &mut random);
        }
    }
    let below = Seen::of(&driver.view(&[base]).unwrap());
    let stack = if driver.shape() == Shape::Layered { vec![child, base] } else { vec![child] };
    let whole = Seen::of(&driver.view(&stack).unwrap());
    let slow = packed(Changes::Trees { tree: whole.0.as_fd(), parent: Some(below.0.as_fd()) }, false);
    let after = listing(&whole.path());
    drop(whole);

    let by_stamps = || {
        let kinship = Kinship {
            sealed: i64::try_from(sealed.as_nanos()).unwrap(),
            xattrs_move_ctime: driver.stamps(child).unwrap() == Some(Stamps::All),
        };
        compare(driver.tree(child).unwrap().dir.as_fd(), below.0.as_fd(), kinship).unwrap()
    };
    if driver.stamps(child).unwrap().is_some() {
        let (tree, touched) = (driver.tree(child).unwrap().dir, by_stamps());
        let changes = Changes::Touched { tree: tree.as_fd(), parent: below.0.as_fd(), touched: &touched };
        assert_same(&format!("{what}: rows, by times"), &packed(changes, false).rows, &slow.rows);
    }
    let fast = |settle| match driver.delta(child) {
        Some(delta) => {
            let (upper, parent) = (File::open(&delta.dir).unwrap(), Some(below.0.as_fd()));
            packed(Changes::Upper { upper: upper.as_fd(), form: delta.form, parent, settle }, settle)
        }
        None => {
            let (tree, parent) = (driver.tree(child).unwrap().dir, below.0.as_fd());
            match driver.touched(child, base).unwrap() {
                Some(touched) => {
                    assert_eq!(driver.name(), "btrfs", "{what}");
                    packed(Changes::Touched { tree: tree.as_fd(), parent, touched: &touched }, settle)
                }
                None if driver.stamps(child).unwrap().is_some() => {
                    let touched = by_stamps();
                    packed(Changes::Touched { tree: tree.as_fd(), parent, touched: &touched }, settle)
                }
                None => {
                    assert_eq!(driver.name(), "vfs", "{what}");
                    packed(Changes::Trees { tree: tree.as_fd(), parent: Some(parent) }, settle)
                }
            }
        }
    };
    for settle in [false, true] {
        let fast = fast(settle);
        assert_same(&format!("{what}: rows"), &fast.rows, &slow.rows);
        assert!(fast.tar == slow.tar, "{what}: the archives differ");
    }
    driver.seal(child).unwrap();
    drop(below);

    // The layer, applied to what stood below, is the tree; and so is what was sealed.
    let below = Seen::of(&driver.view(&[base]).unwrap());
    let opened = |path: &Path| File::open(path).unwrap();
    // zfs-fuse keeps default ACLs without doing what they say: elsewhere the same archive would do other things. Beside
    // volumes there is what the machine has, which keeps fewer attributes.
    let inside = ["zfs", "devicemapper"].contains(&driver.name()).then(|| {
        driver.create(third, &[base]).unwrap();
        Seen::of(&driver.mount(third, &[base]).unwrap())
    });
    let copy = inside.as_ref().map_or_else(|| place.sandbox.dir().join("copy"), Seen::path);
    if inside.is_none() {
        fs::create_dir(&copy).unwrap();
        outcrop::sys::tree::copy(opened(&below.path()).as_fd(), opened(&copy).as_fd(), 2).unwrap();
    }
    apply(
        &Job::silent(),
        &mut &slow.tar[..],
        opened(&copy).as_fd(),
        Form::Whole,
        &mut (),
        &mut std::io::sink(),
    )
    .unwrap();
    let sealed = Seen::of(&driver.view(&stack).unwrap());
    for (way, is) in [("applied", listing(&copy)), ("sealed", listing(&sealed.path()))] {
        assert_same(&format!("{what}: {way}"), &is.lines, &after.lines);
        // That a link is broken is no change where the bytes stay what they were; that there is one is.
        for (name, first) in &after.first {
            assert_eq!(is.first[name], is.first[first], "{what}: {way}, {name} and {first} are one file");
        }
    }
    if inside.is_none() {
        fs::remove_dir_all(&copy).unwrap();
    }
    drop((below, sealed, inside));
    for id in [third, child, base] {
        driver.remove(id).unwrap();
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn cases(driver: &str, filesystem: Option<&str>) {
    cases_at(&Place::new(driver, filesystem), 60);
}

fn cases_at(place: &Place, count: u64) {
    let first = number("OUTCROP_SEED", 1);
    // 5018: a socket takes the place of a file.
    let seeds = (first..first + number("OUTCROP_CASES", count)).chain([5018]);
    for (number, seed) in (0..).zip(seeds) {
        one_case(place, number, seed);
    }
}

#[test]
fn overlay2_finds_what_changed() {
    cases("overlay2", None);
}

#[test]
fn overlay2_finds_what_changed_on_xfs() {
    cases("overlay2", Some("xfs"));
}

#[test]
fn overlay2_finds_what_changed_on_btrfs() {
    cases("overlay2", Some("btrfs"));
}

#[test]
fn overlay_finds_what_changed() {
    cases("overlay", None);
}

#[test]
fn overlay_finds_what_changed_on_btrfs() {
    cases("overlay", Some("btrfs"));
}

#[test]
fn vfs_finds_what_changed() {
    cases("vfs", None);
}

/// By `btrfs send`, every time.
#[test]
fn btrfs_finds_what_changed() {
    let said = logged(|| cases("btrfs", Some("btrfs")));
    assert!(!said.contains("compared"), "the fast way was not taken: {said}");
    // What would be said.
    assert!(logged(|| tracing::debug!("everything is compared")).contains("compared"));
}

/// The engine's diagnostics while it works.
fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// By inode numbers, ctimes and xattrs.
#[test]
fn zfs_finds_what_changed() {
    cases("zfs", None);
}

/// By inode numbers and ctimes.
mod in_a_machine {
    use super::*;

    #[test]
    #[ignore = "tests/devicemapper.rs runs it in a machine"]
    fn devicemapper_finds_what_changed_on_ext4() {
        cases_at(&Place::devicemapper("ext4"), 20);
    }

    #[test]
    #[ignore = "tests/devicemapper.rs runs it in a machine"]
    fn devicemapper_finds_what_changed_on_xfs() {
        cases_at(&Place::devicemapper("xfs"), 20);
    }
}
