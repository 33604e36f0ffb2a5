//! The index itself: transactions, the log of tags, its check, and making it again.

use super::*;

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

/// Whoever opens the index first reads all of its log.
#[test]
fn the_log_of_the_index_stays_short_where_nobody_waits_for_the_disk() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let size = || fs::metadata(sandbox.root().join("outcrop.db-wal")).unwrap().len();
    let mut longest = 0;
    for number in 0..60_u8 {
        let option = format!("it={}", char::from(b'a' + number % 26).to_string().repeat(200_000));
        db.write(|writer| writer.set_driver("vfs", &[option])).unwrap();
        longest = longest.max(size());
    }
    assert!((1 << 20..5 << 20).contains(&longest), "{longest}");
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
    db.barrier(nowhere_else, |_| Ok(())).unwrap();
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
    let missing = db.barrier(nowhere_else, |durable| durable.adopt_tags()).unwrap();
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
