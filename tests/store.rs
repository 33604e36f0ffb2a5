//! The index and the blobs: many processes at once, kills, reboots, and what keeps what.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use outcrop::db::{
    BuildStatus, ContainerId, ContainerState, Db, KeyKind, Keyed, LayerNumber, Lease, NewBuild,
    NewCacheRecord, NewContainer, NewImage, NewLayer, Origin, Pending, Rebuild, Sealed, SnapshotId,
    SnapshotRow, Swept, Time,
};
use outcrop::error::{Error, Kind, Result};
use outcrop::image::{CacheKey, ChainId, ContentId, DiffId, Digest, ImageId};
use outcrop::job::Job;
use outcrop::layer::{self, Row, RowSink as _};
use outcrop::store::Blobs;

use crate::sandbox::Sandbox;

fn file(path: &str, content: &[u8]) -> Row {
    Row {
        mode: 0o644,
        size: content.len() as u64,
        digest: Some(Digest::of(content)),
        mtime: 1_700_000_000_000_000_000,
        ..Row::bare(path, layer::Kind::File)
    }
}

/// The content id of a layer of one file, as `add_layer` makes it.
fn content_of(name: &str) -> ContentId {
    layer::content_id([Ok(file(name, name.as_bytes()))]).unwrap()
}

fn digest_of(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A layer of one file named `name`, published, with a sealed snapshot.
fn add_layer(db: &Db, lease: &Lease, name: &str) -> (LayerNumber, SnapshotId) {
    let slot = db.reserve_layer(lease).unwrap();
    let mut rows = slot.rows().unwrap();
    rows.row(file(name, name.as_bytes())).unwrap();
    let row_count = rows.finish().unwrap();
    let making = db.root().join(format!("layers/making-{}", slot.number()));
    fs::write(&making, name).unwrap();
    slot.keep_recipe(&making, &DiffId(digest_of(name))).unwrap();
    db.write(|writer| {
        let published = writer.publish_layer(&NewLayer {
            number: slot.number(),
            diff_id: DiffId(digest_of(name)),
            base: None,
            leans: false,
            content_id: content_of(name),
            size: name.len() as u64,
            tar_size: 2048,
            row_count,
            made_by: Some(format!("COPY {name} /")),
            build: None,
        })?;
        let id = writer.new_snapshot("vfs", &[], lease)?;
        writer.snapshot_made(id)?;
        let id = match writer.seal_snapshot(id, Keyed::Layer(published.number))? {
            Sealed::Now => id,
            Sealed::Already(other) => {
                writer.remove_snapshot(id)?;
                other
            }
        };
        Ok((published.number, id))
    })
    .unwrap()
}

/// An image of these layers on top of another image; its config is the name.
fn add_image(db: &Db, name: &str, parent: Option<ImageId>, layers: &[LayerNumber]) -> ImageId {
    let staged = Blobs::open(db).stage(name.as_bytes()).unwrap();
    let id = ImageId(staged.digest());
    db.write(|writer| {
        staged.publish(writer, None)?;
        let mut chain = match &parent {
            Some(parent) => writer.image(parent)?.unwrap().chain,
            None => None,
        };
        for layer in layers {
            chain = Some(writer.add_chain(chain.as_ref(), *layer)?);
        }
        writer.insert_image(&NewImage {
            id,
            parent,
            chain,
            platform: "linux/amd64".into(),
            created: Some("2024-01-01T00:00:00Z".into()),
            created_by: Some(format!("RUN make {name}")),
            origin: Origin::Built,
            build: None,
        })
    })
    .unwrap();
    id
}

fn tag(db: &Db, name: &str, image: ImageId) {
    db.barrier(|_| Ok(()), |durable| durable.move_tag(name, &image, None, "tag", None)).unwrap();
}

fn no_tree(_: &SnapshotRow) -> Result<()> {
    Ok(())
}

fn sqlite3(database: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(database).arg(sql).output().expect("sqlite3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn store(sandbox: &Sandbox) -> Db {
    Db::open(&sandbox.root()).unwrap()
}

#[test]
fn what_an_image_stands_on_stays_until_the_image_goes() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let base = add_image(&db, "base", None, &[one]);
    let top = add_image(&db, "top", Some(base), &[two]);
    tag(&db, "docker.io/library/x:latest", top);
    drop(lease);

    assert!(db.sweep(&no_tree).unwrap().complete);
    assert_eq!(
        db.read(|reader| reader.stack(Some(&ChainId::of(&[DiffId(digest_of("one"))]).unwrap())))
            .unwrap()
            .len(),
        1
    );
    let error = db.write(|writer| writer.condemn_images(&[base])).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);

    db.durable(|durable| {
        durable.remove_tag("docker.io/library/x:latest", "rmi", None)?;
        let gone = durable.condemn_images(&[top])?;
        assert_eq!(gone.images, [top, base]);
        assert_eq!(gone.layers, [(one, 3), (two, 3)]);
        assert_eq!(gone.bytes(), 3 + 3 + 4 + 3);
        Ok(())
    })
    .unwrap();
    let swept = db.sweep(&no_tree).unwrap();
    assert!(swept.complete && swept.failed.is_empty(), "{swept:?}");
    assert_eq!((swept.images, swept.layers, swept.snapshots, swept.blobs), (2, 2, 2, 2));
    assert_eq!(db.numbers_with_rows().unwrap(), []);
    assert_eq!(fs::read_dir(sandbox.root().join("blobs/sha256")).unwrap().count(), 0);
}

fn row_of(path: &str, kind: layer::Kind) -> Row {
    Row { kind, size: 0, digest: None, mode: 0o755, ..file(path, b"") }
}

fn write_rows(db: &Db, lease: &Lease, rows: Vec<Row>) -> outcrop::db::LayerSlot {
    let slot = db.reserve_layer(lease).unwrap();
    let mut writer = slot.rows().unwrap();
    rows.into_iter().for_each(|row| writer.row(row).unwrap());
    writer.finish().unwrap();
    slot
}

