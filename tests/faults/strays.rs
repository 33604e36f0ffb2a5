//! What a power cut leaves whose rows it took: the names are on disk, the index is older. It goes with the first sweep
//! after it, or when it is asked for; nobody at work loses anything by that.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use outcrop::db::Db;
use outcrop::image::{DiffId, Digest};
use outcrop::layer::{Kind, Row, RowSink as _};
use outcrop::snapshot::{Purpose, Snapshots, driver::Options};
use outcrop::store::Blobs;

use super::killed::{build, prepared, twin};
use super::left::{ask, ask_file, half_written};
use crate::sandbox::Sandbox;

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// One of each kind, as `system check` calls them.
fn plant(sandbox: &Sandbox, trees: &str) -> BTreeSet<String> {
    let root = sandbox.root();
    fs::create_dir(root.join(trees).join("777")).unwrap();
    for name in [
        format!("blobs/sha256/{HEX}"),
        format!("layers/{HEX}"),
        format!("layers/{HEX}.at"),
        format!("layers/{HEX}.seen"),
        "layers/making-777".into(),
        format!("ingest/{HEX}"),
        "ingest/0011223344556677".into(),
        format!("containers/{HEX}/config.json"),
    ] {
        fs::create_dir_all(root.join(&name).parent().unwrap()).unwrap();
        fs::write(root.join(name), "half").unwrap();
    }
    ask_file(
        &root.join("files.db"),
        "insert into file (layer, path, kind, mode, uid, gid, size, mtime, flags) values (777, x'61', 1, 0, 0, 0, 0, 0, 0)",
    );
    let driver = trees.split('/').next().unwrap();
    [
        format!("{driver}/777: no row knows it"),
        format!("blobs/sha256/{HEX}: no row knows it"),
        format!("layers/{HEX}: no row knows it"),
        format!("layers/{HEX}.at: no row knows it"),
        format!("layers/{HEX}.seen: no row knows it"),
        "layers/making-777: no row knows it".into(),
        format!("ingest/{HEX}: nobody is writing it any more"),
        "ingest/0011223344556677: nobody is writing it any more".into(),
        format!("containers/{HEX}: no row knows it"),
        "files.db: rows under number 777, which no layer has".into(),
    ]
    .into()
}

/// What no sweep may take: what was put there by others, or is written to by users.
fn plant_what_stays(sandbox: &Sandbox) -> BTreeSet<String> {
    for name in ["blobs/sha256/half", "ingest/bootstrap-1/bin/sh", "volumes/data/_data/mine"] {
        let path = sandbox.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "whole").unwrap();
    }
    [
        "blobs/sha256/half: no row knows it",
        "ingest/bootstrap-1: nobody is writing it any more",
        "volumes/data: no row knows it",
    ]
    .map(str::to_owned)
    .into()
}

fn left(sandbox: &Sandbox) -> BTreeSet<String> {
    let said = sandbox.outcrop(&["system", "check", "--format", "json"]).ok().json();
    said["Leftovers"].as_array().unwrap().iter().map(|left| left.as_str().unwrap().to_owned()).collect()
}

/// The boot in the index is another one.
fn reboot(sandbox: &Sandbox) {
    ask(sandbox, "update meta set value = 'before' where key = 'boot'");
}

