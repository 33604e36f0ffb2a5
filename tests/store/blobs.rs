//! Blobs by digest.

use super::*;

/// Its row stands before its name.
#[test]
fn a_blob_that_gets_its_name_after_the_disk_was_written_is_not_durable() {
    let sandbox = Sandbox::new();
    let (db, other) = (store(&sandbox), store(&sandbox));
    let staged = Blobs::open(&other).stage(b"late").unwrap();
    Blobs::open(&db).put(b"early", None).unwrap();
    let late = |pending: &Pending| {
        other.write(|writer| staged.publish(writer, None))?;
        nowhere_else(pending)
    };
    db.barrier(late, |_| Ok(())).unwrap();
    let durable = |text: &str| db.read(|reader| reader.blob(&digest_of(text))).unwrap().unwrap().durable;
    assert_eq!((durable("early"), durable("late")), (true, false));
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