/// Nothing of the state that work leaves while it is under way.
fn assert_clean(db: &Db) {
    let swept = db.sweep(&no_tree).unwrap();
    assert!(swept.complete && swept.failed.is_empty(), "{swept:?}");
    for table in ["intent", "snapshot where state <> 'sealed'", "blob where condemned is not null"] {
        let left = sqlite3(&db.root().join("outcrop.db"), &format!("select count(*) from {table}"));
        assert_eq!(left, "0", "{table}");
    }
    for dir in ["trash", "ingest"] {
        assert_eq!(fs::read_dir(db.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
    let numbers: Vec<LayerNumber> =
        db.read(|reader| reader.layers()).unwrap().iter().map(|layer| layer.number).collect();
    assert_eq!(db.numbers_with_rows().unwrap(), numbers);
    assert_eq!(db.check(&Job::silent()).unwrap(), []);
}

fn locks(db: &Db) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(db.root().join("locks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("lease-"))
        .collect();
    names.sort();
    names
}

/// As a store looks after the machine went down: the boot in its rows is another one.
fn reboot(root: &Path) {
    let index = root.join("outcrop.db");
    let tables = ["layer", "snapshot", "image", "blob"];
    let pending = tables
        .map(|table| format!("update {table} set pending_boot = 'before' where pending_boot is not null;"));
    sqlite3(&index, &format!("{} update meta set value = 'before' where key = 'boot';", pending.concat()));
}

// Another process: this test binary, told by a variable what to do on which store.

const CHILD: &str = "OUTCROP_STORE_TEST_CHILD";

fn child(root: &Path, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["store::does_what_another_test_asks_for", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{task} {}", root.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The child says `ready` when it has come to the point that matters, and goes on when its input ends.
fn wait_until_ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the child ended early");
    // Its further output goes nowhere, but must not fail.
    thread::spawn(move || lines.for_each(drop));
}

fn finish(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn does_what_another_test_asks_for() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (task, root) = order.rsplit_once(' ').unwrap();
    let db = Db::open(Path::new(root)).unwrap();
    let ready = || {
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    };
    match task {
        "open" => {}
        "stay" => ready(),
        "write rows for ever" => {
            let lease = db.lease().unwrap();
            let slot = db.reserve_layer(&lease).unwrap();
            let making = db.root().join("layers/making-1");
            fs::write(&making, "a recipe").unwrap();
            slot.keep_recipe(&making, &DiffId(digest_of("never"))).unwrap();
            fs::write(&making, "another").unwrap();
            db.write(|writer| writer.new_snapshot("vfs", &[], &lease)).unwrap();
            db.write(|writer| writer.start_build(&new_build(), &lease)).unwrap();
            let mut rows = slot.rows().unwrap();
            for n in 0.. {
                rows.row(file(&format!("file{n}"), b"")).unwrap();
                if n == 25_000 {
                    println!("ready");
                }
            }
        }
        "layers" => {
            let lease = db.lease().unwrap();
            for n in 0..20 {
                let (number, _) = add_layer(&db, &lease, &format!("layer {n}"));
                let image = add_image(&db, &format!("image {n}"), None, &[number]);
                tag(&db, &format!("docker.io/library/x:{n}"), image);
            }
        }
        "layers and removal" | "layers and removal for ever" => {
            println!("ready");
            let rounds = if task == "layers and removal" { 20 } else { u32::MAX };
            for n in 0..rounds {
                let lease = db.lease().unwrap();
                let (number, _) = add_layer(&db, &lease, &format!("layer {}", n % 3));
                let image = add_image(&db, &format!("image {}", n % 3), None, &[number]);
                let name = format!("docker.io/library/x:{}", std::process::id() % 4);
                db.barrier(|_| Ok(()), |durable| durable.move_tag(&name, &image, None, "tag", None)).unwrap();
                db.durable(|durable| durable.remove_tag(&name, "rmi", None)).unwrap();
                // Seen in this process's epoch: there, however much others remove.
                assert!(db.read(|reader| reader.image(&image)).unwrap().is_some());
                assert_eq!(db.row_count(number).unwrap(), 1);
                let recipe = db.root().join("layers").join(digest_of(&format!("layer {}", n % 3)).hex());
                assert!(recipe.exists(), "{recipe:?}");
                Blobs::open(&db).verify(&image.0).unwrap();
                db.durable(|durable| durable.condemn_dangling()).unwrap();
                let swept = db.sweep(&no_tree).unwrap();
                assert!(swept.failed.is_empty(), "{swept:?}");
            }
        }
        "fill the disk" => fill_the_disk(&db),
        other => panic!("no task `{other}`"),
    }
}

/// The store's filesystem has room for little.
fn fill_the_disk(db: &Db) {
    let lease = db.lease().unwrap();
    let (kept, _) = add_layer(db, &lease, "kept");
    let image = add_image(db, "image", None, &[kept]);
    tag(db, "docker.io/library/x:latest", image);
    let (unneeded, _) = add_layer(db, &lease, "unneeded");

    let slot = db.reserve_layer(&lease).unwrap();
    let mut rows = slot.rows().unwrap();
    let error = (0..).find_map(|n| rows.row(file(&format!("{n:0200}"), b"")).err()).unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.hint_text().unwrap().contains("outcrop system prune"), "{error:?}");
    let blobs = Blobs::open(db);
    let error = blobs.writer(None, Some(68 << 20)).err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    // Whatever is left of the disk goes, too.
    let mut rest = fs::File::create(db.root().join("cache")).unwrap();
    while rest.write(&[1; 4096]).is_ok() {}

    db.give_up_reserve().unwrap();
    drop((rows, slot, lease));
    let gone = db.durable(|durable| durable.condemn_unreferenced()).unwrap();
    assert_eq!(gone.layers, [(unneeded, 8)]);
    assert_clean(db);
    assert_eq!(db.read(|reader| reader.tags()).unwrap().len(), 1);
    blobs.verify(&image.0).unwrap();
    fs::remove_file(db.root().join("cache")).unwrap();
    db.restore_reserve().unwrap();
    add_layer(db, &db.lease().unwrap(), "after");
    assert_clean(db);
}

#[test]
fn a_full_disk_is_said_and_what_is_not_needed_can_still_be_removed() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.root()).unwrap();
    // In a mount namespace of its own, whose mounts end with it.
    let script = r#"mount -t tmpfs -o size=24m none "$ROOT" && exec "$0" "$@""#;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["store::does_what_another_test_asks_for", "--exact", "--nocapture", "--test-threads=1"])
        .env("ROOT", sandbox.root())
        .env(CHILD, format!("fill the disk {}", sandbox.root().display()))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn new_build() -> NewBuild {
    NewBuild { context: "/src".into(), dockerfile: "Dockerfile".into(), options: "{}".into() }
}

#[test]
fn a_store_that_eight_make_at_once_is_one_store() {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let children: Vec<Child> = (0..4).map(|_| child(&root, "open")).collect();
    let uuids: Vec<String> = thread::scope(|scope| {
        let open = || Db::open(&root).unwrap().read(|reader| reader.uuid()).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    children.into_iter().for_each(finish);
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0] && uuid.len() == 36), "{uuids:?}");
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o700);
    let mut names: Vec<String> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    let all = [
        "blobs",
        "containers",
        "files.db",
        "ingest",
        "layers",
        "locks",
        "outcrop.db",
        "reserve",
        "trash",
        "volumes",
    ];
    assert_eq!(names, all);
    assert_eq!(fs::metadata(root.join("reserve")).unwrap().len(), 8 << 20);
}

#[test]
fn a_store_of_a_newer_outcrop_is_refused() {
    let sandbox = Sandbox::new();
    drop(store(&sandbox));
    sqlite3(&sandbox.root().join("outcrop.db"), "pragma user_version = 1000");
    let error = Db::open(&sandbox.root()).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(
        error.message(),
        "the store was made by a newer outcrop: its outcrop.db has version 1000, this one knows 2"
    );
    assert_eq!(error.hint_text(), Some("use that outcrop, or another store with --root"));
}

#[test]
fn a_file_that_is_no_store_is_left_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.root()).unwrap();
    fs::write(sandbox.root().join("outcrop.db"), "mine").unwrap();
    fs::create_dir(sandbox.root().join("locks")).unwrap();
    assert_eq!(Db::open(&sandbox.root()).err().unwrap().kind(), Kind::Corrupt);
    assert_eq!(fs::read(sandbox.root().join("outcrop.db")).unwrap(), b"mine");
}

