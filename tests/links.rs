//! COPY again, of what an earlier layer has already: names of its files, and nothing else of them.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, based, build_it};

/// All copies of a file, by the layers' numbers.
fn copies(sandbox: &Sandbox, path: &str) -> Vec<(PathBuf, Metadata)> {
    let layers = fs::read_dir(sandbox.root().join("overlay2")).unwrap();
    let mut found: Vec<_> = layers
        .map(|layer| layer.unwrap().path().join("diff").join(path))
        .filter_map(|path| fs::symlink_metadata(&path).ok().map(|metadata| (path, metadata)))
        .collect();
    let number = |path: &Path| -> u64 {
        let below = path.strip_prefix(sandbox.root().join("overlay2")).unwrap();
        below.iter().next().unwrap().to_str().unwrap().parse().unwrap()
    };
    found.sort_by_key(|(path, _)| number(path));
    found
}

fn inodes(sandbox: &Sandbox, path: &str) -> Vec<u64> {
    copies(sandbox, path).iter().map(|(_, metadata)| metadata.ino()).collect()
}

fn cat(sandbox: &Sandbox, path: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "cat", path]).ok().stdout()
}

fn set_time(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn unchanged_files_are_names_of_the_last_layer_s_and_the_rest_is_made() {
    let sandbox = based("FROM base\nWORKDIR /app\nCOPY src .\n");
    for name in ["a", "b", "d/c", "d/e/f"] {
        sandbox.file(format!("src/{name}"), name);
    }
    set_time(&sandbox.context().join("src/d/e"), 1_500_000_000);
    build_it(&sandbox, &[]).ok();
    sandbox.file("src/b", "changed");
    sandbox.file("src/new", "new");
    fs::set_permissions(sandbox.context().join("src/d/c"), fs::Permissions::from_mode(0o600)).unwrap();
    set_time(&sandbox.context().join("src/d/e"), 1_500_000_000);
    build_it(&sandbox, &[]).ok();

    for (path, shared) in [("app/a", true), ("app/d/e/f", true), ("app/b", false), ("app/d/c", false)] {
        let inodes = inodes(&sandbox, path);
        assert_eq!((inodes.len(), inodes.first() == inodes.last()), (2, shared), "{path}: {inodes:?}");
    }
    for (path, text) in [("a", "a"), ("b", "changed"), ("d/c", "d/c"), ("d/e/f", "d/e/f"), ("new", "new")] {
        assert_eq!(cat(&sandbox, &format!("/app/{path}")), text);
    }
    let times: Vec<_> = copies(&sandbox, "app/d/e").iter().map(|(_, metadata)| metadata.mtime()).collect();
    assert_eq!(times, [1_500_000_000; 2], "a directory's time is its source's");
    sandbox.check();

    // What is written in a container changes neither layer.
    let write = "echo more >> a; chmod 700 d/e/f; cat a";
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "sh", "-c", write]).ok().says("amore");
    assert_eq!(cat(&sandbox, "/app/a"), "a");
    sandbox.check();

    // The earlier layer goes, the file stays.
    sandbox.outcrop(&["cache", "prune", "-f", "-a"]).ok();
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    let left = copies(&sandbox, "app/a");
    assert_eq!(left.iter().map(|(_, metadata)| metadata.nlink()).collect::<Vec<_>>(), [1]);
    assert_eq!(cat(&sandbox, "/app/a"), "a");
    sandbox.check();
}

#[test]
fn the_layer_is_the_one_that_copying_all_makes() {
    let sandbox = based("FROM base\nCOPY --chown=5:6 --chmod=u+x src /app/\n");
    for name in ["a", "b", "d/c"] {
        sandbox.file(format!("src/{name}"), name);
    }
    fs::hard_link(sandbox.context().join("src/a"), sandbox.context().join("src/z")).unwrap();
    std::os::unix::fs::symlink("a", sandbox.context().join("src/l")).unwrap();
    build_it(&sandbox, &[]).ok();
    sandbox.file("src/b", "changed");
    build_it(&sandbox, &[]).ok();
    let contents = |sandbox: &Sandbox| {
        let query = "SELECT content_id FROM layerdb ORDER BY rowid DESC LIMIT 1";
        crate::sandbox::tool(
            sandbox,
            &["sqlite3", sandbox.root().join("outcrop.db").to_str().unwrap(), query],
        )
    };
    let shared = contents(&sandbox);
    // The second name of a file is one of this layer, and no file of an earlier one.
    let last = |path: &str| copies(&sandbox, path).pop().unwrap().1;
    assert_eq!(last("app/a").ino(), last("app/z").ino());
    assert_eq!(last("app/a").nlink(), 2);

    let fresh = based("FROM base\nCOPY --chown=5:6 --chmod=u+x src /app/\n");
    for (name, text) in [("a", "a"), ("b", "changed"), ("d/c", "d/c")] {
        fresh.file(format!("src/{name}"), text);
    }
    fs::hard_link(fresh.context().join("src/a"), fresh.context().join("src/z")).unwrap();
    std::os::unix::fs::symlink("a", fresh.context().join("src/l")).unwrap();
    build_it(&fresh, &[]).ok();
    assert_eq!(shared, contents(&fresh));
}

/// What is done to a layer's file.
type Damage = (&'static str, fn(&Path));

#[test]
fn what_is_damaged_in_the_last_layer_is_copied_from_the_context() {
    let damage: [Damage; 4] = [
        ("bytes", |file| fs::write(file, "broken").unwrap()),
        ("bytes, at the same time", |file| {
            let time = fs::metadata(file).unwrap().modified().unwrap();
            fs::write(file, "broken").unwrap();
            fs::File::open(file).unwrap().set_modified(time).unwrap();
        }),
        ("mode", |file| fs::set_permissions(file, fs::Permissions::from_mode(0o777)).unwrap()),
        ("gone", |file| fs::remove_file(file).unwrap()),
    ];
    for (what, damage) in damage {
        let sandbox = based("FROM base\nCOPY src /app/\n");
        sandbox.file("src/a", "whole!");
        sandbox.file("src/b", "b");
        build_it(&sandbox, &[]).ok();
        damage(&copies(&sandbox, "app/a")[0].0);
        sandbox.file("src/b", "changed");

        build_it(&sandbox, &[]).ok();

        assert_eq!(cat(&sandbox, "/app/a"), "whole!", "{what}");
        let (_, last) = copies(&sandbox, "app/a").pop().unwrap();
        assert_eq!((last.mode() & 0o7777, last.nlink()), (0o644, 1), "{what}");
    }
}

#[test]
fn of_several_sources_the_last_for_a_name_stays() {
    let sandbox = based("FROM base\nCOPY one two /app/\n");
    sandbox.file("one/a", "one");
    sandbox.file("two/a", "two");
    sandbox.file("two/b", "b");
    build_it(&sandbox, &[]).ok();
    sandbox.file("two/b", "changed");
    build_it(&sandbox, &[]).ok();
    assert_eq!(cat(&sandbox, "/app/a"), "two");
    sandbox.check();
}