#[test]
fn the_first_sweep_after_a_start_of_the_machine_takes_what_no_row_knows() {
    for (driver, trees) in [("overlay2", "overlay2"), ("vfs", "vfs/dir")] {
        let sandbox = prepared(driver);
        sandbox.outcrop(&["create", "--name", "made", "base", "true"]).ok();
        let stays = plant_what_stays(&sandbox);
        let strays = plant(&sandbox, trees);
        assert_eq!(left(&sandbox), &strays | &stays);
        // Nobody looks for them as long as nothing can have been lost.
        sandbox.outcrop(&["tag", "base", "one"]).ok();
        assert_eq!(left(&sandbox), &strays | &stays);

        reboot(&sandbox);
        sandbox.outcrop(&["tag", "base", "two"]).ok();
        assert_eq!(left(&sandbox), stays);
        assert_eq!(ask(&sandbox, "select count(*) from meta where key like '%_unchecked'"), "0");
        sandbox.outcrop(&["start", "-a", "made"]).ok();

        // Or when somebody asks.
        let strays = plant(&sandbox, trees);
        assert_eq!(left(&sandbox), &strays | &stays);
        sandbox.outcrop(&["system", "prune", "-f"]).ok();
        assert_eq!(left(&sandbox), stays);
        assert_eq!(fs::read(sandbox.root().join("volumes/data/_data/mine")).unwrap(), b"whole");
    }
}

#[test]
fn lines_of_tags_log_that_did_not_happen_are_taken_back_by_a_sweep() {
    let sandbox = prepared("vfs");
    let log = sandbox.root().join("tags.log");
    let moves = fs::read_to_string(&log).unwrap();
    // A move that was written and not committed, and half of another.
    let ahead = moves.replace("\"seq\":1,", "\"seq\":2,");
    fs::write(&log, format!("{moves}{ahead}{}", &ahead[..20])).unwrap();
    assert_eq!(
        left(&sandbox),
        ["tags.log: its last lines were cut off before they happened".to_owned()].into()
    );
    sandbox.outcrop(&["cache", "prune", "-f", "--keep-storage", "1g"]).ok();
    assert_eq!(left(&sandbox), BTreeSet::new());
    sandbox.outcrop(&["tag", "base", "other"]).ok();
    sandbox.check();
    let last: serde_json::Value =
        serde_json::from_str(fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!((&last["seq"], &last["verb"]), (&2.into(), &"tag".into()));
}

/// All of a build is on disk but its rows.
#[test]
fn a_build_whose_rows_are_lost_leaves_nothing_and_comes_again() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = prepared(driver);
        let undisturbed = twin(&sandbox, driver);
        let expected = undisturbed.outcrop(&build(1)).ok().line();
        let copy = |from: &str, to: &str| {
            for end in ["", "-wal"] {
                let (from, to) = (format!("{from}{end}"), format!("{to}{end}"));
                fs::copy(sandbox.root().join(from), sandbox.root().join(to)).unwrap();
            }
        };
        copy("outcrop.db", "before");
        sandbox.outcrop(&build(1)).ok();
        copy("before", "outcrop.db");
        for name in ["before", "before-wal", "outcrop.db-shm"] {
            fs::remove_file(sandbox.root().join(name)).unwrap();
        }
        reboot(&sandbox);

        // Trees go as soon as the store is opened, names with the first sweep.
        let lost: Vec<String> = left(&sandbox).into_iter().collect();
        let count = |dir: &str| lost.iter().filter(|name| name.starts_with(dir)).count();
        assert!(count("layers/") > 5 && count("blobs/") > 5 && count("files.db") > 2, "{lost:#?}");
        sandbox.outcrop(&["tag", "base", "other"]).ok();
        assert_eq!(half_written(&sandbox), Vec::<String>::new());
        assert_eq!(left(&sandbox), BTreeSet::new());
        assert_eq!(sandbox.outcrop(&build(1)).ok().line(), expected);
        assert_eq!(half_written(&sandbox), Vec::<String>::new());
        sandbox.check();
    }
}

