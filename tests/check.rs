//! `system check`: a clean store is clean, and no damage stays unseen.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::sandbox::{Outcome, Sandbox};

/// A store with a base of two files and an image of three steps on it, `app`.
fn store(driver: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    let tree = sandbox.dir().join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/motd"), "hello\n").unwrap();
    fs::create_dir(tree.join("srv")).unwrap();
    let tar = sandbox.dir().join("base.tar");
    let packed = std::process::Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    sandbox.outcrop(&["import", tar.to_str().unwrap(), "base"]).ok();
    sandbox.file("a", "first\n");
    sandbox.file("b", "second\n");
    sandbox.dockerfile("FROM base\nCOPY a /srv/a\nENV X=y\nCOPY b /etc/motd\n");
    sandbox.outcrop(&["build", "-t", "app", "."]).ok();
    sandbox
}

const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

fn check(sandbox: &Sandbox) -> Outcome {
    sandbox.outcrop(&["system", "check"])
}

/// The one line of standard output that is a finding, after all was made right again it is clean.
#[track_caller]
fn finds(sandbox: &Sandbox, what: &[&str]) {
    let outcome = sandbox.outcrop(&["system", "check", "-q"]).fails(1);
    let text = outcome.stdout();
    for what in what {
        assert!(text.contains(what), "`{what}` is not in:\n{text}");
    }
}

/// The tree of a snapshot.
fn tree(sandbox: &Sandbox, driver: &str, number: u64) -> PathBuf {
    match driver {
        "overlay2" => sandbox.root().join(format!("overlay2/{number}/diff")),
        _ => sandbox.root().join(format!("vfs/dir/{number}")),
    }
}

/// Where the store keeps the base's `path`, below its root.
fn base_file(driver: &str, path: &str) -> String {
    match driver {
        "overlay2" => format!("overlay2/1/diff/{path}"),
        _ => format!("vfs/dir/1/{path}"),
    }
}

fn keeping_times(path: &Path, change: impl FnOnce()) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    change();
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    keeping_times(path, || fs::write(path, &bytes).unwrap());
}

fn sql(sandbox: &Sandbox, file: &str, text: &str) {
    let connection = Connection::open(sandbox.root().join(file)).unwrap();
    assert!(connection.execute(text, ()).unwrap() > 0, "nothing was changed by: {text}");
}

#[test]
fn a_new_store_is_clean() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let text = check(&sandbox).ok().stdout();
        assert!(text.starts_with("nothing is wrong: 4 images, 3 layers, 3 trees, 4 blobs"), "{text}");
        assert_eq!(sandbox.outcrop(&["system", "check", "-q"]).ok().stdout(), "");
    }
}

#[test]
fn a_flipped_bit_in_a_file_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        flip(&tree(&sandbox, driver, 1).join("etc/passwd"));
        finds(&sandbox, &["(of app:latest, base:latest)", &base_file(driver, "etc/passwd: content differs")]);
    }
}

#[test]
fn a_changed_mode_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let file = tree(&sandbox, driver, 1).join("etc/passwd");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        finds(&sandbox, &[&base_file(driver, "etc/passwd: mode differs")]);
    }
}

#[test]
fn a_missing_file_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let etc = tree(&sandbox, driver, 1).join("etc");
        keeping_times(&etc, || fs::remove_file(etc.join("passwd")).unwrap());
        finds(&sandbox, &[&base_file(driver, "etc/passwd: is missing")]);
    }
}

#[test]
fn an_added_file_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let etc = tree(&sandbox, driver, 1).join("etc");
        keeping_times(&etc, || fs::write(etc.join("new"), "").unwrap());
        finds(&sandbox, &[&base_file(driver, "etc/new: should not be there")]);
    }
}
