//! The index and the blobs: many processes at once, kills, reboots, and what keeps what.

mod after_crash;
mod blobs;
mod containers;
mod full_disk;
mod index;
mod kept;
mod processes;
mod rows;

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
    SnapshotRow, SnapshotState, Swept, Time,
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

type Elsewhere = Option<fn() -> Result<()>>;

/// All trees are on the filesystem of the store's root.
fn nowhere_else(_pending: &Pending) -> Result<Elsewhere> {
    Ok(None)
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

fn add_blob(db: &Db) -> Result<Digest> {
    Blobs::open(db).put(b"more", None)
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
    db.barrier(nowhere_else, |durable| durable.move_tag(name, &image, None, "tag", None)).unwrap();
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

pub(crate) fn child(root: &Path, task: &str) -> Child {
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
pub(crate) fn wait_until_ready(child: &mut Child) {
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
                db.barrier(nowhere_else, |durable| durable.move_tag(&name, &image, None, "tag", None))
                    .unwrap();
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
        "ask the disk for ever" => db
            .barrier(
                |_| {
                    Ok(Some(|| {
                        ready();
                        Ok(())
                    }))
                },
                |_| Ok(()),
            )
            .unwrap(),
        "write out" => {
            ready();
            db.write_out().unwrap();
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

fn new_build() -> NewBuild {
    NewBuild { context: "/src".into(), dockerfile: "Dockerfile".into(), options: "{}".into() }
}
