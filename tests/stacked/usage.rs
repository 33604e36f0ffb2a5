//! What outcrop says that something takes is what the filesystem and du(1) say.

use std::process::Command;
use std::time::Duration;

use super::disk::{OnDisk, run};
use crate::sandbox::{Sandbox, build_it, wait_until};
use crate::zfs::Pool;

/// Bytes that are taken on the store's filesystem, once all is written and what goes is gone.
fn used(sandbox: &Sandbox, filesystem: &str) -> u64 {
    run(Command::new("sync").arg("-f").arg(sandbox.root()));
    if filesystem == "btrfs" {
        // Unlike syncfs(2) this wakes who removes subvolumes.
        run(Command::new("btrfs").args(["filesystem", "sync"]).arg(sandbox.root()));
        run(Command::new("btrfs").args(["subvolume", "sync"]).arg(sandbox.root()));
        run(Command::new("sync").arg("-f").arg(sandbox.root()));
    }
    let stat = rustix::fs::statvfs(sandbox.root()).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Bytes that the trees take, each inode once.
fn trees(sandbox: &Sandbox, driver: &str) -> u64 {
    let said = run(Command::new("du").args(["-s", "-B1"]).arg(sandbox.root().join(driver)));
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// As people read it, to three digits.
fn bytes(text: &str) -> f64 {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)];
    let (unit, factor) = units.into_iter().find(|(unit, _)| text.ends_with(unit)).unwrap();
    text.strip_suffix(unit).unwrap().trim().parse::<f64>().unwrap() * factor
}

const A: u64 = 12_000_000;
const C: u64 = 5_000_000;
const OWN: u64 = 7_000_000;
/// What a filesystem needs besides for what stands in a dozen directories.
const BESIDES: u64 = 2_500_000;

#[track_caller]
fn is_about(what: &str, found: u64, expected: u64) {
    let most = expected + expected / 20 + BESIDES;
    assert!(found + BESIDES >= expected && found <= most, "{what}: {found} where {expected} is expected");
}

fn agrees(driver: &str, filesystem: &str) {
    let store = OnDisk::new(filesystem, driver);
    let sandbox = &store.sandbox;
    let used = || used(sandbox, filesystem);
    sandbox.base_image("base");
    sandbox.dockerfile(&format!(
        "FROM base\nRUN head -c {A} /dev/urandom > /a && ln /a /b\nRUN head -c {C} /dev/urandom > /c && rm /b\n"
    ));
    let (at_first, in_trees) = (used(), trees(sandbox, driver));
    build_it(sandbox, &["--network", "none"]).ok();
    let sizes = sandbox.outcrop(&["history", "--human=false", "--format", "{{.Size}}", "it"]).ok();
    assert_eq!(sizes.lines()[..2], [C.to_string(), A.to_string()], "{driver} on {filesystem}");
    // Where nothing is shared each tree is a copy of the one below: the first step's file stands twice.
    let copies = driver == "vfs" && filesystem == "ext4";
    let base = if copies { in_trees } else { 0 };
    let built = used();
    let expected = A + C + if copies { 2 * base + A } else { 0 };
    is_about(&format!("built with {driver} on {filesystem}"), built - at_first, expected);
    // du(1) cannot see what files share, nor count what a subvolume shares.
    if copies || driver.starts_with("overlay") {
        is_about("its trees", trees(sandbox, driver) - in_trees, expected);
    }

    let write = format!("head -c {OWN} /dev/urandom > /own; rm /c");
    sandbox.outcrop(&["run", "--name", "one", "--network", "none", "it", "sh", "-c", &write]).ok();
    let size = sandbox.outcrop(&["ps", "-a", "-s", "--format", "{{.Size}}"]).ok().line();
    let (own, whole) = size.split_once(" (virtual ").unwrap();
    let own = bytes(own);
    let image = bytes(&sandbox.outcrop(&["images", "--format", "{{.Size}}", "it"]).ok().line());
    let whole = bytes(whole.strip_suffix(')').unwrap());
    assert!((whole - own - image).abs() < image / 50.0, "{size}, of an image of {image}");
    let took = used() - built;
    // Without overlayfs it is measured by the archive of what changed.
    let most = if driver.starts_with("overlay") { OWN } else { OWN + OWN / 100 } as f64;
    assert!((OWN as f64..=most).contains(&own), "{driver} on {filesystem}: {size}");
    is_about("a container", took, OWN + if copies { base + A } else { 0 });

    sandbox.outcrop(&["rm", "one"]).ok();
    // xfs gives room back a moment after the file is gone.
    let back = |most: u64| wait_until(Duration::from_secs(60), || used() <= most);
    back(built + BESIDES);
    is_about("removed", used() - at_first, expected);
    sandbox.outcrop(&["rmi", "it"]).ok();
    let pruned = sandbox.outcrop(&["system", "prune", "-a", "-f"]).ok();
    let lines = pruned.lines();
    let reclaimed = lines.iter().find_map(|line| line.strip_prefix("Total reclaimed space: ")).unwrap();
    // The image's base went along.
    assert!(bytes(reclaimed) >= (A + C) as f64, "{reclaimed}");
    back(at_first + BESIDES);
    let left = used();
    assert!(left <= at_first + BESIDES, "{left} where {at_first} was at first");
    sandbox.check();
}

#[test]
fn of_overlay2() {
    agrees("overlay2", "ext4");
    agrees("overlay2", "xfs");
}

#[test]
fn of_overlay() {
    agrees("overlay", "ext4");
}

#[test]
fn of_vfs() {
    agrees("vfs", "ext4");
    agrees("vfs", "xfs");
}

#[test]
fn of_btrfs() {
    agrees("btrfs", "btrfs");
}

/// ZFS writes its numbers down some seconds later.
#[test]
fn of_zfs() {
    let sandbox = Sandbox::new().driver("zfs").variable("OUTCROP_STORAGE_OPTS", "zfs.fsname=pool/store");
    let _pool = Pool::new(&sandbox);
    let used = || -> u64 {
        let said = run(Command::new("/usr/sbin/zfs").args([
            "get",
            "-H",
            "-p",
            "-o",
            "value",
            "used",
            Pool::DATASET,
        ]));
        said.trim().parse().unwrap()
    };
    let becomes = |what: &str, expected: u64| {
        let near = || used().abs_diff(expected) < BESIDES;
        wait_until(Duration::from_secs(60), near);
        assert!(near(), "{what}: {} where {expected} is expected", used());
    };
    sandbox.base_image("base");
    let mut base = used();
    wait_until(Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_secs(6));
        base == std::mem::replace(&mut base, used())
    });
    sandbox.dockerfile(&format!("FROM base\nRUN head -c {A} /dev/urandom > /a && ln /a /b\n"));
    build_it(&sandbox, &["--network", "none"]).ok();
    becomes("built", base + A);
    let write = format!("head -c {OWN} /dev/urandom > /own; mv /a /moved");
    sandbox.outcrop(&["run", "--name", "one", "--network", "none", "it", "sh", "-c", &write]).ok();
    becomes("a container", base + A + OWN);
    sandbox.outcrop(&["rm", "one"]).ok();
    becomes("removed", base + A);
    sandbox.outcrop(&["rmi", "it"]).ok();
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    becomes("pruned", base);
}
