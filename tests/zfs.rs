//! The driver `zfs` on the real thing: a zfs-fuse of each test's own, with a pool in a file. No other zfs-fuse is touched:
//! daemon and test share a mount namespace in which `/run` is their own, and which ends with the test's thread.
//!
//! The same tests run on OpenZFS, in a machine (`make test-openzfs`), one after the other: a kernel has one set of pools.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outcrop::error::Kind;
use outcrop::layer::{Kinship, Touched, compare};
use outcrop::snapshot::driver::{self, Driver, Options, Setting, SnapshotId};
use outcrop::sys::mount::{Propagation, Reach, detach, detached, set_propagation};
use rustix::mount::MountFlags;

use crate::sandbox::{Outcome, Sandbox, build_it, forget_mounts_of_others, wait_until};
use crate::vm_kit::Machine;

/// Dropped, the daemon is gone, and all that it had mounted.
pub(crate) struct Pool {
    /// `None`: the kernel serves.
    daemon: Option<Child>,
    dir: PathBuf,
}

/// Whether the tests run in the machine that has OpenZFS.
pub(crate) fn in_the_kernel() -> bool {
    std::env::var_os("VM_RUN").is_some() && Path::new("/sys/module/zfs").exists()
}

impl Pool {
    /// For stores.
    pub(crate) const DATASET: &str = "pool/store";

    pub(crate) fn new(sandbox: &Sandbox) -> Pool {
        Pool::with(sandbox, &["--enable-xattr"])
    }

    /// Of a store on it.
    pub(crate) fn options() -> Options {
        Options::parse(&[format!("zfs.fsname={}", Pool::DATASET)]).unwrap()
    }

    fn with(sandbox: &Sandbox, options: &[&str]) -> Pool {
        own_mounts();
        let dir = sandbox.dir().to_owned();
        let daemon = (!in_the_kernel()).then(|| daemon(&dir, options));
        let pool = Pool { daemon, dir };
        let disk = pool.dir.join("disk");
        fs::File::create(&disk).unwrap().set_len(4 << 30).unwrap();
        let made = zpool(&["create", "-O", "mountpoint=none", "pool", disk.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        zfs(&["create", Pool::DATASET]);
        pool
    }

    /// As after a crash of it: what it had mounted is dead.
    fn restart(&mut self) {
        self.end();
        self.daemon = Some(daemon(&self.dir, &["--enable-xattr"]));
        assert!(wait_until(Duration::from_secs(20), || zfs_says(&["list", Pool::DATASET]).status.success()));
    }

    fn end(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            fs::remove_file("/run/zfs/zfs_socket").unwrap();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end();
        if self.daemon.is_none() {
            self.unmount();
            // What was unmounted may be on its way out.
            let destroyed = || zpool(&["destroy", "-f", "pool"]).status.success();
            assert!(wait_until(Duration::from_secs(20), destroyed), "{:?}", zpool(&["status", "pool"]));
        }
        self.unmount();
    }
}

impl Pool {
    fn unmount(&self) {
        for place in mounts().iter().filter(|place| place.starts_with(&self.dir)) {
            detach(place).unwrap();
        }
    }
}

/// What is mounted in the namespace of this thread, the latest first.
fn mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let mut places: Vec<PathBuf> = text.lines().map(|line| line.split(' ').nth(4).unwrap().into()).collect();
    places.reverse();
    places
}

#[allow(unsafe_code, reason = "unshare(2) of one thread")]
fn own_mounts() {
    use rustix::thread::UnshareFlags;
    // SAFETY: the table of descriptors stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.unwrap();
    set_propagation("/".as_ref(), Propagation::Slave, Reach::Tree).unwrap();
    forget_mounts_of_others();
    if in_the_kernel() {
        return;
    }
    // The daemon's lock, socket and list of pools.
    for dir in ["/run", "/var/lib/zfs"] {
        rustix::mount::mount("none", dir, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
    }
    fs::create_dir("/run/lock").unwrap();
}

fn daemon(dir: &Path, options: &[&str]) -> Child {
    let log = fs::File::create(dir.join("zfs-fuse.log")).unwrap();
    // It goes with the thread of the test, however that ends.
    let daemon = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "/usr/sbin/zfs-fuse", "--no-daemon", "--no-kstat-mount"])
        .args(options)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let up = wait_until(Duration::from_secs(20), || Path::new("/run/zfs/zfs_socket").exists());
    assert!(up, "{}", fs::read_to_string(dir.join("zfs-fuse.log")).unwrap());
    daemon
}

