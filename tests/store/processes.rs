//! Many processes on one store.

use super::*;

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