#[test]
fn people_can_query_the_views() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, snapshot) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let base = add_image(&db, "base", None, &[one]);
    let top = add_image(&db, "top", Some(base), &[two]);
    tag(&db, "docker.io/library/x:latest", top);
    db.write(|writer| {
        writer.insert_cache_record(&NewCacheRecord {
            kind: KeyKind::Chain,
            key: CacheKey(digest_of("key")),
            key_text: r#"{"instruction":"COPY two /"}"#.into(),
            step: CacheKey(Digest::of(b"step")),
            reads: None,
            instruction: "COPY two /".into(),
            layer: Some(two),
            created: "2024-01-01T00:00:00Z".into(),
            image: Some(top),
            build: None,
            made_at: None,
        })
    })
    .unwrap();
    let index = sandbox.root().join("outcrop.db");

    let images = sqlite3(
        &index,
        "select id, parent, tags, instruction, layers, size, durable from imagedb order by layers",
    );
    assert_eq!(
        images,
        format!("{base}|||RUN make base|1|3|1\n{top}|{base}|docker.io/library/x:latest|RUN make top|2|6|1")
    );

    let layers = sqlite3(
        &index,
        "select chain_id, ifnull(parent, 'none'), diff_id, content_id, depth, size, files, driver, snapshot, instruction from layerdb where depth = 1",
    );
    let (diff_id, content_id) = (digest_of("one"), content_of("one"));
    assert_eq!(layers, format!("{diff_id}|none|{diff_id}|{content_id}|1|3|1|vfs|{snapshot}|COPY one /"));

    let stack =
        sqlite3(&index, &format!("select n, diff_id from image_layer where image = '{top}' order by n"));
    assert_eq!(stack, format!("1|{}\n2|{}", digest_of("one"), digest_of("two")));

    let cache =
        sqlite3(&index, "select kind, key, key_text ->> 'instruction', layer, image, uses from layer_cache");
    assert_eq!(cache, format!("chain|{}|COPY two /|{two}|{top}|0", digest_of("key").hex()));

    let files = sqlite3(
        &sandbox.root().join("files.db"),
        "select path, type, mode, size, digest, mtime, opaque from files where layer = 1",
    );
    assert_eq!(files, format!("one|file|0644|3|{}|2023-11-14T22:13:20.000000000Z|0", digest_of("one")));
}

#[test]
fn rows_come_back_as_they_were() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let xattrs = BTreeMap::from([
        (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
        (b"user.empty".to_vec(), Vec::new()),
    ]);
    let mut rows = vec![
        Row { mode: 0o1777, opaque: true, ..row_of("", layer::Kind::Dir) },
        Row { implied: true, ..row_of("a", layer::Kind::Dir) },
        Row { xattrs, uid: 3_000_000, gid: u32::MAX, ..file("a/b", b"content") },
        Row { mtime: -1, link: Some(7), size: 1 << 40, ..file("a/c", b"") },
        Row { rdev: (259, 1_048_575), ..row_of("a/d", layer::Kind::Block) },
        Row { target: b"../\xff".to_vec(), ..row_of("a/e", layer::Kind::Symlink) },
        row_of("a/f", layer::Kind::Fifo),
        row_of("a/g", layer::Kind::Whiteout),
        Row { path: b"not \xff\xfe utf-8".to_vec(), ..file("", b"") },
        Row { rdev: (5, 1), ..row_of("z", layer::Kind::Char) },
    ];
    let mut shuffled = rows.clone();
    shuffled.reverse();
    let slot = write_rows(&db, &lease, shuffled);
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(db.rows(slot.number()).collect::<Result<Vec<Row>>>().unwrap(), rows);
    for row in &rows {
        assert_eq!(db.row(slot.number(), &row.path).unwrap().as_ref(), Some(row));
    }
    assert_eq!(db.row(slot.number(), b"a/").unwrap(), None);
}

#[test]
fn of_rows_with_one_path_the_last_counts_and_what_is_forgotten_is_gone() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    // Within what is written at once, and across it.
    for many in [0, 12_000] {
        let slot = db.reserve_layer(&lease).unwrap();
        let mut writer = slot.rows().unwrap();
        for path in ["a", "a/b", "a/b/c", "a-b", "a0", "b"] {
            writer.row(file(path, b"first")).unwrap();
        }
        for n in 0..many {
            writer.row(file(&format!("z/{n}"), b"")).unwrap();
        }
        writer.forget(b"a").unwrap();
        writer.forget(b"z").unwrap();
        writer.row(file("a", b"second")).unwrap();
        writer.row(file("b", b"second")).unwrap();
        assert_eq!(writer.finish().unwrap(), 4);
        let rows: Vec<Row> = db.rows(slot.number()).map(|row| row.unwrap()).collect();
        assert_eq!(
            rows,
            [file("a", b"second"), file("a-b", b"first"), file("a0", b"first"), file("b", b"second")]
        );
    }
}

#[test]
fn many_rows_are_read_in_order_page_by_page() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let slot =
        write_rows(&db, &lease, (0..23_456).map(|n| file(&format!("{}", n * 7 % 23_456), b"")).collect());
    let paths: Vec<Vec<u8>> = db.rows(slot.number()).map(|row| row.unwrap().path).collect();
    assert_eq!(paths.len(), 23_456);
    assert!(paths.is_sorted());
}

#[test]
fn a_stack_shows_what_a_union_would() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let dir = |path: &str| row_of(path, layer::Kind::Dir);
    let below = write_rows(
        &db,
        &lease,
        vec![
            dir("etc"),
            file("etc/x", b"1"),
            file("etc/y", b"1"),
            dir("var"),
            file("var/a", b"1"),
            dir("opt"),
            file("opt/a", b"1"),
        ],
    );
    let middle = write_rows(
        &db,
        &lease,
        vec![
            row_of("etc/x", layer::Kind::Whiteout),
            Row { opaque: true, ..dir("var") },
            file("var/b", b"2"),
            file("opt", b"2"),
        ],
    );
    let top = write_rows(
        &db,
        &lease,
        vec![
            Row { implied: true, mode: 0o700, ..dir("etc") },
            file("etc/z", b"3"),
            Row { implied: true, ..dir("new") },
        ],
    );
    let stack = [top.number(), middle.number(), below.number()];
    let found = |path: &str| {
        db.row_in_stack(&stack, path.as_bytes()).unwrap().map(|found| (found.layer, found.row.mode))
    };
    assert_eq!(found("etc/x"), None);
    assert_eq!(found("etc/y"), Some((below.number(), 0o644)));
    assert_eq!(found("etc/z"), Some((top.number(), 0o644)));
    // What a layer only implies, the one below describes.
    assert_eq!(found("etc"), Some((below.number(), 0o755)));
    assert_eq!(found("new"), Some((top.number(), 0o755)));
    assert_eq!(found("var/a"), None);
    assert_eq!(found("var/b"), Some((middle.number(), 0o644)));
    assert_eq!(found("opt"), Some((middle.number(), 0o644)));
    assert_eq!(found("opt/a"), None);
    assert_eq!(found("nowhere"), None);
}

