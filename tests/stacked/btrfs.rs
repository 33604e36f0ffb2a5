//! `btrfs`: stores on a loop file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outcrop::snapshot::driver::{self, Options, Setting, SnapshotId};

use super::disk::{OnDisk, from_end_to_end, run};
use super::random::Place;
use crate::sandbox::{Sandbox, build_it, wait_until};

/// Paths below the store, as btrfs-progs lists them.
fn subvolumes(sandbox: &Sandbox) -> BTreeSet<String> {
    let list = run(Command::new("btrfs").args(["subvolume", "list"]).arg(sandbox.root()));
    list.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

fn numbers(sandbox: &Sandbox) -> BTreeSet<String> {
    let dir = fs::read_dir(sandbox.root().join("btrfs/subvolumes")).unwrap();
    dir.map(|entry| format!("btrfs/subvolumes/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
}

fn property(path: &Path, name: &str) -> String {
    run(Command::new("btrfs").args(["property", "get", "-ts"]).arg(path).arg(name)).trim_end().to_owned()
}

/// A path by a descriptor of this process, for another one.
fn outside(path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}", std::process::id())).join(path.strip_prefix("/proc/self").unwrap())
}

#[test]
fn images_live_in_subvolumes() {
    let store = OnDisk::new("btrfs", "btrfs");
    let sandbox = &store.sandbox;
    from_end_to_end(sandbox, "one\nmore\n", || {
        // base, four steps, one committed, two containers.
        let found = subvolumes(sandbox);
        assert_eq!(found.len(), 8, "{found:?}");
        assert_eq!(found, numbers(sandbox));
        for path in &found {
            assert_eq!(sandbox.root().join(path).metadata().unwrap().ino(), 256);
        }
        let writable: Vec<&String> =
            found.iter().filter(|path| property(&sandbox.root().join(path), "ro") == "ro=false").collect();
        assert_eq!(writable.len(), 2, "the containers': {writable:?}");
    });
    assert_eq!(subvolumes(sandbox), BTreeSet::new());
}

#[test]
fn its_numbers_are_the_filesystems() {
    let place = Place::new("btrfs", Some("btrfs"));
    place.driver.create(SnapshotId(1), &[]).unwrap();
    let root = place.driver.path(SnapshotId(1));
    fs::write(root.join("file"), vec![7; 30 << 20]).unwrap();
    rustix::fs::syncfs(fs::File::open(&root).unwrap()).unwrap();
    let status: BTreeMap<_, _> = place.driver.status().unwrap().into_iter().collect();
    let df = run(Command::new("btrfs").args(["filesystem", "df", "-b"]).arg(outside(&root)));
    for kind in ["Data", "Metadata"] {
        let number = |what: &str| &status[&*format!("{kind} Space {what}")];
        let expected = format!("total={}, used={}", number("Total"), number("Used"));
        let theirs = df.lines().find(|line| line.starts_with(&format!("{kind},"))).unwrap();
        assert!(theirs.ends_with(&expected), "{theirs} is not {expected}");
    }
    assert!(status["Data Space Used"].parse::<u64>().unwrap() >= 30 << 20);
    assert_eq!(status["Quotas"], "off");
    assert_eq!(status["Backing Filesystem"], "btrfs");
}

#[test]
fn a_containers_size_is_limited() {
    limits_a_containers_size(&OnDisk::new("btrfs", "btrfs").sandbox, &["simple", "full"]);
}

mod under_an_old_kernel {
    use super::*;

    /// They have a group for every subvolume, limited or not, and older kernels let it stand when the subvolume goes.
    #[test]
    #[ignore = "tests/old_kernel.rs runs it in a machine"]
    fn full_quotas_limit_a_containers_size_and_leave_no_group() {
        let store = OnDisk::new("btrfs", "btrfs");
        let sandbox = &store.sandbox;
        limits_a_containers_size(sandbox, &["full"]);
        sandbox.outcrop(&["create", "--name", "free", "base", "true"]).ok();
        let groups = || {
            let shown = run(Command::new("btrfs").args(["qgroup", "show"]).arg(sandbox.root()));
            let groups = shown.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("0/"));
            groups.map(|group| group.parse().unwrap()).collect::<Vec<u64>>()
        };
        assert!(groups().len() >= 3, "the filesystem's own, the image's, the container's: {:?}", groups());
        sandbox.outcrop(&["rm", "free"]).ok();
        sandbox.outcrop(&["rmi", "base"]).ok();
        assert_eq!(subvolumes(sandbox), BTreeSet::new());
        let options = Options::default();
        let driver = driver::open(&Setting { root: &sandbox.root(), options: &options }, "btrfs").unwrap();
        // The kernel takes subvolumes back some time after they are gone; sooner, if it is asked to write out all.
        let forgotten = || {
            run(Command::new("btrfs").args(["filesystem", "sync"]).arg(sandbox.root()));
            driver.remove(SnapshotId(999)).unwrap();
            groups() == [5]
        };
        assert!(wait_until(Duration::from_secs(200), forgotten), "{:?}", groups());
        assert_eq!(fs::read_dir(sandbox.root().join("btrfs/groups")).unwrap().count(), 0);
    }
}

fn limits_a_containers_size(sandbox: &Sandbox, quotas: &[&str]) {
    sandbox.outcrop(&["--storage-opt", "btrfs.min_space=4m", "info"]).ok();
    sandbox.base_image("base");
    let write = "dd if=/dev/urandom of=/big bs=1M count=30 conv=fsync 2>&1; rm -f /big; sync; echo small > /small && echo rest";
    let run_in = |size: &str| {
        sandbox.outcrop(&[
            "run",
            "--network",
            "none",
            "--name",
            "one",
            "--storage-opt",
            size,
            "base",
            "sh",
            "-c",
            write,
        ])
    };
    run_in("size=20m").ok().says("quota exceeded").says("rest");
    let info = sandbox.outcrop(&["info"]).ok().says("Storage Driver: btrfs").stdout();
    assert!(quotas.iter().any(|kind| info.contains(&format!(" Quotas: {kind}\n"))), "{info}");
    sandbox.outcrop(&["rm", "one"]).ok();
    assert_eq!(fs::read_dir(sandbox.root().join("btrfs/quotas")).unwrap().count(), 0);
    run_in("size=100m").ok().says_not("quota exceeded").says("rest");
    sandbox.outcrop(&["rm", "one"]).ok();
    run_in("size=1m").fails(125).complains("less than `btrfs.min_space`");
    assert_eq!(sandbox.outcrop(&["ps", "-aq"]).ok().stdout(), "");
    sandbox.check();
}

#[test]
fn a_store_that_is_not_on_btrfs_is_told_so() {
    let sandbox = Sandbox::new().driver("btrfs");
    let refused = sandbox.outcrop(&["info"]);
    assert_ne!(refused.code(), Some(0));
    refused.complains("not on btrfs").complains("hint: ");
}

/// A container may make subvolumes; in images they are directories.
#[test]
fn subvolumes_of_a_container_become_directories() {
    let store = OnDisk::new("btrfs", "btrfs");
    let sandbox = &store.sandbox;
    sandbox.base_image("base");
    sandbox.outcrop(&["create", "--name", "one", "base", "true"]).ok();
    // As somebody in it would, with btrfs-progs, which the image has not.
    let tree = numbers(sandbox).into_iter().map(|path| sandbox.root().join(path));
    let tree =
        tree.max_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap();
    let make = |path: &str| {
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(tree.join(path)));
        fs::write(tree.join(path).join("file"), path).unwrap();
    };
    make("outer");
    fs::create_dir(tree.join("outer/dir")).unwrap();
    make("outer/dir/inner");
    make("etc/other");
    run(Command::new("btrfs")
        .args(["subvolume", "snapshot", "-r"])
        .arg(tree.join("etc/other"))
        .arg(tree.join("etc/still")));
    let before = subvolumes(sandbox).len();
    assert_eq!(
        sandbox.outcrop(&["diff", "one"]).ok().lines(),
        [
            "C /etc",
            "A /etc/other",
            "A /etc/other/file",
            "A /etc/still",
            "A /etc/still/file",
            "A /outer",
            "A /outer/dir",
            "A /outer/dir/inner",
            "A /outer/dir/inner/file",
            "A /outer/file",
        ]
    );
    sandbox.outcrop(&["commit", "one", "it"]).ok();
    assert_eq!(subvolumes(sandbox).len(), before + 1, "the layer's tree is one, and has none inside");
    let cat = ["cat", "/outer/file", "/outer/dir/inner/file", "/etc/other/file", "/etc/still/file"];
    let seen = sandbox.outcrop(&[&["run", "--rm", "--network", "none", "it"], &cat[..]].concat()).ok();
    assert_eq!(seen.stdout(), "outerouter/dir/inneretc/otheretc/other");
    sandbox.check();
    sandbox.outcrop(&["rm", "one"]).ok();
    assert_eq!(subvolumes(sandbox), numbers(sandbox), "those inside went with the container's");
    sandbox.check();
}