fn zpool(arguments: &[&str]) -> std::process::Output {
    Command::new("/usr/sbin/zpool").args(arguments).output().unwrap()
}

fn zfs_says(arguments: &[&str]) -> std::process::Output {
    Command::new("/usr/sbin/zfs").args(arguments).output().unwrap()
}

#[track_caller]
fn zfs(arguments: &[&str]) -> String {
    let output = zfs_says(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all datasets below the store's, snapshots too: as ZFS itself sees them.
pub(crate) fn datasets() -> Vec<String> {
    let list = zfs(&["list", "-H", "-r", "-t", "all", "-o", "name", Pool::DATASET]);
    let mut names: Vec<String> = list
        .lines()
        .filter_map(|name| name.strip_prefix(Pool::DATASET)?.strip_prefix('/'))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// OpenZFS is built for the machine's kernel, once, and its commands take the place of zfs-fuse there.
#[test]
#[ignore = "building it takes minutes: `make test-openzfs`"]
fn on_openzfs_all_of_it_works() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openzfs");
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/openzfs");
    assert!(Command::new(build).arg(&built).status().unwrap().success());
    let modules = fs::read_to_string(built.join("modules")).unwrap();
    let binary = std::env::current_exe().unwrap();
    let filters = ["zfs::", "zfs_finds_what_changed", "to_datasets_and_back"];
    let listed = Command::new(&binary).args(filters).arg("--list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let expected = listed.lines().filter(|line| line.ends_with(": test")).count() - 1;
    assert!(expected > 40, "{listed}");

    let script = "rm /usr/sbin/zfs-fuse && tar -C \"$1\" -c . | tar -C / -x --keep-directory-symlink && ldconfig && \
        mkdir /mnt/tests && mount -t tmpfs none /mnt/tests && shift && \
        TMPDIR=/mnt/tests OUTCROP_CASES=5 exec \"$0\" --test-threads 1 \"$@\"";
    let tools = built.join("tools");
    let words = ["bash", "-c", script, binary.to_str().unwrap(), tools.to_str().unwrap()];
    let machine = Machine::new().modules(&format!("{modules} loop ext4")).memory(3072);
    let outcome = machine.limit(Duration::from_secs(3600)).run(&[&words[..], &filters].concat()).ok();
    outcome.says(&format!("test result: ok. {expected} passed; 0 failed; "));
}

/// A driver on a root of its own.
struct Bench {
    driver: Box<dyn Driver>,
    pool: Pool,
    sandbox: Sandbox,
}

fn select(root: &Path, options: &Options) -> outcrop::error::Result<Box<dyn Driver>> {
    fs::create_dir_all(root).unwrap();
    driver::select(&Setting { root, options }, Some("zfs")).map(|selected| selected.driver)
}

impl Bench {
    fn new() -> Bench {
        let sandbox = Sandbox::new();
        let pool = Pool::new(&sandbox);
        Bench { driver: select(&sandbox.root(), &Pool::options()).unwrap(), pool, sandbox }
    }

    fn write(&self, id: u64, name: &str) {
        let place = detached(&self.driver.mount(SnapshotId(id), &[]).unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&place));
        fs::write(path, name).unwrap();
    }

    fn create(&self, id: u64, parent: Option<u64>) {
        let parents: Vec<SnapshotId> = parent.map(SnapshotId).into_iter().collect();
        self.driver.create(SnapshotId(id), &parents).unwrap();
    }

    fn remove(&self, id: u64) {
        self.driver.remove(SnapshotId(id)).unwrap();
    }

    fn list(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.driver.list().unwrap().into_iter().map(|id| id.0).collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn a_parent_goes_with_the_last_that_was_made_from_it() {
    let bench = Bench::new();
    bench.create(1, None);
    bench.create(2, Some(1));
    bench.create(3, Some(2));
    bench.create(4, Some(1));
    assert_eq!(datasets(), ["1", "1@2", "1@4", "2", "2@3", "3", "4"]);
    bench.remove(1);
    bench.remove(2);
    assert_eq!(bench.list(), [3, 4]);
    assert_eq!(datasets(), ["1", "1@2", "1@4", "2", "2@3", "3", "4"]);
    bench.remove(3);
    assert_eq!(datasets(), ["1", "1@4", "4"]);
    bench.remove(4);
    assert_eq!((datasets(), bench.list()), (vec![], vec![]));
    assert_eq!(fs::read_dir(bench.sandbox.root().join("zfs/graph")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(bench.sandbox.root().join("zfs/removed")).unwrap().count(), 0);
}

#[test]
fn what_somebody_still_has_mounted_goes_with_the_next_removal() {
    let bench = Bench::new();
    bench.create(1, None);
    bench.write(1, "file");
    let held = detached(&bench.driver.view(&[SnapshotId(1)]).unwrap()).unwrap();
    bench.remove(1);
    assert_eq!((bench.list(), datasets()), (vec![], vec!["1".to_owned()]));
    assert!(rustix::fs::statat(&held, "file", rustix::fs::AtFlags::empty()).is_ok());
    drop(held);
    bench.remove(2);
    assert!(wait_until(Duration::from_secs(20), || {
        bench.remove(2);
        datasets().is_empty()
    }));
}

/// zfs-fuse serves none of two that it is told to mount at the same moment, nor any after them.
#[test]
fn datasets_that_are_wanted_at_the_same_moment_are_all_served() {
    let bench = Bench::new();
    for round in 0..4 {
        let ids: Vec<u64> = (round * 24 + 1..=round * 24 + 24).collect();
        for id in &ids {
            // Not mounted yet.
            bench.driver.create(SnapshotId(*id), &[]).unwrap();
        }
        std::thread::scope(|scope| {
            for some in ids.chunks(2) {
                let driver = &bench.driver;
                scope.spawn(move || {
                    for id in some {
                        let tree = driver.tree(SnapshotId(*id)).unwrap();
                        assert!(rustix::fs::fstat(&tree.dir).is_ok());
                    }
                });
            }
        });
    }
    assert_eq!(bench.list().len(), 96);
}

#[test]
fn after_a_new_start_of_the_daemon_datasets_are_mounted_again() {
    let mut bench = Bench::new();
    bench.create(1, None);
    bench.write(1, "file");
    bench.driver.sync(&[SnapshotId(1)]).unwrap();
    let place = bench.driver.path(SnapshotId(1));
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "file");
    if in_the_kernel() {
        // As after a start of the machine: nothing is mounted.
        detach(&place).unwrap();
    } else {
        bench.pool.restart();
        assert_eq!(fs::read(place.join("file")).unwrap_err().raw_os_error(), Some(107), "its mount is dead");
    }
    bench.create(2, Some(1));
    let tree = bench.driver.tree(SnapshotId(2)).unwrap();
    assert!(rustix::fs::statat(&tree.dir, "file", rustix::fs::AtFlags::empty()).is_ok());
    let tree = bench.driver.tree(SnapshotId(1)).unwrap();
    assert!(rustix::fs::statat(&tree.dir, "file", rustix::fs::AtFlags::empty()).is_ok());
}

#[test]
fn two_stores_do_not_share_a_dataset() {
    let bench = Bench::new();
    bench.create(1, None);
    let other = bench.sandbox.dir().join("other");
    let Err(error) = select(&other, &Pool::options()) else { panic!("it took it") };
    assert_eq!(error.kind(), Kind::Conflict);
    let root = bench.sandbox.root();
    assert!(
        error
            .one_line()
            .ends_with(&format!("the dataset `pool/store` belongs to the store at {}", root.display())),
        "{}",
        error.one_line()
    );
    // The same root, but a new store: what is left of the old one would be in the way.
    fs::remove_file(root.join("zfs/fsname")).unwrap();
    let Err(error) = select(&root, &Pool::options()) else { panic!("it took it") };
    let said = error.one_line();
    assert!(
        said.ends_with("the dataset `pool/store/1` would be in the way: it is of an earlier store"),
        "{said}"
    );
    zfs(&["inherit", "outcrop:root", Pool::DATASET]);
    zfs(&["create", "pool/other"]);
    let elsewhere = Options::parse(&["zfs.fsname=pool/other"]).unwrap();
    select(&other, &elsewhere).unwrap();
    // It has its dataset; another one later would not have its snapshots.
    let Err(error) = driver::open(&Setting { root: &other, options: &Pool::options() }, "zfs") else {
        panic!("it moved")
    };
    let said = error.one_line();
    assert!(
        said.ends_with("the store keeps its snapshots in the dataset `pool/other`, not in `pool/store`"),
        "{said}"
    );
    driver::open(&Setting { root: &other, options: &Options::default() }, "zfs").unwrap();
}

#[test]
fn what_it_cannot_work_with_is_refused_with_a_hint() {
    let sandbox = Sandbox::new();
    let _pool = Pool::with(&sandbox, &[]);
    let hint = if in_the_kernel() {
        zfs(&["set", "xattr=off", Pool::DATASET]);
        "`zfs set xattr=sa pool/store`"
    } else {
        "start the daemon as `zfs-fuse --enable-xattr`"
    };
    let refused = |options: &[&str]| {
        let Err(error) = select(&sandbox.root(), &Options::parse(options).unwrap()) else {
            panic!("it works")
        };
        (error.one_line(), error)
    };
    let (said, error) = refused(&["zfs.fsname=pool/store"]);
    assert!(said.ends_with("the dataset pool/store has no extended attributes, which images need"), "{said}");
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<outcrop::error::Error>().unwrap();
    assert_eq!(cause.hint_text(), Some(hint));
    assert_eq!(datasets(), [""; 0], "a probe leaves nothing");
    let (said, error) = refused(&["zfs.fsname=pool/none"]);
    assert!(said.contains("cannot open 'pool/none': dataset does not exist"), "{said}");
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<outcrop::error::Error>().unwrap();
    assert_eq!(cause.hint_text(), Some("make it: `zfs create -o mountpoint=none pool/none`"));
    let (said, _) = refused(&[]);
    assert!(said.ends_with("is on no ZFS"), "{said}");
    assert_eq!(fs::read_dir(sandbox.root()).unwrap().count(), 0);
}

/// A parent as guides make it for the root of a system: its names would be UTF-8 alone, and `/` would list `.zfs`.
#[test]
fn what_is_set_above_changes_no_tree() {
    let sandbox = Sandbox::new();
    let _pool = Pool::new(&sandbox);
    if in_the_kernel() {
        let odd = ["-o", "normalization=formD", "-o", "snapdir=visible", "-o", "acltype=off"];
        zfs(&[&["create"], &odd[..], &["pool/odd"]].concat());
    } else {
        zfs(&["create", "-o", "snapdir=visible", "pool/odd"]);
    }
    let options = Options::parse(&["zfs.fsname=pool/odd"]).unwrap();
    let driver = select(&sandbox.root(), &options).unwrap();
    driver.create(SnapshotId(1), &[]).unwrap();
    driver.create(SnapshotId(2), &[SnapshotId(1)]).unwrap();
    for id in [1, 2].map(SnapshotId) {
        let tree = driver.path(id);
        drop(driver.mount(id, &[]).unwrap());
        for name in [&b"\xff"[..], "\u{e9}".as_bytes(), "e\u{301}".as_bytes(), b"A", b"a"] {
            fs::write(tree.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 5);
        // user::rw-, user:1000:r--, group::r--, mask::r--, other::r-- (acl(5), linux/posix_acl_xattr.h)
        let entries: [[u16; 2]; 5] = [[1, 6], [2, 4], [4, 4], [0x10, 4], [0x20, 4]];
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for [tag, may] in entries {
            let who: u32 = if tag == 2 { 1000 } else { u32::MAX };
            acl.extend([tag.to_le_bytes(), may.to_le_bytes()].concat());
            acl.extend(who.to_le_bytes());
        }
        if in_the_kernel() {
            let name = "system.posix_acl_access";
            rustix::fs::setxattr(tree.join("a"), name, &acl, rustix::fs::XattrFlags::empty()).unwrap();
        }
    }
}

/// A store on a pool of its own, from outside.
struct Store {
    _pool: Pool,
    sandbox: Sandbox,
}

impl Store {
    fn new() -> Store {
        let sandbox = Sandbox::new().driver("zfs").variable("OUTCROP_STORAGE_OPTS", "zfs.fsname=pool/store");
        let pool = Pool::new(&sandbox);
        sandbox.base_image("base");
        Store { _pool: pool, sandbox }
    }

    fn outcrop(&self, args: &[&str]) -> Outcome {
        self.sandbox.outcrop(args)
    }
}

#[test]
fn an_image_lives_its_life_on_zfs() {
    let store = Store::new();
    let sandbox = &store.sandbox;
    assert_eq!(datasets().len(), 1);
    sandbox.file("copied", "copied");
    sandbox.dockerfile(
        "FROM base\nCOPY copied /\nRUN rm /etc/group && chmod 700 /home && mkdir /new && echo new > /new/file\nRUN mv /new /newer\n",
    );
    build_it(sandbox, &["--network", "none"]).ok();
    sandbox.check();
    build_it(sandbox, &["--network", "none"]).ok().says("---> Using cache");
    let run = ["run", "--network", "none", "--name", "it", "it", "sh", "-c"];
    let script = "cat /copied /newer/file; ls -d /etc/group /new; echo changed > /copied; rm -r /newer";
    let said = store.outcrop(&[&run[..], &[script]].concat()).ok().stdout();
    assert_eq!(said, "copiednew\n");
    let mut changes = store.outcrop(&["diff", "it"]).ok().lines();
    changes.sort();
    assert_eq!(changes, ["C /copied", "D /newer"]);
    store.outcrop(&["commit", "it", "committed"]).ok();
    let seen =
        store.outcrop(&["run", "--rm", "--network", "none", "committed", "cat", "/copied"]).ok().stdout();
    assert_eq!(seen, "changed\n");
    sandbox.check();

    // The same bytes as of any other driver.
    let archive = sandbox.dir().join("saved.tar");
    store.outcrop(&["save", "-o", archive.to_str().unwrap(), "committed"]).ok();
    let other = Sandbox::new();
    other.outcrop(&["load", "-i", archive.to_str().unwrap()]).ok();
    other.check();
    let again = other.dir().join("saved.tar");
    other.outcrop(&["save", "-o", again.to_str().unwrap(), "committed"]).ok();
    assert!(fs::read(&archive).unwrap() == fs::read(&again).unwrap());

    store.outcrop(&["rm", "it"]).ok();
    store.outcrop(&["rmi", "committed", "it", "base"]).ok();
    store.outcrop(&["system", "prune", "--all", "--force"]).ok();
    store.outcrop(&["load", "-i", archive.to_str().unwrap()]).ok();
    sandbox.check();
    let seen =
        store.outcrop(&["run", "--rm", "--network", "none", "committed", "cat", "/copied"]).ok().stdout();
    assert_eq!(seen, "changed\n");
    store.outcrop(&["rmi", "committed"]).ok();
    store.outcrop(&["system", "prune", "--all", "--force"]).ok();
    sandbox.check();
    assert_eq!(datasets(), [""; 0]);
}

#[test]
fn info_tells_of_the_pool() {
    let store = Store::new();
    let info = store.outcrop(&["info"]).ok();
    let kind = if in_the_kernel() { "zfs" } else { "zfs-fuse" };
    for line in [
        "Storage Driver: zfs",
        &format!(" Backing Filesystem: {kind}"),
        " Zpool: pool",
        " Zpool Health: ONLINE",
        " Parent Dataset: pool/store",
        " Parent Quota: no",
        " Compression: off",
    ] {
        assert!(info.stdout().contains(&format!("{line}\n")), "{line}\n{}", info.stdout());
    }
    let used = zfs(&["get", "-H", "-p", "-o", "value", "used", Pool::DATASET]);
    assert!(info.stdout().contains(&format!(" Space Used By Parent: {used}")), "{used}{}", info.stdout());
}

#[test]
fn a_container_gets_no_more_room_than_it_was_given() {
    let store = Store::new();
    let write = |size: &[&str], bytes: &str| {
        let script = format!("dd if=/dev/urandom of=/big bs=1M count={bytes}");
        let run = ["run", "--rm", "--network", "none"];
        store.outcrop(&[&run[..], size, &["base", "sh", "-c", &script]].concat())
    };
    write(&["--storage-opt", "size=8M"], "4").ok();
    write(&["--storage-opt", "size=8M"], "12").fails(1).complains("Disk quota exceeded");
    write(&[], "12").ok();
}

#[test]
fn times_are_kept_as_exactly_as_it_can() {
    let bench = Bench::new();
    bench.create(1, None);
    bench.write(1, "file");
    let place = bench.driver.path(SnapshotId(1));
    let file = fs::File::open(place.join("file")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 500_000_000)).unwrap();
    let meta = place.join("file").metadata().unwrap();
    // zfs-fuse knows seconds alone.
    let kept = if in_the_kernel() { 500_000_000 } else { 0 };
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, kept));
}

#[test]
fn what_is_older_than_the_snapshot_is_not_compared() {
    let bench = Bench::new();
    bench.create(1, None);
    for name in ["same", "content", "xattr"] {
        bench.write(1, name);
    }
    bench.driver.seal(SnapshotId(1)).unwrap();
    // Its times are whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let sealed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let sealed = i64::try_from(sealed.as_nanos()).unwrap();
    bench.create(2, Some(1));
    let touched = |sealed| {
        let [tree, parent] = [2, 1].map(|id| bench.driver.tree(SnapshotId(id)).unwrap().dir);
        compare(tree.as_fd(), parent.as_fd(), Kinship { sealed, xattrs_move_ctime: false }).unwrap()
    };
    let these = |paths: &[&str]| {
        let mut these = Touched::nothing();
        paths.iter().for_each(|path| these.add(path.as_bytes()));
        these
    };
    assert_eq!(touched(sealed), Touched::nothing());
    assert_eq!(
        touched(sealed - 3_600_000_000_000),
        these(&["same", "content", "xattr"]),
        "they may have changed"
    );
    bench.write(2, "content");
    let xattr = bench.driver.path(SnapshotId(2)).join("xattr");
    rustix::fs::setxattr(&xattr, "user.name", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(touched(sealed), these(&["content", "xattr"]));
    fs::remove_file(&xattr).unwrap();
    assert_eq!(touched(sealed), these(&["content"]), "that a name is gone is seen in its directory");
}