#[test]
fn what_a_killed_process_had_under_way_is_swept() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let mut child = child(&sandbox.root(), "write rows for ever");
    wait_until_ready(&mut child);
    assert!(!db.sweep(&no_tree).unwrap().complete);
    assert_eq!(db.numbers_with_rows().unwrap(), [LayerNumber(1)]);
    assert_eq!(locks(&db).len(), 1);
    kill(child);

    assert_clean(&db);
    assert_eq!(db.numbers_with_rows().unwrap(), []);
    assert_eq!(locks(&db), [""; 0]);
    assert_eq!(fs::read_dir(sandbox.root().join("layers")).unwrap().count(), 0);
    assert_eq!(db.read(|reader| reader.builds(9)).unwrap()[0].status, BuildStatus::Killed);
    // The number does not come back.
    assert_eq!(db.reserve_layer(&db.lease().unwrap()).unwrap().number(), LayerNumber(2));
}

#[test]
fn a_layer_given_up_leaves_nothing() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    drop(write_rows(&db, &lease, vec![file("a", b"")]));
    assert_eq!(db.numbers_with_rows().unwrap(), []);
    assert_clean(&db);
}

#[test]
fn a_layer_made_twice_is_stored_once() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let first = add_layer(&db, &lease, "one");
    assert_eq!(add_layer(&db, &lease, "one"), first);
    assert_clean(&db);
}

#[test]
fn a_layer_that_leans_is_known_on_its_base_alone() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let (on_one, on_two) =
        db.write(|writer| Ok((writer.add_chain(None, one)?, writer.add_chain(None, two)?))).unwrap();
    let diff_id = DiffId(digest_of("leaning"));
    let slot = write_rows(&db, &lease, vec![file("a", b"")]);
    db.write(|writer| {
        writer.publish_layer(&NewLayer {
            number: slot.number(),
            diff_id,
            base: Some(on_one),
            leans: true,
            content_id: ContentId(digest_of("content")),
            size: 0,
            tar_size: 1024,
            row_count: 1,
            made_by: None,
            build: None,
        })
    })
    .unwrap();
    let known_on = |base: Option<ChainId>| {
        db.read(|reader| reader.find_layer(&diff_id, base.as_ref())).unwrap().map(|layer| layer.number)
    };
    assert_eq!(known_on(Some(on_one)), Some(slot.number()));
    assert_eq!(known_on(Some(on_two)), None);
    assert_eq!(known_on(None), None);
    let plain = DiffId(digest_of("one"));
    assert_eq!(db.read(|reader| reader.find_layer(&plain, Some(&on_two))).unwrap().unwrap().number, one);
}

#[test]
fn what_a_process_saw_stays_while_its_epoch_lasts() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (layer, snapshot) = add_layer(&db, &lease, "one");
    let image = add_image(&db, "image", None, &[layer]);
    let mut reader = child(&sandbox.root(), "stay");
    wait_until_ready(&mut reader);

    db.durable(|durable| durable.condemn_images(&[image])).unwrap();
    assert_eq!(db.read(|reader| reader.images()).unwrap(), []);
    let removed = std::cell::RefCell::new(Vec::new());
    let remove = |row: &SnapshotRow| {
        removed.borrow_mut().push(row.id);
        Ok(())
    };
    let swept = db.sweep(&remove).unwrap();
    assert!(!swept.complete);
    assert_eq!(*removed.borrow(), []);
    assert_eq!(db.read(|reader| reader.image(&image)).unwrap().unwrap().id, image);
    assert_eq!(db.row_count(layer).unwrap(), 1);

    // One that comes later holds nothing of it.
    let mut later = child(&sandbox.root(), "stay");
    wait_until_ready(&mut later);
    finish(reader);
    assert!(db.sweep(&remove).unwrap().complete);
    assert_eq!(*removed.borrow(), [snapshot]);
    assert_eq!(db.read(|reader| reader.image(&image)).unwrap(), None);
    assert_eq!(db.numbers_with_rows().unwrap(), []);
    finish(later);
    assert_clean(&db);
}

#[test]
fn a_guard_keeps_what_it_saw_within_one_process() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let (layer, _) = add_layer(&db, &db.lease().unwrap(), "one");
    let guard = db.enter().unwrap();
    db.durable(|durable| durable.condemn_unreferenced()).unwrap();
    assert!(!db.sweep(&no_tree).unwrap().complete);
    assert!(db.read(|reader| reader.layer(layer)).unwrap().is_some());
    drop(guard);
    assert!(db.sweep(&no_tree).unwrap().complete);
    assert!(db.read(|reader| reader.layer(layer)).unwrap().is_none());
}

/// Its row stands before its name.
#[test]
fn a_blob_that_gets_its_name_after_the_disk_was_written_is_not_durable() {
    let sandbox = Sandbox::new();
    let (db, other) = (store(&sandbox), store(&sandbox));
    let staged = Blobs::open(&other).stage(b"late").unwrap();
    Blobs::open(&db).put(b"early", None).unwrap();
    let sync = |_: &Pending| other.write(|writer| staged.publish(writer, None)).map(drop);
    db.barrier(sync, |_| Ok(())).unwrap();
    let durable = |text: &str| db.read(|reader| reader.blob(&digest_of(text))).unwrap().unwrap().durable;
    assert_eq!((durable("early"), durable("late")), (true, false));
}

#[test]
fn what_is_condemned_comes_back_when_something_refers_to_it() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let base = add_image(&db, "base", None, &[one]);
    let top = add_image(&db, "top", Some(base), &[two]);
    db.barrier(|_| Ok(()), |_| Ok(())).unwrap();
    // Another process prunes while we are about to name the image.
    let guard = db.enter().unwrap();
    let gone = db.durable(|durable| durable.condemn_dangling()).unwrap();
    assert_eq!(gone.images, [top, base]);
    assert!(!db.sweep(&no_tree).unwrap().complete);
    tag(&db, "docker.io/library/x:latest", top);
    drop(guard);
    assert!(db.sweep(&no_tree).unwrap().complete);
    assert_eq!(db.read(|reader| reader.images()).unwrap().len(), 2);
    assert_eq!(db.row_count(one).unwrap() + db.row_count(two).unwrap(), 2);
    Blobs::open(&db).verify(&base.0).unwrap();
    assert_clean(&db);
}

#[test]
fn what_if_tells_what_a_removal_frees_and_removes_nothing() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (shared, _) = add_layer(&db, &lease, "shared");
    let (own, _) = add_layer(&db, &lease, "own");
    let base = add_image(&db, "base", None, &[shared]);
    let top = add_image(&db, "top", Some(base), &[own]);
    tag(&db, "docker.io/library/base:latest", base);
    assert_eq!(db.read(|reader| reader.unique_bytes(&top)).unwrap(), 9);
    let gone = db.what_if(|writer| writer.condemn_images(&[top])).unwrap();
    assert_eq!((gone.images, gone.layers), (vec![top], vec![(own, 3)]));
    assert_eq!(db.read(|reader| reader.images()).unwrap().len(), 2);
    let usage = db.read(|reader| reader.usage()).unwrap();
    assert_eq!((usage.images, usage.image_bytes, usage.blobs, usage.blob_bytes), (2, 9, 2, 7));
}