/// What a killed process leaves goes with the row, or with the trash.
#[test]
fn what_killed_processes_left_goes_with_the_next_sweep() {
    let store = OnDisk::new("btrfs", "btrfs");
    let sandbox = &store.sandbox;
    sandbox.base_image("base");
    let trash = sandbox.root().join("trash");
    run(Command::new("btrfs").args(["subvolume", "create"]).arg(trash.join("left")));
    run(Command::new("btrfs").args(["subvolume", "create"]).arg(trash.join("left/inside")));
    run(Command::new("btrfs").args(["property", "set", "-ts"]).arg(trash.join("left")).args(["ro", "true"]));
    let send = sandbox.root().join("btrfs/send");
    let still = |name| {
        let sealed = sandbox.root().join(numbers(sandbox).first().unwrap());
        run(Command::new("btrfs").args(["subvolume", "snapshot", "-r"]).arg(sealed).arg(send.join(name)));
        fs::File::open(send.join(name)).unwrap()
    };
    let (_left, held) = (still("left"), still("held"));
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    sandbox.dockerfile("FROM base\nRUN echo x > /x\n");
    build_it(sandbox, &["--network", "none"]).ok();
    sandbox.outcrop(&["rmi", "it"]).ok();
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    let mut expected = numbers(sandbox);
    expected.insert("btrfs/send/held".to_owned());
    assert_eq!(subvolumes(sandbox), expected, "what is locked is being worked with");
    sandbox.check();
}

