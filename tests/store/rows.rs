//! Rows of files: written, read back, merged and asked by people.

use super::*;

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