#[test]
fn a_cache_record_keeps_its_layer_and_the_newest_is_found() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let key = CacheKey(digest_of("key"));
    let record = |layer| NewCacheRecord {
        kind: KeyKind::Content,
        key,
        key_text: "{}".into(),
        step: CacheKey(Digest::of(b"step")),
        reads: None,
        instruction: "COPY . /".into(),
        layer: Some(layer),
        created: "2024-01-01T00:00:00Z".into(),
        image: None,
        build: None,
        made_at: None,
    };
    let (_, newest) = db
        .write(|writer| {
            Ok((writer.insert_cache_record(&record(one))?, writer.insert_cache_record(&record(two))?))
        })
        .unwrap();
    assert!(db.durable(|durable| durable.condemn_unreferenced()).unwrap().is_empty());
    let found = || db.read(|reader| reader.cached(KeyKind::Content, &key)).unwrap();
    assert_eq!(found().unwrap().layer, Some(two));
    assert_eq!(db.read(|reader| reader.cached(KeyKind::Chain, &key)).unwrap(), None);
    db.write(|writer| writer.cache_record_used(newest)).unwrap();
    assert_eq!(found().unwrap().uses, 1);

    db.write(|writer| writer.remove_cache_record(newest)).unwrap();
    assert_eq!(found().unwrap().layer, Some(one));
    let gone = db.durable(|durable| durable.condemn_cache(Time::now())).unwrap();
    assert_eq!(gone.layers, [(one, 3), (two, 3)]);
    assert_eq!(found(), None);
    drop(lease);
    assert_clean(&db);
}

#[test]
fn the_barrier_syncs_what_is_pending_and_only_then_gives_the_name() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (layer, snapshot) = add_layer(&db, &lease, "one");
    let image = add_image(&db, "image", None, &[layer]);
    let name = "docker.io/library/x:latest";
    let all =
        Pending { layers: vec![layer], snapshots: vec![snapshot], images: vec![image], blobs: vec![image.0] };

    let too_early = db.durable(|durable| durable.move_tag(name, &image, None, "tag", None)).unwrap_err();
    assert_eq!(too_early.kind(), Kind::Internal);

    let failed = db.barrier(
        |pending| {
            assert_eq!(*pending, all);
            Err(Error::unavailable("the disk is full"))
        },
        |durable| durable.move_tag(name, &image, None, "tag", None),
    );
    assert_eq!(failed.unwrap_err().message(), "the disk is full");
    assert_eq!(db.read(|reader| reader.pending()).unwrap(), all);
    assert_eq!(db.read(|reader| reader.tag(name)).unwrap(), None);

    // Another process's barrier takes ours along.
    Db::open(&sandbox.root())
        .unwrap()
        .barrier(
            |pending| {
                assert_eq!(*pending, all);
                Ok(())
            },
            |_| Ok(()),
        )
        .unwrap();
    assert!(db.read(|reader| reader.pending()).unwrap().is_empty());
    let moved = db.barrier(
        |_| panic!("nothing is pending"),
        |durable| durable.move_tag(name, &image, None, "tag", None),
    );
    assert!(moved.unwrap());
    assert!(db.read(|reader| reader.layer(layer)).unwrap().unwrap().durable);
}

#[test]
fn what_was_not_durable_when_the_machine_went_down_is_not_used() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (kept, _) = add_layer(&db, &lease, "kept");
    let base = add_image(&db, "base", None, &[kept]);
    tag(&db, "docker.io/library/x:latest", base);
    let (lost, _) = add_layer(&db, &lease, "lost");
    let image = add_image(&db, "image", Some(base), &[lost]);
    let key = CacheKey(digest_of("key"));
    db.write(|writer| {
        writer.insert_cache_record(&NewCacheRecord {
            kind: KeyKind::Chain,
            key,
            key_text: "{}".into(),
            step: CacheKey(Digest::of(b"step")),
            reads: None,
            instruction: "RUN lost".into(),
            layer: Some(lost),
            created: "2024-01-01T00:00:00Z".into(),
            image: Some(image),
            build: None,
            made_at: None,
        })
    })
    .unwrap();
    drop((lease, db));
    reboot(&sandbox.root());

    let db = store(&sandbox);
    assert!(db.read(|reader| reader.trees_may_be_lost()).unwrap());
    assert_eq!(db.read(|reader| reader.cached(KeyKind::Chain, &key)).unwrap(), None);
    assert_eq!(db.read(|reader| reader.find_layer(&DiffId(digest_of("lost")), None)).unwrap(), None);
    assert_eq!(db.read(|reader| reader.images()).unwrap().len(), 1);
    assert_clean(&db);
    assert_eq!(db.read(|reader| reader.layer(lost)).unwrap(), None);
    assert_eq!(db.row_count(kept).unwrap(), 1);
    // Numbers go on far beyond those that rows lost in the crash may have had.
    assert_eq!(db.reserve_layer(&db.lease().unwrap()).unwrap().number(), LayerNumber(1024));
    // Once for each boot.
    db.write(|writer| writer.trees_checked()).unwrap();
    drop(db);
    assert!(!store(&sandbox).read(|reader| reader.trees_may_be_lost()).unwrap());
}

#[test]
fn a_container_on_a_layer_lost_in_a_crash_is_kept_and_the_layer_can_be_made_anew() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (lost, _) = add_layer(&db, &lease, "lost");
    let image = add_image(&db, "image", None, &[lost]);
    let id = add_container(&db, &lease, "c", image, false);
    drop((lease, db));
    reboot(&sandbox.root());

    let db = store(&sandbox);
    assert_clean_but_for_drafts(&db);
    assert!(db.read(|reader| reader.container(&id)).unwrap().is_some());
    assert_eq!(db.read(|reader| reader.suspects()).unwrap().layers, [lost]);
    assert_eq!(db.read(|reader| reader.find_layer(&DiffId(digest_of("lost")), None)).unwrap(), None);
    let (anew, _) = add_layer(&db, &db.lease().unwrap(), "lost");
    assert_ne!(anew, lost);
    let chain = ChainId::of(&[DiffId(digest_of("lost"))]).unwrap();
    assert_eq!(db.read(|reader| reader.find_chain(&chain)).unwrap().unwrap().layer, anew);
    assert_eq!(db.row_count(anew).unwrap(), 1);
    assert_clean_but_for_drafts(&db);
    assert_eq!(db.read(|reader| reader.layer(lost)).unwrap(), None);
}

/// The draft's process died with the machine: what it stood on is kept by nothing.
#[test]
fn a_tree_that_was_not_durable_is_no_damage_after_a_crash_even_below_a_draft() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (_, tree) = add_layer(&db, &lease, "lost");
    db.write(|writer| writer.snapshot_made(writer.new_snapshot("vfs", &[tree], &lease)?)).unwrap();
    drop((lease, db));
    reboot(&sandbox.root());

    let db = store(&sandbox);
    assert_eq!(db.check_index().unwrap(), []);
    assert_clean(&db);
    assert_eq!(db.read(|reader| reader.snapshots()).unwrap(), []);
}

