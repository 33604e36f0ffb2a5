//! The storage driver `devicemapper`, in a machine whose kernel has thin pools: one test of this host starts it and runs there
//! what is marked for it, here and in `snapshot.rs`, `stacked/random.rs` and `migrate.rs`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::sandbox::Sandbox;
use crate::vm_kit::Machine;

/// What runs in the machine alone says so in its path.
const INSIDE: &str = "in_a_machine::";

/// The host's own kernel may have no device mapper, and its devices are not for tests.
#[test]
fn under_a_kernel_with_thin_pools_all_of_it_works() {
    let binary = std::env::current_exe().unwrap();
    let listed = Command::new(&binary).args(["--ignored", "--list", INSIDE]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let expected = listed.lines().filter(|line| line.ends_with(": test")).count();
    assert!(expected > 30, "{listed}");

    let script = "mkdir /run/tests && TMPDIR=/run/tests exec \"$0\" --ignored --test-threads 3 \"$1\"";
    let machine = Machine::new().modules("dm-thin-pool loop ext4 xfs").memory(2048);
    // For pools on given devices.
    let machine = machine.disk("400M").disk("16M").disk("100M").disk("16M").limit(Duration::from_secs(2400));
    let outcome = machine.run(&["sh", "-c", script, binary.to_str().unwrap(), INSIDE]).ok();
    let passed = format!("test result: ok. {expected} passed; 0 failed; 0 ignored;");
    outcome.says(&passed);
}

/// udev opens devices that come and change, to see what they are; by a rule of ours it has them open for longer than by
/// its own, and again whenever somebody closes what he wrote to.
const BESIDE_UDEV: &str = r#"
    PATH=/usr/bin:$PATH
    tar -C "$1" -c lib bin etc | tar -C / -x --keep-directory-symlink && mkdir -p /run/tests /run/udev/rules.d || exit 98
    cat >/run/udev/rules.d/99-look.rules <<'END'
SUBSYSTEM=="block", KERNEL=="dm-*", ACTION!="remove", OPTIONS+="watch", RUN+="/bin/sh -c 'exec <$devnode && echo $env{ACTION} >>/run/looked; sleep 0.3'"
END
    /lib/systemd/systemd-udevd --daemon || exit 99
    TMPDIR=/run/tests "$0" --ignored --test-threads 3 devicemapper::in_a_machine::{what_a_killed,devices_are,what_is_removed}
    code=$?; echo "looked at what came: $(grep -c change /run/looked | sed 's/[1-9].*/yes/')"; exit $code
"#;

#[test]
#[ignore = "fetches udev, and takes minutes: `make soak`"]
fn beside_udev_which_looks_at_them_devices_come_and_go() {
    let udev = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/udev");
    let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/udev");
    assert!(Command::new(fetch).arg(&udev).status().unwrap().success());
    let binary = std::env::current_exe().unwrap();
    let words = ["bash", "-c", BESIDE_UDEV, binary.to_str().unwrap(), udev.to_str().unwrap()];
    let machine = Machine::new().modules("dm-thin-pool loop ext4").memory(2048);
    let outcome = machine.limit(Duration::from_secs(1200)).run(&words).ok();
    outcome.says("test result: ok. 4 passed; 0 failed; ").says("looked at what came: yes");
}

/// Of a store in a machine: nothing that it does is left in the kernel.
#[track_caller]
pub(crate) fn leaves_no_device(sandbox: Sandbox) {
    in_a_machine::Store { sandbox, said: Vec::new() }.leaves_no_device();
}

mod in_a_machine {
    use std::fs;
    use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use outcrop::error::{Kind, Result};
    use outcrop::layer::{Kinship, Touched, compare};
    use outcrop::snapshot::driver::{self, Driver, Options, Setting, SnapshotId, Stamps};
    use outcrop::sys::mount::detached;

    use crate::sandbox::{Outcome, Sandbox, find_on_path, wait_until};

    const FIRST: SnapshotId = SnapshotId(1);
    const SECOND: SnapshotId = SnapshotId(2);
    const THIRD: SnapshotId = SnapshotId(3);
    const SMALL: [&str; 3] = ["dm.basesize=256M", "dm.loopdatasize=1G", "dm.loopmetadatasize=16M"];

    /// A root for the driver alone.
    pub(super) struct Store {
        pub(super) sandbox: Sandbox,
        pub(super) said: Vec<String>,
    }

    impl Store {
        fn new(said: &[&str]) -> Self {
            let sandbox = Sandbox::new();
            fs::create_dir(sandbox.root()).unwrap();
            Store { sandbox, said: said.iter().map(|said| (*said).to_owned()).collect() }
        }
        fn dir(&self) -> PathBuf {
            self.sandbox.root().join("devicemapper")
        }
        fn try_open(&self, more: &[&str]) -> Result<Box<dyn Driver>> {
            let said: Vec<&str> = self.said.iter().map(String::as_str).chain(more.iter().copied()).collect();
            let options = Options::parse(&said).unwrap();
            driver::open(&Setting { root: &self.sandbox.root(), options: &options }, "devicemapper")
        }
        fn probe(&self) -> Result<String> {
            let options = Options::parse(&self.said).unwrap();
            let setting = Setting { root: &self.sandbox.root(), options: &options };
            let reason = driver::select(&setting, Some("devicemapper"))?.reason;
            self.leaves_no_device();
            Ok(reason)
        }
        fn open(&self) -> Box<dyn Driver> {
            self.try_open(&[]).unwrap()
        }
        fn prefix(&self) -> String {
            use std::os::unix::fs::MetadataExt as _;
            let stat = self.dir().metadata().unwrap();
            let (major, minor) = (rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
            format!("outcrop-{major}:{minor}-{}", stat.ino())
        }
        /// The names of its devices, without what they all begin with.
        fn devices(&self) -> Vec<String> {
            let own = format!("{}-", self.prefix());
            let listed = dmsetup(&["ls"]).ok().stdout();
            let names = listed.lines().filter_map(|line| line.split('\t').next()?.strip_prefix(&own));
            let mut names: Vec<String> = names.map(str::to_owned).collect();
            names.sort();
            names
        }
        /// What dmsetup says of one: from its first sector on, in words.
        fn status(&self, name: &str) -> Vec<String> {
            let said = dmsetup(&["status", &format!("{}-{name}", self.prefix())]).ok().stdout();
            said.split_whitespace().map(str::to_owned).collect()
        }
        /// Its device, as MAJOR:MINOR.
        fn number_of(&self, name: &str) -> String {
            let name = format!("{}-{name}", self.prefix());
            let line = dmsetup(&["info", "-c", "--noheadings", "-o", "major,minor", &name]).ok().line();
            line.trim().to_owned()
        }
        fn tell_pool(&self, message: &str) -> Outcome {
            dmsetup(&["message", &format!("{}-pool", self.prefix()), "0", message])
        }
        fn transaction(&self) -> u64 {
            self.status("pool")[3].parse().unwrap()
        }
        #[track_caller]
        pub(super) fn leaves_no_device(&self) {
            let loops = || Command::new("losetup").arg("-a").output().unwrap().stdout;
            let root = self.sandbox.dir().to_str().unwrap().to_owned();
            let gone = || {
                self.devices().is_empty()
                    && !String::from_utf8(loops()).unwrap().contains(&format!("{root}/"))
            };
            assert!(wait_until(Duration::from_secs(20), gone), "{:?}", self.devices());
        }
    }

    fn dmsetup(words: &[&str]) -> Outcome {
        // There is no udev, which would make nodes of devices.
        Outcome::of(Command::new(find_on_path("dmsetup")).args(words).env("DM_DISABLE_UDEV", "1"))
    }

    fn path(root: &OwnedFd, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", root.as_raw_fd()).into()
    }

    fn write(driver: &dyn Driver, id: SnapshotId, name: &str, bytes: &[u8]) {
        let root = detached(&driver.mount(id, &[]).unwrap()).unwrap();
        fs::write(path(&root, name), bytes).unwrap();
    }

    fn read(driver: &dyn Driver, id: SnapshotId, name: &str) -> Vec<u8> {
        let root = detached(&driver.view(&[id]).unwrap()).unwrap();
        fs::read(path(&root, name)).unwrap()
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn devices_are_there_while_somebody_needs_them() {
        let store = Store::new(&SMALL);
        let selected = store.probe().unwrap();
        assert_eq!(selected, "asked for; a thin pool in files on tmpfs, volumes with ext4");
        let driver = store.open();
        assert_eq!(store.devices(), [""; 0], "opening makes none");
        driver.create(FIRST, &[]).unwrap();
        assert_eq!(store.devices(), ["pool"]);
        assert_eq!(store.transaction(), 2);
        write(&*driver, FIRST, "file", &[7; 4 << 20]);
        assert_eq!(store.devices(), ["1", "pool"]);
        driver.sync(&[FIRST]).unwrap();
        let thin = store.status("1");
        assert_eq!(thin[1..3], ["524288", "thin"]);
        assert!(thin[3].parse::<u64>().unwrap() >= 8192, "{thin:?}");
        driver.seal(FIRST).unwrap();
        assert_eq!(store.devices(), ["pool"]);
        let view = detached(&driver.view(&[FIRST]).unwrap()).unwrap();
        let table = dmsetup(&["info", "-c", "--noheadings", "-o", "attr", &format!("{}-1", store.prefix())]);
        assert_eq!(table.ok().stdout().trim(), "L--r");
        drop((view, driver));
        store.leaves_no_device();
    }

    /// Written from outside as a killed process would leave it: before and after the volume was made.
    #[test]
    #[ignore = "runs in a machine"]
    fn a_creation_that_was_killed_is_undone() {
        let store = Store::new(&SMALL);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        write(&*driver, FIRST, "file", b"first");
        driver.seal(FIRST).unwrap();
        let mut running = driver;
        for made in [false, true] {
            let next = store.transaction() + 1;
            let record = format!("{{\"device_id\":2,\"size\":268435456,\"transaction_id\":{next}}}");
            fs::write(store.dir().join("snapshots/2"), &record).unwrap();
            if made {
                store.tell_pool("create_snap 2 1").ok();
            }
            drop(running);
            store.leaves_no_device();
            running = store.open();
            assert_eq!(running.list().unwrap().len(), 2);
            assert_eq!(read(&*running, FIRST, "file"), b"first");
            assert_eq!(running.list().unwrap(), [FIRST], "made: {made}");
            store.tell_pool("delete 2").fails(1).complains("No data available");
        }
        running.create(SECOND, &[FIRST]).unwrap();
        assert_eq!(read(&*running, SECOND, "file"), b"first");
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn metadata_that_are_older_than_the_store_are_told() {
        let store = Store::new(&SMALL);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        drop(driver);
        store.leaves_no_device();
        fs::write(store.dir().join("snapshots/9"), "{\"device_id\":9,\"size\":1,\"transaction_id\":99}")
            .unwrap();
        let driver = store.open();
        let error = driver.create(SECOND, &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{}", error.one_line());
        assert!(error.one_line().contains("snapshot 9 was made in 99"), "{}", error.one_line());
        drop(driver);
        store.leaves_no_device();
        fs::remove_file(store.dir().join("snapshots/9")).unwrap();
        // Without its metadata it does not begin anew.
        let size = store.dir().join("metadata").metadata().unwrap().len();
        fs::File::create(store.dir().join("metadata")).unwrap().set_len(size).unwrap();
        let error = store.open().create(SECOND, &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{}", error.one_line());
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn what_is_removed_in_use_goes_when_it_is_not_used_any_more() {
        let store = Store::new(&SMALL);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        write(&*driver, FIRST, "file", &[1; 16 << 20]);
        driver.seal(FIRST).unwrap();
        let taken = || {
            driver.sync(&[]).unwrap();
            std::os::unix::fs::MetadataExt::blocks(&store.dir().join("data").metadata().unwrap()) * 512
        };
        let before = taken();
        let view = detached(&driver.view(&[FIRST]).unwrap()).unwrap();
        driver.remove(FIRST).unwrap();
        let waiting = || {
            let lines = driver.status().unwrap();
            lines.into_iter().find(|(name, _)| *name == "Deferred Deleted Device Count").unwrap().1
        };
        assert_eq!(waiting(), "1");
        assert_eq!(fs::read(path(&view, "file")).unwrap(), [1; 16 << 20]);
        assert_eq!(driver.create(FIRST, &[]).unwrap_err().kind(), Kind::Conflict);
        drop(view);
        // A child that another test has just forked has it open until it executes.
        let goes = || {
            driver.remove(FIRST).unwrap();
            waiting() == "0"
        };
        assert!(wait_until(Duration::from_secs(60), goes));
        store.tell_pool("delete 1").fails(1).complains("No data available");
        assert!(taken() + (15 << 20) < before, "{before} -> {}", taken());
    }

    /// Who copies a snapshot that is written to lets its device stand still for a moment.
    #[test]
    #[ignore = "runs in a machine"]
    fn what_a_killed_process_has_left_standing_goes_on() {
        let store = Store::new(&SMALL);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        write(&*driver, FIRST, "file", b"first");
        let device = format!("{}-1", store.prefix());
        dmsetup(&["suspend", &device]).ok();
        let lost = format!("{}-9", store.prefix());
        dmsetup(&["create", &lost, "--table", "0 8 error"]).ok();
        assert_eq!(store.devices(), ["1", "9", "pool"]);
        let other = store.open();
        other.create(SECOND, &[]).unwrap();
        assert_eq!(store.devices(), ["1", "pool"]);
        write(&*driver, FIRST, "more", b"more");
        driver.seal(FIRST).unwrap();
        assert_eq!(read(&*other, FIRST, "more"), b"more");
    }

    /// udev looks at what comes, and has it open meanwhile.
    #[test]
    #[ignore = "runs in a machine"]
    fn what_a_killed_process_has_left_goes_when_nobody_looks_at_it_any_more() {
        let store = Store::new(&SMALL);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        dmsetup(&["create", &format!("{}-9", store.prefix()), "--table", "0 8 error"]).ok();
        let number = store.number_of("9");
        let look = fs::File::open(format!("/dev/dm-{}", number.split_once(':').unwrap().1)).unwrap();
        store.open().create(SECOND, &[]).unwrap();
        assert_eq!(store.devices(), ["9", "pool"]);
        drop(look);
        let gone = || store.devices() == ["pool"];
        assert!(wait_until(Duration::from_secs(20), gone), "{:?}", store.devices());
    }

    /// As in a container: devices come, and no nodes.
    #[test]
    #[ignore = "runs in a machine"]
    fn nodes_in_dev_are_not_needed() {
        let sandbox =
            Sandbox::new().driver("devicemapper").variable("OUTCROP_STORAGE_OPTS", &SMALL.join(" "));
        let archive = sandbox.busybox_archive();
        let script = "
            set -e; mkdir dev; mount -t tmpfs dev dev; mkdir dev/mapper; mknod dev/null c 1 3
            mknod dev/mapper/control c 10 $(awk '/device-mapper/ { print $1 }' /proc/misc)
            mknod dev/loop-control c 10 237; mount --move dev /dev; rmdir dev; exec \"$0\" \"$@\"";
        let real = sandbox.command(&["import", archive.to_str().unwrap(), "base"]);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(real.get_program()).args(real.get_args());
        command.envs(real.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Outcome::of(command.current_dir(sandbox.context())).ok();
        sandbox.check();
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn a_full_pool_loses_nothing_that_was_sealed() {
        let store = Store::new(&["dm.basesize=256M", "dm.loopdatasize=64M", "dm.loopmetadatasize=16M"]);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        write(&*driver, FIRST, "kept", &[1; 8 << 20]);
        driver.seal(FIRST).unwrap();
        driver.create(SECOND, &[FIRST]).unwrap();
        // No error for who writes and does not wait.
        write(&*driver, SECOND, "too much", &vec![2; 80 << 20]);
        let error = driver.seal(SECOND).unwrap_err();
        assert!(error.one_line().starts_with("sealing snapshot 2"), "{}", error.one_line());
        let full = driver.create(THIRD, &[FIRST]).unwrap_err();
        assert_eq!(full.kind(), Kind::Unavailable);
        assert!(full.one_line().contains("0 % of its data left"), "{}", full.one_line());
        assert!(full.hint_text().unwrap().contains("dm.loopdatasize"));
        assert!(driver.sync(&[]).is_err());
        let fits = || {
            driver.remove(SECOND).unwrap();
            driver.create(THIRD, &[FIRST]).is_ok()
        };
        assert!(wait_until(Duration::from_secs(60), fits));
        assert_eq!(read(&*driver, THIRD, "kept"), [1; 8 << 20]);
        driver.seal(THIRD).unwrap();
        driver.sync(&[THIRD]).unwrap();
        // It is made larger where it is wanted so.
        drop(driver);
        store.leaves_no_device();
        let driver = store.try_open(&["dm.loopdatasize=1G"]).unwrap();
        driver.create(SECOND, &[FIRST]).unwrap();
        write(&*driver, SECOND, "enough", &vec![2; 80 << 20]);
        driver.seal(SECOND).unwrap();
        assert_eq!(read(&*driver, SECOND, "enough"), vec![2; 80 << 20]);
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn metadata_do_not_run_full() {
        let store = Store::new(&[
            "dm.basesize=64M",
            "dm.loopdatasize=1G",
            "dm.loopmetadatasize=2M",
            "dm.min_free_space=80%",
        ]);
        let driver = store.open();
        let mut made = Vec::new();
        let refused = loop {
            let id = SnapshotId(made.len() as u64 + 1);
            match driver.create(id, &[]) {
                Ok(()) => made.push(id),
                Err(error) => break error,
            }
            write(&*driver, id, "file", &id.0.to_ne_bytes());
            driver.seal(id).unwrap();
        };
        assert!(made.len() > 3, "{}", made.len());
        assert_eq!(refused.kind(), Kind::Unavailable);
        assert!(refused.one_line().contains("79 % of its metadata left"), "{}", refused.one_line());
        assert!(refused.hint_text().unwrap().contains("dm.loopmetadatasize"));
        assert!(store.status("pool").contains(&"rw".to_owned()));
        let last = *made.last().unwrap();
        assert_eq!(read(&*driver, last, "file"), last.0.to_ne_bytes());
        let mut list = driver.list().unwrap();
        list.sort();
        assert_eq!(list, made);
        let next = SnapshotId(last.0 + 1);
        drop(driver);
        store.leaves_no_device();
        let driver = store.try_open(&["dm.loopmetadatasize=4M"]).unwrap();
        driver.create(next, &[last]).unwrap();
        assert_eq!(read(&*driver, next, "file"), last.0.to_ne_bytes());
        assert_eq!(store.status("pool")[4].split_once('/').unwrap().1, "1024");
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn a_container_may_be_larger_than_its_image() {
        for kind in ["ext4", "xfs"] {
            let filesystem = format!("dm.fs={kind}");
            let store = Store::new(&[
                "dm.basesize=320M",
                "dm.loopdatasize=2G",
                "dm.loopmetadatasize=16M",
                &filesystem,
            ]);
            let driver = store.open();
            driver.create(FIRST, &[]).unwrap();
            let size = || {
                let root = detached(&driver.view(&[FIRST]).unwrap()).unwrap();
                let stat = rustix::fs::fstatvfs(&root).unwrap();
                stat.f_blocks * stat.f_frsize
            };
            assert!((200 << 20..320 << 20).contains(&size()), "{kind}: {}", size());
            let small = driver.limit(FIRST, 100 << 20).unwrap_err();
            assert_eq!(small.kind(), Kind::Invalid);
            driver.limit(FIRST, 320 << 20).unwrap();
            driver.limit(FIRST, 640 << 20).unwrap();
            assert!((500 << 20..640 << 20).contains(&size()), "{kind}: {}", size());
            driver.create(SECOND, &[]).unwrap();
            // The base grows, too, for what is made of it later.
            drop(driver);
            store.leaves_no_device();
            let driver = store.try_open(&["dm.basesize=512M"]).unwrap();
            driver.create(THIRD, &[]).unwrap();
            let root = detached(&driver.view(&[THIRD]).unwrap()).unwrap();
            let stat = rustix::fs::fstatvfs(&root).unwrap();
            assert!(stat.f_blocks * stat.f_frsize > 400 << 20);
            drop((root, driver));
            store.leaves_no_device();
            let driver = store.try_open(&["dm.basesize=128M"]).unwrap();
            assert_eq!(driver.create(SnapshotId(4), &[]).unwrap_err().kind(), Kind::Conflict);
        }
    }

    /// Its size was written down before, and so it was for whoever was killed there.
    #[test]
    #[ignore = "runs in a machine"]
    fn what_failed_to_grow_grows_the_next_time() {
        let store = Store::new(&SMALL);
        store.open().create(FIRST, &[]).unwrap();
        store.leaves_no_device();
        let driver = store.try_open(&["dm.basesize=512M", "dm.mountopt=nonsense"]).unwrap();
        assert!(driver.create(SECOND, &[]).is_err());
        drop(driver);
        store.leaves_no_device();
        let driver = store.try_open(&["dm.basesize=512M"]).unwrap();
        driver.create(THIRD, &[]).unwrap();
        let root = detached(&driver.view(&[THIRD]).unwrap()).unwrap();
        let stat = rustix::fs::fstatvfs(&root).unwrap();
        assert!(stat.f_blocks * stat.f_frsize > 400 << 20);
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn given_devices_are_used_and_what_is_on_them_is_not_overwritten() {
        let given = ["dm.datadev=/dev/vda", "dm.metadatadev=/dev/vdb", "dm.fs=xfs", "dm.basesize=320M"];
        let told = ["dm.mkfsarg=-L ours", "dm.mountopt=noatime,filestreams", "dm.xfs_nospace_max_retries=3"];
        let store = Store::new(&[&given[..], &told].concat());
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        let root = detached(&driver.mount(FIRST, &[]).unwrap()).unwrap();
        assert!(rustix::fs::fstatvfs(&root).unwrap().f_flag.contains(rustix::fs::StatVfsMountFlags::NOATIME));
        let device = fs::canonicalize(format!("/sys/dev/block/{}", store.number_of("1"))).unwrap();
        let device = device.file_name().unwrap().to_str().unwrap();
        let retries = format!("/sys/fs/xfs/{device}/error/metadata/ENOSPC/max_retries");
        assert_eq!(fs::read_to_string(retries).unwrap().trim(), "3");
        let mut label = Command::new(find_on_path("xfs_admin"));
        Outcome::of(label.arg("-l").arg(format!("/dev/{device}"))).says("\"ours\"");
        drop(root);
        write(&*driver, FIRST, "file", b"first");
        driver.seal(FIRST).unwrap();
        driver.sync(&[FIRST]).unwrap();
        assert!(!store.dir().join("data").exists());
        drop(driver);
        store.leaves_no_device();
        Outcome::of(Command::new(find_on_path("thin_check")).arg("/dev/vdb")).ok();
        // The store remembers where its pool is.
        let root = store.sandbox.root();
        let options = Options::default();
        let driver = driver::open(&Setting { root: &root, options: &options }, "devicemapper").unwrap();
        assert_eq!(read(&*driver, FIRST, "file"), b"first");
        let other = Store::new(&given);
        let error = other.open().create(FIRST, &[]).unwrap_err();
        assert_eq!(error.to_string(), "/dev/vdb is not empty");
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn a_pool_of_somebody_else_is_used_and_stays() {
        let table = "0 204800 thin-pool /dev/vdd /dev/vdc 128 100";
        dmsetup(&["create", "others-pool", "--table", table]).ok();
        // Its numbers may be ours: what was not finished under one of them is deleted.
        let tell = |message: &str| dmsetup(&["message", "others-pool", "0", message]).ok();
        tell("create_thin 5");
        dmsetup(&["create", "theirs", "--table", "0 2048 thin /dev/mapper/others-pool 5"]).ok();
        let mut fill = Command::new("dd");
        Outcome::of(fill.args([
            "if=/dev/urandom",
            "of=/dev/mapper/theirs",
            "bs=64k",
            "count=1",
            "conv=fsync",
        ]))
        .ok();
        let refused = Store::new(&["dm.thinpooldev=others-pool", "dm.basesize=64M"]);
        let error = refused.open().create(FIRST, &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{}", error.one_line());
        assert!(error.one_line().contains("the pool others-pool is not empty"), "{}", error.one_line());
        assert!(!refused.dir().join("pool").exists() && !refused.dir().join("base").exists());
        let removed = || dmsetup(&["remove", "theirs"]).code() == Some(0);
        assert!(wait_until(Duration::from_secs(20), removed));
        tell("delete 5");
        let store = Store::new(&["dm.thinpooldev=/dev/mapper/others-pool", "dm.basesize=64M"]);
        let driver = store.open();
        driver.create(FIRST, &[]).unwrap();
        write(&*driver, FIRST, "file", b"first");
        driver.seal(FIRST).unwrap();
        drop(driver);
        store.leaves_no_device();
        assert_eq!(read(&*store.open(), FIRST, "file"), b"first");
        let other = Store::new(&["dm.thinpooldev=others-pool", "dm.basesize=64M"]);
        let error = other.open().create(FIRST, &[]).unwrap_err();
        assert!(error.one_line().contains("the pool others-pool is not empty"), "{}", error.one_line());
        let goes = || {
            store.open().remove(FIRST).unwrap();
            dmsetup(&["message", "others-pool", "0", "delete 1"]).stderr().contains("No data available")
        };
        assert!(wait_until(Duration::from_secs(60), goes));
        drop((store, other));
        let removed = || dmsetup(&["remove", "others-pool"]).code() == Some(0);
        assert!(wait_until(Duration::from_secs(20), removed));
        let store = Store::new(&["dm.thinpooldev=others-pool"]);
        let error = store.probe().unwrap_err();
        assert!(error.one_line().contains("there is no pool others-pool"), "{}", error.one_line());
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn a_store_keeps_to_what_it_was_made_with() {
        let store = Store::new(&SMALL);
        store.open().create(FIRST, &[]).unwrap();
        for other in ["dm.fs=xfs", "dm.blocksize=128K", "dm.thinpooldev=others"] {
            let root = store.sandbox.root();
            let options = Options::parse(&[other]).unwrap();
            let error =
                driver::open(&Setting { root: &root, options: &options }, "devicemapper").err().unwrap();
            assert_eq!(error.kind(), Kind::Conflict, "{other}");
        }
    }

    /// Hidden by what is mounted over it.
    #[test]
    #[ignore = "runs in a machine"]
    fn without_device_mapper_it_is_told_and_another_driver_serves() {
        let sandbox = Sandbox::new();
        let hidden = |words: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", "mount -t tmpfs none /dev/mapper && exec \"$0\" \"$@\""]);
            let real = sandbox.command(words);
            command.arg(real.get_program()).args(real.get_args()).current_dir(sandbox.context());
            Outcome::of(&mut command)
        };
        hidden(&["--storage-driver", "devicemapper", "info"])
            .fails(1)
            .complains("/dev/mapper/control cannot be opened (`modprobe dm-thin-pool` may help)");
        hidden(&["info"]).ok().says(" Not devicemapper: refused: there is no device mapper");
    }

    /// Inode numbers and ctimes are those of the snapshot below, and every change moves a ctime.
    #[test]
    #[ignore = "runs in a machine"]
    fn what_is_older_than_the_snapshot_is_not_compared() {
        for kind in ["ext4", "xfs"] {
            let sizes = ["dm.basesize=320M", "dm.loopdatasize=1G", "dm.loopmetadatasize=16M"];
            let store = Store::new(&[&sizes[..], &[&format!("dm.fs={kind}")]].concat());
            let driver = store.open();
            driver.create(FIRST, &[]).unwrap();
            for name in ["same", "content", "xattr", "removed"] {
                write(&*driver, FIRST, name, b"first");
            }
            driver.seal(FIRST).unwrap();
            let sealed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let sealed = i64::try_from(sealed.as_nanos()).unwrap();
            driver.create(SECOND, &[FIRST]).unwrap();
            let touched = |sealed| {
                assert_eq!(driver.stamps(SECOND).unwrap(), Some(Stamps::All));
                let [tree, parent] = [SECOND, FIRST].map(|id| driver.tree(id).unwrap().dir);
                compare(tree.as_fd(), parent.as_fd(), Kinship { sealed, xattrs_move_ctime: true }).unwrap()
            };
            let these = |paths: &[&str]| {
                let mut these = Touched::nothing();
                paths.iter().for_each(|path| these.add(path.as_bytes()));
                these
            };
            // Sealing takes longer than a clock ticks.
            assert_eq!(touched(sealed), Touched::nothing(), "{kind}");
            let all = ["same", "content", "xattr", "removed"];
            assert_eq!(touched(sealed - 3_600_000_000_000), these(&all), "{kind}: they may have changed");
            {
                let root = detached(&driver.mount(SECOND, &[]).unwrap()).unwrap();
                let file = fs::OpenOptions::new().write(true).open(path(&root, "content")).unwrap();
                file.write_all_at(b"F", 0).unwrap();
                let time = file.metadata().unwrap().modified().unwrap();
                file.set_modified(time).unwrap();
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path(&root, "xattr"), "user.name", b"value", flags).unwrap();
                fs::remove_file(path(&root, "removed")).unwrap();
            }
            // That a name is gone is seen in its directory.
            assert_eq!(touched(sealed), these(&["content", "xattr", ""]), "{kind}");
        }
    }

    #[test]
    #[ignore = "runs in a machine"]
    fn its_room_is_what_the_pool_has_left() {
        let sizes = ["dm.basesize=64M", "dm.loopdatasize=100M", "dm.loopmetadatasize=16M"];
        let store = Store::new(&[&sizes[..], &["dm.min_free_space=20%"]].concat());
        let driver = store.open();
        let room = || driver.room().unwrap().unwrap();
        assert_eq!(room(), 80 << 20, "of a pool that is not made");
        assert_eq!((store.devices(), store.dir().join("data").exists()), (vec![], false));
        driver.create(FIRST, &[]).unwrap();
        let empty = room();
        assert!((70 << 20..80 << 20).contains(&empty), "{empty}");
        write(&*driver, FIRST, "file", &vec![7; 30 << 20]);
        driver.seal(FIRST).unwrap();
        driver.sync(&[FIRST]).unwrap();
        let said = store.status("pool")[5].clone();
        let (used, total) = said.split_once('/').unwrap();
        let [used, total]: [u64; 2] = [used, total].map(|number| number.parse().unwrap());
        assert_eq!(room(), (total - used - total / 5) * (64 << 10));
        assert!(room() <= empty - (30 << 20), "{} of {empty}", room());
        // Little metadata leave room for little.
        let sizes =
            ["dm.basesize=64M", "dm.loopdatasize=1G", "dm.loopmetadatasize=1M", "dm.min_free_space=0%"];
        assert_eq!(Store::new(&sizes).open().room().unwrap(), Some(256 * 32 * (64 << 10)));
        let given = ["dm.datadev=/dev/vdc", "dm.metadatadev=/dev/vdd", "dm.min_free_space=0%"];
        assert_eq!(Store::new(&given).open().room().unwrap(), Some(100 << 20));
    }

    /// The verbs of every day.
    #[test]
    #[ignore = "runs in a machine"]
    fn images_are_built_and_run_and_saved_and_go_again() {
        let sandbox = Sandbox::new().driver("devicemapper");
        let sandbox = sandbox.variable("OUTCROP_STORAGE_OPTS", &SMALL.join(" "));
        let outcrop = |words: &str| sandbox.outcrop(&words.split(' ').collect::<Vec<_>>()).ok();
        sandbox.base_image("base");
        sandbox.file("file", "content\n");
        sandbox.dockerfile(
            "FROM base\nCOPY file /dir/\nRUN echo built > /dir/built; rm /bin/cpio\nCMD [\"sh\"]\n",
        );
        outcrop("build -t it .");
        let image = outcrop("build -q -t it .").line();
        outcrop("run --name it --storage-opt size=512M it sh -c mkdir$IFS/new;rm$IFS/dir/file;df$IFS-m$IFS/")
            .says("/dev/dm-");
        assert_eq!(outcrop("diff it").lines(), ["C /dir", "D /dir/file", "A /new"]);
        outcrop("commit it committed");
        outcrop("run --rm committed ls / /dir").says("new").says("built").says_not("file");
        outcrop("export -o exported.tar it");
        let listed = crate::sandbox::tool(&sandbox, &["tar", "-tf", "exported.tar"]);
        assert!(listed.lines().any(|line| line == "dir/built"), "{listed}");
        outcrop("save -o saved.tar it");
        let info = outcrop("info").stdout();
        for line in [
            "Storage Driver: devicemapper",
            "Pool Name: outcrop-",
            "Base Device Size: 268.4MB",
            "Pool Mode: rw",
        ] {
            assert!(info.contains(line), "{line}\n{info}");
        }
        outcrop("rm it");
        outcrop("rmi it committed");
        outcrop("load -i saved.tar");
        assert_eq!(outcrop("images -q --no-trunc it").line(), image);
        sandbox.check();
        outcrop("rmi it base");
        outcrop("system prune -af");
        sandbox.check();
        let snapshots = sandbox.root().join("devicemapper/snapshots");
        assert_eq!(fs::read_dir(snapshots).unwrap().count(), 0);
        let store = Store { sandbox, said: Vec::new() };
        store.leaves_no_device();
    }
}