/// Whoever died while a subvolume became a directory is finished by who seals again.
#[test]
fn sealing_goes_on_where_it_was_killed() {
    let place = Place::new("btrfs", Some("btrfs"));
    let driver = &place.driver;
    let subvolume = |path: &Path| {
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(outside(path)));
        let file = fs::File::open(path).unwrap();
        outcrop::sys::btrfs::id(file.as_fd()).unwrap()
    };
    driver.create(SnapshotId(1), &[]).unwrap();
    let tree = driver.path(SnapshotId(1));
    fs::create_dir(tree.join("dir")).unwrap();
    // One whose copy was begun, and one that is a directory already.
    let begun = subvolume(&tree.join("dir/begun"));
    fs::write(tree.join("dir/begun/file"), "content").unwrap();
    fs::create_dir(tree.join(format!("dir/.outcrop-plain-{begun}"))).unwrap();
    fs::write(tree.join(format!("dir/.outcrop-plain-{begun}/half")), "").unwrap();
    let done = subvolume(&tree.join("done"));
    fs::rename(tree.join("done"), tree.join(format!(".outcrop-plain-{done}"))).unwrap();
    fs::write(tree.join(format!(".outcrop-plain-{done}/file")), "").unwrap();
    fs::create_dir(tree.join("done")).unwrap();
    fs::write(tree.join("done/file"), "kept").unwrap();
    let time = tree.join("dir").metadata().unwrap().modified().unwrap();

    driver.seal(SnapshotId(1)).unwrap();
    let names = |path: &str| {
        let mut names: Vec<String> = fs::read_dir(tree.join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!((names(""), names("dir")), (vec!["dir".into(), "done".into()], vec!["begun".into()]));
    assert_eq!(fs::read_to_string(tree.join("dir/begun/file")).unwrap(), "content");
    assert_eq!(fs::read_to_string(tree.join("done/file")).unwrap(), "kept");
    assert_eq!(tree.join("dir").metadata().unwrap().modified().unwrap(), time);
    assert_eq!(tree.join("dir/begun").metadata().unwrap().dev(), tree.metadata().unwrap().dev());
    assert!(fs::write(tree.join("new"), "").is_err());
}