/// Unpacked later than it was made durable.
#[test]
fn a_tree_that_was_not_durable_goes_in_a_crash_and_its_layer_stays() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (layer, tree) = add_layer(&db, &lease, "layer");
    let image = add_image(&db, "image", None, &[layer]);
    tag(&db, "it", image);
    db.write(|writer| {
        writer.remove_snapshot(tree)?;
        let again = writer.new_snapshot("vfs", &[], &lease)?;
        writer.snapshot_made(again)?;
        writer.seal_snapshot(again, Keyed::Layer(layer)).map(drop)
    })
    .unwrap();
    drop((lease, db));
    reboot(&sandbox.root());

    let db = store(&sandbox);
    assert_eq!(db.check_index().unwrap(), []);
    assert_clean(&db);
    assert_eq!(db.read(|reader| reader.snapshots()).unwrap(), []);
    assert!(db.read(|reader| reader.layer(layer)).unwrap().is_some());
}

fn assert_clean_but_for_drafts(db: &Db) {
    let swept: Swept = db.sweep(&no_tree).unwrap();
    assert!(swept.complete && swept.failed.is_empty(), "{swept:?}");
}

fn add_container(db: &Db, lease: &Lease, name: &str, image: ImageId, auto_remove: bool) -> ContainerId {
    let id = ContainerId::random();
    fs::create_dir(db.root().join("containers").join(id.as_str())).unwrap();
    db.write(|writer| {
        let snapshot = writer.new_snapshot("vfs", &[], lease)?;
        writer.snapshot_made(snapshot)?;
        writer.insert_container(&NewContainer {
            id: id.clone(),
            name: name.into(),
            image,
            snapshot,
            auto_remove,
            config: "{}".into(),
        })
    })
    .unwrap();
    id
}

#[test]
fn containers_whose_supervisor_died_have_ended() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let work = db.lease().unwrap();
    let image = add_image(&db, "image", None, &[]);
    let stays = add_container(&db, &work, "stays", image, false);
    let goes = add_container(&db, &work, "goes", image, true);
    drop(work);
    let supervisor = db.lease().unwrap();
    for id in [&stays, &goes] {
        db.write(|writer| writer.container_started(id, &supervisor)).unwrap();
    }
    db.sweep(&no_tree).unwrap();
    assert_eq!(db.read(|reader| reader.containers()).unwrap().len(), 2);
    assert_eq!(db.write(|writer| writer.remove_container(&stays)).unwrap_err().kind(), Kind::Conflict);

    drop(supervisor);
    db.sweep(&no_tree).unwrap();
    let left = db.read(|reader| reader.containers()).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].id.clone(), left[0].state, left[0].exit_code),
        (stays.clone(), ContainerState::Exited, Some(137))
    );
    assert!(!sandbox.root().join("containers").join(goes.as_str()).exists());
    assert!(sandbox.root().join("containers").join(stays.as_str()).exists());

    assert_eq!(db.write(|writer| writer.condemn_images(&[image])).unwrap_err().kind(), Kind::Conflict);
    db.durable(|durable| durable.remove_container(&stays)).unwrap();
    let swept = db.sweep(&no_tree).unwrap();
    assert_eq!((swept.containers, swept.snapshots), (1, 1));
    assert_clean(&db);
    assert_eq!(fs::read_dir(sandbox.root().join("containers")).unwrap().count(), 0);
}

#[test]
fn names_of_containers_are_taken_once() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let image = add_image(&db, "image", None, &[]);
    let id = add_container(&db, &lease, "web", image, false);
    let error = db
        .write(|writer| {
            let snapshot = writer.new_snapshot("vfs", &[], &lease)?;
            let (id, name) = (ContainerId::random(), "web".into());
            writer.insert_container(&NewContainer {
                id,
                name,
                image,
                snapshot,
                auto_remove: false,
                config: "{}".into(),
            })
        })
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let taken = format!("Conflict. The container name \"/web\" is already in use by container \"{id}\".");
    assert!(error.message().starts_with(&taken), "{}", error.message());
    let prefixed = db.read(|reader| reader.containers_by_prefix(&id.as_str()[..10])).unwrap();
    assert_eq!(prefixed[0].id, id);
    assert_eq!(db.read(|reader| reader.containers_by_prefix("nonsense")).unwrap(), []);
    assert_eq!(db.read(|reader| reader.images_by_prefix(&image.hex()[..7])).unwrap()[0].id, image);
}

#[test]
fn a_lease_handed_to_a_child_lives_as_long_as_the_child() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let mut lease = db.try_lease("container-x").unwrap().unwrap();
    // `cat` holds the descriptor as its standard input, a copy of which is the same lock.
    let input = lease.lend().try_clone_to_owned().unwrap();
    let mut holder = Command::new("sh")
        .args(["-c", "echo ready; exec sleep 1000"])
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    drop(lease);
    assert!(!db.lease_is_free("container-x").unwrap());
    assert!(db.try_lease("container-x").unwrap().is_none());
    kill(holder);
    assert!(db.lease_is_free("container-x").unwrap());
    assert_clean(&db);
    assert_eq!(locks(&db), [""; 0]);
}

#[test]
fn every_move_of_a_tag_is_a_line_and_moves_cut_off_did_not_happen() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let (one, two) = (add_image(&db, "one", None, &[]), add_image(&db, "two", None, &[]));
    let name = "docker.io/library/x:latest";
    tag(&db, name, one);
    tag(&db, name, two);
    tag(&db, name, two);
    let log = sandbox.root().join("tags.log");
    let lines = || fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines().len(), 2);
    assert!(
        lines()[1].starts_with(r#"{"seq":2,"at":"#) && lines()[1].contains(&two.to_string()),
        "{}",
        lines()[1]
    );

    // Cut off after the line was written, before the transaction was; and within a line.
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    writeln!(file, "{}", lines()[1].replace(r#""seq":2"#, r#""seq":3"#)).unwrap();
    write!(file, r#"{{"seq":4,"at":"2024-"#).unwrap();
    drop(file);
    db.durable(|durable| durable.remove_tag(name, "rmi", None)).unwrap();
    tag(&db, name, one);
    assert_eq!(lines().len(), 7);
    assert!(db.tags_log_agrees().unwrap());
    let moves = db.read(|reader| reader.tag_log(Some(name))).unwrap();
    assert_eq!(
        moves.iter().map(|entry| (entry.seq, entry.to)).collect::<Vec<_>>(),
        [(1, Some(one)), (2, Some(two)), (3, None), (4, Some(one))]
    );

    // Cut by a stranger: the table says what was in it.
    fs::write(&log, "").unwrap();
    assert!(!db.tags_log_agrees().unwrap());
    tag(&db, name, two);
    assert!(db.tags_log_agrees().unwrap());
}

#[test]
fn a_move_that_fails_leaves_no_line() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let image = add_image(&db, "one", None, &[]);
    db.barrier(|_| Ok(()), |_| Ok(())).unwrap();
    let failed = db.durable(|durable| {
        durable.move_tag("docker.io/library/x:latest", &image, None, "tag", None)?;
        Err::<(), _>(Error::cancelled())
    });
    assert_eq!(failed.unwrap_err().kind(), Kind::Cancelled);
    assert!(!sandbox.root().join("tags.log").exists());
    assert_eq!(db.read(|reader| reader.tags()).unwrap(), []);
}

#[test]
fn a_transaction_within_a_transaction_is_an_error_and_no_deadlock() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let error = db.write(|_| db.read(|reader| reader.tags())).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert_eq!(db.read(|reader| reader.tags()).unwrap(), []);
}

#[test]
fn many_processes_publish_the_same_layers_at_once() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let children: Vec<Child> = (0..4).map(|_| child(&sandbox.root(), "layers")).collect();
    children.into_iter().for_each(finish);
    assert_eq!(db.read(|reader| reader.layers()).unwrap().len(), 20);
    assert_eq!(db.read(|reader| reader.tags()).unwrap().len(), 20);
    assert!(db.tags_log_agrees().unwrap());
    assert_clean(&db);
}