#[test]
fn what_is_about_to_get_a_row_is_no_stray() {
    let sandbox = Sandbox::new();
    let (at_work, other) = (Db::open(&sandbox.root()).unwrap(), Db::open(&sandbox.root()).unwrap());
    let trees = |db| Snapshots::open(db, Some("vfs"), &Options::default()).unwrap();
    let (drafting, looking) = (trees(&at_work), trees(&other));
    let draft = drafting.draft(None, Purpose::Layer).unwrap();
    let lease = at_work.lease().unwrap();
    let slot = at_work.reserve_layer(&lease).unwrap();
    let mut rows = slot.rows().unwrap();
    rows.row(Row::bare("a", Kind::Dir)).unwrap();
    rows.finish().unwrap();
    let making = sandbox.root().join(format!("layers/making-{}", slot.number()));
    fs::write(&making, "recipe").unwrap();
    let (blobs, digest) = (Blobs::open(&at_work), Digest::of(b"content"));
    let incoming = blobs.incoming(&Digest::of(b"later"), 5).unwrap();

    let look = || (other.remove_strays().unwrap(), looking.remove_strays().unwrap());
    look();
    assert!(making.exists());
    assert_eq!(at_work.row_count(slot.number()).unwrap(), 1);
    let arriving = sandbox.root().join("ingest").join(Digest::of(b"later").hex());
    assert!(arriving.exists());
    // Its row is gone, and it is still being written.
    ask(&sandbox, "delete from intent where what = 'incoming'");
    look();
    assert!(arriving.exists());
    let recipe = sandbox.root().join("layers").join(digest.hex());
    slot.keep_recipe(&making, &DiffId(digest)).unwrap();
    look();
    assert!(recipe.exists());
    assert!(draft.tree().is_ok());

    // Named, and not yet committed: the look waits.
    let staged = blobs.stage(b"content").unwrap();
    ask(&sandbox, "delete from blob");
    std::thread::scope(|scope| {
        at_work
            .write(|index| {
                staged.publish(index, None)?;
                scope.spawn(look);
                // Long enough to have listed what is there.
                std::thread::sleep(std::time::Duration::from_millis(300));
                Ok(())
            })
            .unwrap();
    });
    assert_eq!(blobs.read_all(&digest, 100).unwrap(), b"content");

    // And once nobody is at it any more, all of it goes.
    drop((incoming, staged, slot, draft, lease));
    fs::write(&recipe, "recipe").unwrap();
    look();
    looking.sweep().unwrap();
    for dir in ["layers", "ingest", "vfs/dir"] {
        assert_eq!(fs::read_dir(sandbox.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn ten_builders_lose_nothing_while_strays_are_looked_for() {
    let sandbox = prepared("overlay2");
    let undisturbed = twin(&sandbox, "overlay2");
    let expected: Vec<String> = (0..10).map(|salt| undisturbed.outcrop(&build(salt)).ok().line()).collect();
    let db = Db::open(&sandbox.root()).unwrap();
    let snapshots = Snapshots::open(&db, None, &Options::default()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let builders: Vec<_> = (0..10)
            .map(|salt| {
                let (sandbox, expected) = (&sandbox, &expected);
                scope.spawn(move || {
                    let id = sandbox.outcrop(&build(salt)).ok().line();
                    assert_eq!(id, expected[usize::try_from(salt).unwrap()]);
                })
            })
            .collect();
        let sweeper = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Relaxed) {
                // As after a power cut, for all that this one knows.
                db.remove_strays().unwrap();
                snapshots.remove_strays().unwrap();
                snapshots.sweep().unwrap();
                looked += 1;
            }
            looked
        });
        let ended: Vec<_> = builders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let looked = sweeper.join().unwrap();
        assert!(ended.iter().all(Result::is_ok));
        assert!(looked > 10, "{looked}");
    });
    drop((snapshots, db));
    sandbox.outcrop(&["tag", "base", "other"]).ok();
    sandbox.check();
    assert_eq!(left(&sandbox), BTreeSet::new());
    assert_eq!(half_written(&sandbox), Vec::<String>::new());
    for salt in 0..10 {
        let name = format!("it:{salt}");
        let run = ["run", "--rm", "--network", "none", &name, "cat", "/made/deep/9"];
        assert_eq!(sandbox.outcrop(&run).ok().line(), format!("9{salt}"));
    }
}
