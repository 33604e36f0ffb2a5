//! What a power cut or a kill leaves, and what is made of it.

use super::containers::add_container;
use super::*;

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

    // Another process's barrier takes ours along.
    Db::open(&sandbox.root())
        .unwrap()
        .barrier(
            |pending| {
                assert_eq!(*pending, all);
                nowhere_else(pending)
            },
            |_| Ok(()),
        )
        .unwrap();
    assert!(db.read(|reader| reader.pending()).unwrap().is_empty());
    let moved = db.barrier(
        |_| -> Result<Elsewhere> { panic!("nothing is pending") },
        |durable| durable.move_tag(name, &image, None, "tag", None),
    );
    assert!(moved.unwrap());
    assert!(db.read(|reader| reader.layer(layer)).unwrap().unwrap().durable);
}

/// A layer and an image that has a name; on them a layer, its tree and an image that are not durable.
fn one_kept_and_one_not(db: &Db, lease: &Lease) -> ([LayerNumber; 2], SnapshotId, [ImageId; 2]) {
    let (kept, _) = add_layer(db, lease, "kept");
    let base = add_image(db, "base", None, &[kept]);
    tag(db, "docker.io/library/x:latest", base);
    let (lost, tree) = add_layer(db, lease, "lost");
    ([kept, lost], tree, [base, add_image(db, "image", Some(base), &[lost])])
}

/// Who comes later is not told of it by the kernel (syncfs(2)), nor whoever was there and asks again.
#[test]
fn what_the_disk_refused_is_used_by_nobody() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let ([kept, _], tree, [base, image]) = one_kept_and_one_not(&db, &lease);
    let beside = Db::open(&sandbox.root()).unwrap();
    let name = "docker.io/library/y:latest";
    let give = |db: &Db, kept: &dyn Fn() -> Result<()>| {
        db.barrier(|_| Ok(Some(kept)), |durable| durable.move_tag(name, &image, None, "tag", None))
    };
    let refused = give(&db, &|| Err(Error::internal("Input/output error"))).unwrap_err();
    assert_eq!(refused.message(), "Input/output error");
    for db in [&db, &beside] {
        assert_eq!(give(db, &|| Ok(())).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(add_blob(db).unwrap_err().kind(), Kind::Unavailable);
    }
    drop((lease, beside, db));

    let db = store(&sandbox);
    assert!(db.read(|reader| reader.pending()).unwrap().is_empty());
    assert_eq!(db.read(|reader| reader.find_layer(&DiffId(digest_of("lost")), None)).unwrap(), None);
    assert_eq!(db.read(|reader| reader.images()).unwrap().len(), 1);
    assert_eq!(db.read(|reader| reader.snapshot(tree)).unwrap().unwrap().state, SnapshotState::Removing);
    assert_clean(&db);
    assert_eq!(db.row_count(kept).unwrap(), 1);
    let (anew, _) = add_layer(&db, &db.lease().unwrap(), "lost");
    let image = add_image(&db, "image", Some(base), &[anew]);
    db.barrier(nowhere_else, |durable| durable.move_tag(name, &image, None, "tag", None)).unwrap();
    assert_clean(&db);
}

/// He may have been told that something was refused, and could tell nobody.
#[test]
fn what_was_pending_when_somebody_died_asking_the_disk_is_used_by_nobody() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (lost, _) = add_layer(&db, &lease, "lost");
    add_image(&db, "image", None, &[lost]);
    let mut child = child(&sandbox.root(), "ask the disk for ever");
    wait_until_ready(&mut child);
    // As long as he lives it is only a matter of waiting.
    assert_eq!(store(&sandbox).read(|reader| reader.images()).unwrap().len(), 1);
    kill(child);
    // Who was there before is told by the kernel, and must not be disturbed.
    assert_eq!(store(&sandbox).read(|reader| reader.images()).unwrap().len(), 1);
    drop((lease, db));
    let db = store(&sandbox);
    assert_eq!(db.read(|reader| reader.images()).unwrap().len(), 0);
    assert_clean(&db);
    let (anew, _) = add_layer(&db, &db.lease().unwrap(), "lost");
    tag(&db, "docker.io/library/x:latest", add_image(&db, "image", None, &[anew]));
    drop(db);
    assert_eq!(store(&sandbox).read(|reader| reader.images()).unwrap().len(), 1);
}

#[test]
fn what_was_not_durable_when_the_machine_went_down_is_not_used() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let ([kept, lost], _, [_, image]) = one_kept_and_one_not(&db, &lease);
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
