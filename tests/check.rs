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

#[test]
fn a_row_deleted_from_files_db_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        sql(&sandbox, "files.db", "delete from file where layer = 1 and path = x'6574632f706173737764'");
        finds(
            &sandbox,
            &["(of app:latest, base:latest): files.db: 4 rows stand under number 1, and should be 5"],
        );
    }
}

#[test]
fn a_row_changed_in_files_db_is_found() {
    let sandbox = store("overlay2");
    sql(&sandbox, "files.db", "update file set mode = 7 where layer = 1 and path = x'6574632f706173737764'");
    finds(&sandbox, &["files.db: the rows under number 1 are not the layer's"]);
}

#[test]
fn a_tag_that_moved_by_itself_is_found() {
    let sandbox = store("overlay2");
    let swap = "update tag set image = (select image from tag where name like '%/app:latest') where name like '%/base:latest'";
    sql(&sandbox, "outcrop.db", swap);
    finds(&sandbox, &["tag base:latest: outcrop.db: is not what its log says"]);
}

#[test]
fn an_edited_log_of_tags_is_found() {
    let sandbox = store("overlay2");
    let log = sandbox.root().join("tags.log");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("\"import\"", "\"inport\"", 1)).unwrap();
    finds(&sandbox, &["tags: tags.log: does not tell the same moves as the index"]);
}

#[test]
fn a_cut_blob_is_found_with_the_image_it_belongs_to() {
    let sandbox = store("overlay2");
    let id = sandbox.outcrop(&["build", "-q", "-t", "app", "."]).ok().line();
    let hex = id.strip_prefix("sha256:").unwrap();
    let blob =
        fs::OpenOptions::new().write(true).open(sandbox.root().join("blobs/sha256").join(hex)).unwrap();
    blob.set_len(10).unwrap();
    let short = &hex[..12];
    finds(&sandbox, &[&format!("config of image {short} (app:latest): blobs/sha256/{hex}: ")]);
}

#[test]
fn a_damaged_recipe_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let recipes = fs::read_dir(sandbox.root().join("layers")).unwrap();
        for recipe in recipes {
            let recipe = recipe.unwrap().path();
            let name = recipe.file_name().unwrap().to_str().unwrap();
            flip(&recipe);
            finds(&sandbox, &[&format!("layers/{name}: it does not make the layer's archive again: ")]);
            flip(&recipe);
        }
        check(&sandbox).ok();
    }
}

#[test]
fn a_missing_recipe_is_found() {
    let sandbox = store("overlay2");
    let recipe = fs::read_dir(sandbox.root().join("layers")).unwrap().next().unwrap().unwrap().path();
    let name = recipe.file_name().unwrap().to_str().unwrap();
    fs::remove_file(&recipe).unwrap();
    finds(&sandbox, &[&format!("layers/{name}: the layer's recipe is missing")]);
}

#[test]
fn a_missing_tree_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let tree = tree(&sandbox, driver, 2);
        fs::remove_dir_all(if driver == "vfs" { &tree } else { tree.parent().unwrap() }).unwrap();
        finds(
            &sandbox,
            &[&format!(
                "{}: the layer's tree is missing",
                tree.strip_prefix(sandbox.root()).unwrap().display()
            )],
        );
    }
}

#[test]
fn leftovers_are_no_damage() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let stray = match driver {
            "overlay2" => "overlay2/777",
            _ => "vfs/dir/777",
        };
        fs::create_dir_all(sandbox.root().join(stray)).unwrap();
        fs::write(sandbox.root().join("ingest/half"), "half").unwrap();
        fs::write(sandbox.root().join("layers/making-99"), "half").unwrap();
        fs::write(sandbox.root().join("trash/old"), "half").unwrap();
        fs::write(sandbox.root().join("blobs/sha256/half"), "half").unwrap();
        let text = check(&sandbox).ok().stdout();
        for left in
            ["/777: no row knows it", "ingest/half", "layers/making-99", "trash/old", "blobs/sha256/half"]
        {
            assert!(text.contains(left), "`{left}` is not in:\n{text}");
        }
        assert!(text.contains("\nnothing is wrong: "), "{text}");
        assert_eq!(sandbox.outcrop(&["system", "check", "-q"]).ok().stdout(), "");
    }
}

#[test]
fn findings_are_json_too() {
    let sandbox = store("overlay2");
    let clean = sandbox.outcrop(&["system", "check", "--format", "json"]).ok().json();
    assert_eq!(clean["Clean"], true);
    assert_eq!(clean["Checked"]["Layers"], 3);
    flip(&tree(&sandbox, "overlay2", 1).join("etc/passwd"));
    let damaged = sandbox.outcrop(&["system", "check", "--format", "json"]).fails(1).json();
    assert_eq!(damaged["Findings"][0]["File"], "overlay2/1/diff/etc/passwd");
    assert_eq!(damaged["Findings"][0]["What"], "content differs");
}