#[test]
fn processes_that_make_and_remove_the_same_things_at_once_never_miss_any() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let children: Vec<Child> = (0..4).map(|_| child(&sandbox.root(), "layers and removal")).collect();
    children.into_iter().for_each(finish);
    db.durable(|durable| durable.condemn_dangling()).unwrap();
    assert_clean(&db);
    assert_eq!(fs::read_dir(sandbox.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn processes_killed_at_any_moment_leave_nothing() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let mut children = Vec::new();
    for n in 0..24 {
        let mut child = child(&sandbox.root(), "layers and removal for ever");
        wait_until_ready(&mut child);
        children.push(child);
        if children.len() == 4 {
            // Some moments, the same ones on each run.
            thread::sleep(std::time::Duration::from_micros(n * n * 7919 % 20_000));
            kill(children.remove(0));
        }
    }
    children.into_iter().for_each(kill);
    db.durable(|durable| {
        for tag in durable.tags()? {
            durable.remove_tag(&tag.name, "rmi", None)?;
        }
        durable.condemn_dangling()
    })
    .unwrap();
    assert_clean(&db);
    assert_eq!(db.read(|reader| Ok((reader.images()?.len(), reader.snapshots()?.len()))).unwrap(), (0, 0));
    for dir in ["blobs/sha256", "layers"] {
        assert_eq!(fs::read_dir(sandbox.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
    assert_eq!(locks(&db), [""; 0]);
}

#[test]
fn blobs_are_verified_when_written_and_when_read() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let blobs = Blobs::open(&db);
    let digest = blobs.put(b"content", Some("text/plain")).unwrap();
    assert_eq!(digest, Digest::of(b"content"));
    assert_eq!(blobs.read_all(&digest, 100).unwrap(), b"content");
    assert_eq!(blobs.read_all(&digest, 3).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(blobs.size(&digest).unwrap(), Some(7));

    let mut writer = blobs.writer(Some(digest), None).unwrap();
    writer.write_all(b"other").unwrap();
    assert_eq!(writer.commit(None).unwrap_err().kind(), Kind::Corrupt);
    let mut short = blobs.writer(None, Some(9)).unwrap();
    short.write_all(b"other").unwrap();
    assert_eq!(short.commit(None).unwrap_err().kind(), Kind::Corrupt);
    let mut long = blobs.writer(None, Some(3)).unwrap();
    assert!(long.write_all(b"other").is_err());
    drop(long);

    fs::write(blobs.path(&digest), "CONTENT").unwrap();
    let error = blobs.read_all(&digest, 100).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    fs::remove_file(blobs.path(&digest)).unwrap();
    assert_eq!(blobs.verify(&digest).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(blobs.read(&Digest::of(b"")).err().unwrap().kind(), Kind::NotFound);
    assert_clean(&db);
}

#[test]
fn a_blob_that_is_staged_and_not_published_leaves_nothing() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let blobs = Blobs::open(&db);
    let staged = blobs.stage(b"content").unwrap();
    let failed = db.write(|writer| {
        staged.publish(writer, None)?;
        Err::<(), _>(Error::cancelled())
    });
    assert_eq!(failed.unwrap_err().kind(), Kind::Cancelled);
    assert!(!blobs.contains(&staged.digest()).unwrap());
    drop(staged);
    assert_clean(&db);
    assert!(blobs.strangers().unwrap().is_empty());
    assert_eq!(fs::read_dir(sandbox.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_sweep_leaves_the_name_of_a_blob_to_whoever_is_about_to_give_it() {
    let sandbox = Sandbox::new();
    let (builder, other) = (store(&sandbox), store(&sandbox));
    let staged = Blobs::open(&builder).stage(b"content").unwrap();
    other.sweep(&no_tree).unwrap();
    let table = "blob where removing = 1 and condemned is not null";
    let expected = || sqlite3(&other.root().join("outcrop.db"), &format!("select count(*) from {table}"));
    assert_eq!(expected(), "1", "should the builder die now, the file would have no row");
    builder.write(|writer| staged.publish(writer, None).map(drop)).unwrap();
    assert_eq!(expected(), "0");
    // And of one that died nothing is left.
    drop(Blobs::open(&builder).stage(b"other").unwrap());
    assert_eq!(expected(), "1");
    drop((staged, builder));
    other.sweep(&no_tree).unwrap();
    assert_eq!(expected(), "0");
}

#[test]
fn a_blob_left_by_a_power_cut_is_not_trusted() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let blobs = Blobs::open(&db);
    let digest = Digest::of(b"content");
    // The name is on disk, the bytes are not, and the row is lost.
    fs::write(blobs.path(&digest), "").unwrap();
    assert_eq!(blobs.strangers().unwrap(), [blobs.path(&digest)]);
    assert!(!blobs.contains(&digest).unwrap());
    blobs.put(b"content", None).unwrap();
    assert_eq!(blobs.read_all(&digest, 100).unwrap(), b"content");
    // And where the row is not lost.
    drop((blobs, db));
    reboot(&sandbox.root());
    fs::write(sandbox.root().join("blobs/sha256").join(digest.hex()), "").unwrap();
    let db = store(&sandbox);
    let blobs = Blobs::open(&db);
    assert!(!blobs.contains(&digest).unwrap());
    blobs.put(b"content", None).unwrap();
    assert_eq!(blobs.read_all(&digest, 100).unwrap(), b"content");
}

#[test]
fn the_compressed_form_of_a_layer_stays_with_the_layer() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (layer, _) = add_layer(&db, &lease, "one");
    let image = add_image(&db, "image", None, &[layer]);
    let blobs = Blobs::open(&db);
    let manifest = blobs.put(b"manifest", None).unwrap();
    let index = blobs.put(b"index", None).unwrap();
    let packed = blobs.put(b"packed", None).unwrap();
    db.write(|writer| {
        writer.link_blob(&index, &manifest)?;
        writer.add_repo_digest("docker.io/library/x", &index, &image)?;
        writer.blob_seen(&packed, "docker.io", "library/x")?;
        writer.insert_blob_layer(&outcrop::db::BlobLayer {
            blob: packed,
            diff_id: DiffId(digest_of("one")),
            compression: "gzip".into(),
            size: 6,
        })
    })
    .unwrap();
    assert!(db.durable(|durable| durable.condemn_unreferenced()).unwrap().is_empty());
    assert_eq!(db.read(|reader| reader.blob_seen_in(&packed, "docker.io")).unwrap(), ["library/x"]);
    assert_eq!(db.read(|reader| reader.images_of_digest("docker.io/library/x", &index)).unwrap(), [image]);
    let gone = db.durable(|durable| durable.condemn_images(&[image])).unwrap();
    assert_eq!(gone.blobs.len(), 4);
    drop(lease);
    assert_clean(&db);
    assert_eq!(db.read(|reader| reader.layer_of_blob(&packed)).unwrap(), None);
    assert_eq!(db.read(|reader| reader.blob_seen_in(&packed, "docker.io")).unwrap(), [""; 0]);
}

#[test]
fn the_reserve_is_given_up_and_made_again() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    db.give_up_reserve().unwrap();
    db.give_up_reserve().unwrap();
    assert!(!sandbox.root().join("reserve").exists());
    db.restore_reserve().unwrap();
    db.restore_reserve().unwrap();
    assert_eq!(fs::metadata(sandbox.root().join("reserve")).unwrap().len(), 8 << 20);
}

/// What the check says once this was done to the databases behind its back.
fn faults_after(index: &str, files: &str) -> Vec<String> {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let base = add_image(&db, "base", None, &[one]);
    let top = add_image(&db, "top", Some(base), &[two]);
    tag(&db, "docker.io/library/x:latest", top);
    drop(lease);
    assert_clean(&db);
    sqlite3(&sandbox.root().join("outcrop.db"), index);
    sqlite3(&sandbox.root().join("files.db"), files);
    db.check(&Job::silent()).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn the_check_finds_what_is_wrong() {
    let layer = format!("layer 1 ({})", digest_of("one"));
    let chain = ChainId::of(&[DiffId(digest_of("one"))]).unwrap();
    for (index, files, found) in [
        ("", "delete from file where layer = 1", format!("{layer} has 0 rows in place of 1")),
        (
            "",
            "insert into file select 9, path, kind, mode, uid, gid, size, mtime, digest, target, link, rdev_major, rdev_minor, flags, xattrs from file where layer = 1",
            "rows under number 9 belong to no layer".into(),
        ),
        (
            "",
            "update file set xattrs = x'00' where layer = 1",
            format!(
                "{layer} has rows that cannot be read: files.db has a row of layer 1 that cannot be understood"
            ),
        ),
        ("delete from tag_log", "", "tags.log does not tell the same moves as the index".into()),
        (
            "update tag set target = zeroblob(32)",
            "",
            "tag docker.io/library/x:latest is not what its log says".into(),
        ),
        (
            "update chain set size = 7 where depth = 1",
            "",
            format!("stack {chain} has another size or depth than its layers"),
        ),
        (
            "update layer set diff_id = zeroblob(32) where id = 1",
            "",
            format!("stack {chain} is not of the layers it has"),
        ),
        (
            "pragma foreign_keys = off; delete from layer where id = 1",
            "",
            "a row of table chain refers to a layer that is not there".into(),
        ),
        ("delete from blob", "", format!("image {} has no blob for its config", digest_of("top"))),
        ("update sequence set next = 1", "", "sequence layer goes on with numbers that are in use".into()),
        (
            "update layer set pending_boot = 'before' where id = 1",
            "",
            "layer 1 may not have survived a crash".into(),
        ),
        (
            "update chain set condemned = 1 where depth = 1",
            "",
            format!("image {} stands on something that is going", digest_of("base")),
        ),
        ("drop view layerdb", "", "the view layerdb cannot be read: no such table: layerdb".into()),
    ] {
        let faults = faults_after(index, files);
        assert!(faults.contains(&found), "{found}:\n{}", faults.join("\n"));
    }
    let mode = faults_after("", "update file set mode = 0 where layer = 1");
    assert!(mode[0].starts_with(&format!("{layer} has rows with the content id ")), "{mode:?}");
}

#[test]
fn an_index_made_again_has_the_tags_of_the_log() {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, snapshot) = add_layer(&db, &lease, "one");
    let image = add_image(&db, "image", None, &[one]);
    let lost = add_image(&db, "lost", None, &[]);
    tag(&db, "docker.io/library/x:latest", image);
    tag(&db, "docker.io/library/y:latest", lost);
    let uuid = db.read(|reader| reader.uuid()).unwrap();
    drop((lease, db));
    fs::remove_file(root.join("files.db")).unwrap();

    let rebuild = Rebuild::start(&root).unwrap();
    assert_eq!(rebuild.uuid(), uuid);
    let db = rebuild.db();
    let lease = db.lease().unwrap();
    db.write(|writer| writer.number_from(LayerNumber(5), SnapshotId(5))).unwrap();
    let slot = write_rows(db, &lease, vec![file("one", b"one")]);
    let staged = Blobs::open(db).stage(b"image").unwrap();
    db.write(|writer| {
        let published = writer.publish_layer(&NewLayer {
            number: slot.number(),
            diff_id: DiffId(digest_of("one")),
            base: None,
            leans: false,
            content_id: content_of("one"),
            size: 3,
            tar_size: 2048,
            row_count: 1,
            made_by: None,
            build: None,
        })?;
        writer.adopt_snapshot(snapshot, "vfs", Some(Keyed::Layer(published.number)), &[])?;
        let chain = writer.add_chain(None, published.number)?;
        staged.publish(writer, None)?;
        writer.insert_image(&NewImage {
            id: image,
            parent: None,
            chain: Some(chain),
            platform: "linux/amd64".into(),
            created: None,
            created_by: None,
            origin: Origin::Loaded,
            build: None,
        })
    })
    .unwrap();
    let missing = db.barrier(|_| Ok(()), |durable| durable.adopt_tags()).unwrap();
    assert_eq!(missing, ["docker.io/library/y:latest"]);
    drop((slot, staged, lease));
    rebuild.finish().unwrap();

    let db = store(&sandbox);
    assert_eq!(db.read(|reader| reader.uuid()).unwrap(), uuid);
    assert_eq!(db.read(|reader| reader.tag("docker.io/library/x:latest")).unwrap().unwrap().image, image);
    assert_eq!(db.read(|reader| reader.tag_log(None)).unwrap().len(), 3);
    assert_eq!(db.reserve_layer(&db.lease().unwrap()).unwrap().number(), LayerNumber(6));
    assert_clean(&db);
    assert!(root.join("outcrop.db.old").exists());
}

#[test]
fn a_store_that_lost_its_index_is_not_begun_anew() {
    let sandbox = Sandbox::new();
    Blobs::open(&store(&sandbox)).put(b"content", None).unwrap();
    fs::remove_file(sandbox.root().join("outcrop.db")).unwrap();
    let error = Db::open(&sandbox.root()).err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.hint_text(), Some("`outcrop system check --rebuild-index` makes it again"));
}

#[test]
fn rows_of_another_index_are_refused() {
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    drop((store(&sandbox), store(&other)));
    fs::copy(other.root().join("files.db"), sandbox.root().join("files.db")).unwrap();
    let error = store(&sandbox).row_count(LayerNumber(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}
