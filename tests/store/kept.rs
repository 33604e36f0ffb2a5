//! What keeps what, and what goes when nothing does.

use super::*;

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

#[test]
fn what_is_condemned_comes_back_when_something_refers_to_it() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let base = add_image(&db, "base", None, &[one]);
    let top = add_image(&db, "top", Some(base), &[two]);
    db.barrier(nowhere_else, |_| Ok(())).unwrap();
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
