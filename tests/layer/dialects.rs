//! Archives made by others, in every dialect: read, and made again from the recipe bit for bit.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use outcrop::error;
use outcrop::image::Digest;
use outcrop::job::Job;
use outcrop::layer::{Form, Kind, Row, scan};

use super::kit::{
    Raw, applied, assert_same, both_ways, brief, listing, new_dir, open, python, run, scanned, set_xattr,
};
use super::trees::set_time;
use crate::sandbox::Sandbox;

fn find<'a>(rows: &'a [Row], path: &str) -> &'a Row {
    rows.iter().find(|row| row.path == path.as_bytes()).unwrap_or_else(|| panic!("no row of {path}"))
}

fn plain_tree(dir: &Path, longest: usize) {
    fs::create_dir_all(dir.join("etc/empty")).unwrap();
    fs::write(dir.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::hard_link(dir.join("etc/hosts"), dir.join("etc/names")).unwrap();
    symlink("hosts", dir.join("etc/link")).unwrap();
    fs::write(dir.join("large"), vec![b'l'; 700_000]).unwrap();
    fs::set_permissions(dir.join("large"), fs::Permissions::from_mode(0o4755)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let parts: Vec<String> = (0..longest / 50).map(|n| format!("{n}").repeat(50)).collect();
    fs::create_dir_all(dir.join(parts.join("/"))).unwrap();
    fs::write(dir.join(parts.join("/")).join("end"), "").unwrap();
    if longest >= 100 {
        symlink("t".repeat(longest), dir.join("long-target")).unwrap();
    }
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    for offset in [0, 1 << 20, (1 << 20) + 300_000, (4 << 20) + 1] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data between holes", offset).unwrap();
    }
    for path in ["etc/link", "etc/hosts", "etc/empty", "etc", "large", "sparse"] {
        set_time(&dir.join(path), 1_577_934_245);
    }
}

#[test]
fn every_format_of_gnu_tar_is_read_as_it_was_meant() {
    for (longest, options) in [
        (50, &["--format=v7"][..]),
        (100, &["--format=ustar"]),
        (400, &["--format=oldgnu"]),
        (400, &["--format=gnu"]),
        (400, &["--format=gnu", "--sparse"]),
        (400, &["--format=pax"]),
        (400, &["--format=pax", "--sparse", "--sparse-version=0.0"]),
        (400, &["--format=pax", "--sparse", "--sparse-version=0.1"]),
        (400, &["--format=pax", "--sparse", "--sparse-version=1.0"]),
        (400, &["--format=pax", "--xattrs", "--xattrs-include=*", "--owner=3000000", "--group=9"]),
        (400, &["--format=gnu", "--owner=3000000", "--numeric-owner"]),
        (400, &["--format=pax", "--blocking-factor=64"]),
        (50, &["--format=gnu", "--label=a label"]),
    ] {
        let sandbox = Sandbox::new();
        let tree = new_dir(&sandbox, "tree");
        plain_tree(&tree, longest);
        if options.contains(&"--format=v7") {
            fs::remove_file(tree.join("fifo")).unwrap();
        }
        if options.contains(&"--xattrs") {
            set_xattr(&tree.join("etc/hosts"), "user.lines", b"one\ntwo=2\n\0three");
        }
        let arguments = [options, &["-C", "tree", "-cf", "-", "."]].concat();
        let tar = run("tar", &arguments, sandbox.dir());
        let rows = both_ways(&sandbox, &tar);
        let owner = if options.contains(&"--owner=3000000") { 3_000_000 } else { 0 };
        assert!(rows.iter().all(|row| row.uid == owner), "{options:?}");
        if owner != 0 {
            let group = find(&rows, "etc").gid;
            run("chown", &["-hR", &format!("{owner}:{group}"), "tree"], sandbox.dir());
        }
        if options.contains(&"--owner=3000000") {
            // A change of owner takes set-id bits.
            fs::set_permissions(tree.join("large"), fs::Permissions::from_mode(0o4755)).unwrap();
        }
        assert_same(&listing(&sandbox.dir().join("whole")), &listing(&tree));
    }
}

#[test]
fn every_format_of_python_is_read_as_it_was_meant() {
    for format in ["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"] {
        let sandbox = Sandbox::new();
        let tree = new_dir(&sandbox, "tree");
        plain_tree(&tree, 100);
        fs::write(tree.join(super::kit::name(b"not-utf8-\xff")), "").unwrap();
        let script = format!(
            "tar = tarfile.open(fileobj=out, mode='w', format=tarfile.{format}, errors='surrogateescape')\n\
             tar.add('tree', arcname='')\n\
             tar.close()"
        );
        both_ways(&sandbox, &python(&script, sandbox.dir()));
        assert_same(&listing(&sandbox.dir().join("whole")), &listing(&tree));
    }
}

#[test]
fn a_record_s_size_counts_and_not_the_header_s() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .pax(b'x', &[("size", b"5")])
        .header(b"file", b'0', 0, |_| {})
        .data(b"bytes")
        .file(b"next", b"")
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!(find(&rows, "file").digest, Some(Digest::of(b"bytes")));
    assert_eq!(brief(&rows), ["file File", "next File"]);
}

#[test]
fn directories_and_links_have_no_data_whatever_their_size_says() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .header(b"dir/", b'5', 1024, |_| {})
        .file(b"dir/file", b"x")
        .header(b"dir/link", b'1', 77, |block| block[157..165].copy_from_slice(b"dir/file"))
        .header(b"dir/soft", b'2', 77, |block| block[157..165].copy_from_slice(b"dir/file"))
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!(
        brief(&rows),
        ["dir Dir", "dir/file File =0", "dir/link File =0", "dir/soft Symlink -> dir/file"]
    );
}

#[test]
fn an_archive_may_end_without_saying_so() {
    let sandbox = Sandbox::new();
    let raw = Raw::default().file(b"one", b"1").file(b"two", b"22");
    assert_eq!(both_ways(&sandbox, &raw.0).len(), 2);
    // Without the padding of its last file.
    assert_eq!(both_ways(&sandbox, &raw.0[..raw.0.len() - 510]).len(), 2);
    let one_zero_block = [&raw.0[..], &[0; 512]].concat();
    assert_eq!(both_ways(&sandbox, &one_zero_block).len(), 2);
    assert_eq!(both_ways(&sandbox, b"").len(), 0);
}

#[test]
fn what_follows_the_end_is_part_of_the_digest_and_of_the_recipe() {
    let sandbox = Sandbox::new();
    let mut tar = Raw::default().file(b"one", b"1").end();
    tar.extend_from_slice(&b"junk".repeat(300_000));
    assert_eq!(brief(&both_ways(&sandbox, &tar)), ["one File"]);
}

#[test]
fn a_gnu_long_name_wins_over_a_pax_path() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .pax(b'x', &[("path", b"from-pax"), ("linkpath", b"pax-target")])
        .header(b"././@LongLink", b'L', 9, |_| {})
        .data(b"from-gnu\0")
        .link(b'2', b"from-header", b"target")
        .end();
    assert_eq!(brief(&both_ways(&sandbox, &tar)), ["from-gnu Symlink -> pax-target"]);
}

#[test]
fn an_old_directory_is_known_by_its_slash_alone() {
    let sandbox = Sandbox::new();
    let old = |block: &mut [u8]| block[257..265].fill(0);
    let tar = Raw::default().header(b"dir/", 0, 0, old).header(b"dir/file", 0, 2, old).data(b"ok").end();
    assert_eq!(brief(&both_ways(&sandbox, &tar)), ["dir Dir", "dir/file File"]);
}

#[test]
fn empty_records_and_global_ones_change_nothing() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .pax(b'g', &[("path", b"global"), ("uid", b"7"), ("comment", b"0123")])
        .pax(b'x', &[("path", b""), ("mtime", b"")])
        .file(b"name", b"")
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!(brief(&rows), ["name File"]);
    assert_eq!((rows[0].uid, rows[0].mtime), (0, 0o13_000_000_000 * 1_000_000_000));
}

#[test]
fn attributes_come_in_three_spellings_and_hold_anything() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .pax(
            b'x',
            &[
                ("SCHILY.xattr.user.raw", b"a\nb=c\n\0d"),
                ("LIBARCHIVE.xattr.user.base%3D64", b"AAEC/w"),
                ("LIBARCHIVE.xattr.user.raw", b"Z29uZQ=="),
                ("SCHILY.xattr.user.empty", b""),
                ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0"),
            ],
        )
        .file(b"file", b"")
        .end();
    let xattrs: Vec<(String, Vec<u8>)> = both_ways(&sandbox, &tar)[0]
        .xattrs
        .iter()
        .map(|(name, value)| (name.escape_ascii().to_string(), value.clone()))
        .collect();
    let expected: [(&str, &[u8]); 3] =
        [("user.base=64", &[0, 1, 2, 255]), ("user.empty", b""), ("user.raw", b"a\nb=c\n\0d")];
    assert_eq!(xattrs, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
}

#[test]
fn times_may_be_negative_and_broken_into_nanoseconds() {
    let sandbox = Sandbox::new();
    let tar = Raw::default().pax(b'x', &[("mtime", b"-5.25")]).file(b"file", b"").end();
    assert_eq!(both_ways(&sandbox, &tar)[0].mtime, -5_250_000_000);
    let tar = Raw::default()
        .header(b"base256", b'0', 0, |block| {
            block[136..148].copy_from_slice(&[255; 12]);
            block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x20, 0, 1]);
        })
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!((rows[0].mtime, rows[0].uid), (-1_000_000_000, 2_097_153));
}

#[test]
fn overlay_s_own_names_are_kept_as_what_they_are_to_the_image() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .pax(b'x', &[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir(b"dir/")
        .file(b"dir/file", b"")
        .end();
    let dir = new_dir(&sandbox, "dir");
    let layer = applied(&tar, &dir, Form::Overlay);
    // Escaped on disk, so that no mount takes it for its own mark.
    assert_eq!(
        super::kit::xattrs(&dir.join("dir")).into_keys().collect::<Vec<_>>(),
        ["trusted.overlay.overlay.opaque"]
    );
    assert_eq!(brief(&layer.rows), ["dir Dir", "dir/file File"]);
    let again = super::kit::packed(outcrop::layer::Changes::Upper {
        upper: std::os::fd::AsFd::as_fd(&open(&dir)),
        form: Form::Overlay,
        parent: None,
        settle: false,
    });
    assert_same(&super::kit::shown(&again.rows), &super::kit::shown(&layer.rows));
}

#[test]
fn signed_checksums_and_contiguous_files_are_read() {
    let sandbox = Sandbox::new();
    let mut raw = Raw::default().header(b"\xff\xfe", b'7', 1, |_| {});
    let sum: i64 = raw
        .0
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { i64::from(byte.cast_signed()) })
        .sum();
    raw.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(brief(&both_ways(&sandbox, &raw.data(b"c").end())), ["\\xff\\xfe File"]);
}

#[test]
fn what_comes_later_stands_and_what_it_replaced_is_in_the_recipe() {
    let sandbox = Sandbox::new();
    let large = |byte| vec![byte; 400_000];
    let tar = Raw::default()
        .file(b"twice", b"first")
        .file(b"twice", b"second")
        .file(b"large", &large(b'1'))
        .file(b"large", &large(b'2'))
        .dir(b"d/")
        .file(b"d/inside", b"lost")
        .dir(b"d/e/")
        .file(b"d/e/deep", &large(b'3'))
        .file(b"d", b"a file now")
        .link(b'2', b"s", b"d")
        .dir(b"s/")
        .file(b"s/inside", b"kept")
        .dir(b"s/")
        .file(b"linked", b"by another")
        .link(b'1', b"other", b"linked")
        .file(b"linked", b"replaced")
        .file(b"f", b"1")
        .dir(b"f/")
        .file(b"f/g", b"2")
        .file(b"f", b"3")
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!(
        brief(&rows),
        [
            "d File",
            "f File",
            "large File",
            "linked File",
            "other File =0",
            "s Dir",
            "s/inside File",
            "twice File"
        ]
    );
    for (path, bytes) in
        [("twice", &b"second"[..]), ("d", b"a file now"), ("other", b"by another"), ("linked", b"replaced")]
    {
        assert_eq!(find(&rows, path).digest, Some(Digest::of(bytes)), "{path}");
    }
}

#[test]
fn a_sparse_file_that_is_replaced_is_in_the_recipe_too() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    plain_tree(&tree, 50);
    fs::copy(tree.join("large"), sandbox.dir().join("sparse")).unwrap();
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        let arguments =
            ["--format=pax", "--sparse", &version, "-cf", "-", "-C", "tree", "sparse", "-C", "..", "sparse"];
        let rows = both_ways(&sandbox, &run("tar", &arguments, sandbox.dir()));
        assert_eq!(rows[0].size, 700_000);
    }
}

#[test]
fn whiteouts_delete_from_below_and_never_from_the_layer_itself() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .file(b".wh.gone", b"")
        .file(b"kept", b"")
        .file(b".wh.kept", b"")
        .file(b".wh.anew", b"")
        .file(b"anew", b"")
        .file(b".wh.dir", b"")
        .dir(b"dir/")
        .dir(b"later/")
        .file(b"later/inside", b"")
        .file(b".wh.later", b"")
        .dir(b"marked/")
        .file(b"marked/first", b"")
        .file(b"marked/.wh..wh..opq", b"")
        .file(b"marked/second", b"")
        .header(b"device", b'3', 0, |block| block[329..345].copy_from_slice(b"0000000\x000000000\0"))
        .file(b".wh..wh.aufs", b"internal")
        .dir(b".wh..wh.plnk/")
        .file(b".wh..wh.plnk/1.2", b"internal")
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!(
        brief(&rows),
        [
            "anew File",
            "device Whiteout",
            "dir Dir opaque",
            "gone Whiteout",
            "kept File",
            "later Dir opaque",
            "later/inside File",
            "marked Dir opaque",
            "marked/first File",
            "marked/second File",
        ]
    );
    let aufs = new_dir(&sandbox, "aufs");
    applied(&tar, &aufs, Form::Aufs);
    assert!(aufs.join(".wh.gone").exists() && aufs.join("marked/.wh..wh..opq").exists());

    let below = new_dir(&sandbox, "below");
    for dir in ["dir", "later", "marked", "anew"] {
        fs::create_dir(below.join(dir)).unwrap();
        fs::write(below.join(dir).join("old"), "").unwrap();
    }
    for file in ["gone", "kept", "device", "untouched"] {
        fs::write(below.join(file), "old").unwrap();
    }
    applied(&tar, &below, Form::Whole);
    let names: Vec<String> =
        listing(&below).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        [
            "anew",
            "dir",
            "kept",
            "later",
            "later/inside",
            "marked",
            "marked/first",
            "marked/second",
            "untouched"
        ]
    );
}

#[test]
fn a_layer_that_is_opaque_at_its_root_says_so() {
    let sandbox = Sandbox::new();
    let tar = Raw::default().file(b".wh..wh..opq", b"").file(b"new", b"").end();
    let layer = applied(&tar, &new_dir(&sandbox, "layer"), Form::Overlay);
    assert!(layer.applied.opaque_root);
    assert_eq!(brief(&layer.rows), [" Dir opaque implied", "new File"]);
    let below = new_dir(&sandbox, "below");
    fs::write(below.join("old"), "").unwrap();
    applied(&tar, &below, Form::Whole);
    assert!(!below.join("old").exists() && below.join("new").exists());
}

#[test]
fn a_layer_that_leaves_out_directories_leans_on_what_is_below() {
    let sandbox = Sandbox::new();
    let tar = Raw::default().file(b"a/b/file", b"x").dir(b"a/").file(b"c/.wh.gone", b"").end();
    let alone = applied(&tar, &new_dir(&sandbox, "alone"), Form::Overlay);
    assert!(alone.applied.leans);
    assert_eq!(
        brief(&alone.rows),
        ["a Dir", "a/b Dir implied", "a/b/file File", "c Dir implied", "c/gone Whiteout"]
    );

    let below = new_dir(&sandbox, "below");
    fs::create_dir_all(below.join("a/b")).unwrap();
    fs::write(below.join("a/b/old"), "").unwrap();
    fs::set_permissions(below.join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    set_time(&below.join("a/b"), 1_577_934_245);
    let over = applied(&tar, &below, Form::Whole);
    assert_eq!(brief(&over.rows), brief(&alone.rows));
    let lines = listing(&below);
    assert!(lines.contains("a/b 40700 0:0 @1577934245\na/b/file 100644"), "{lines}");
    assert!(lines.contains("a/b/old"), "{lines}");
}

#[test]
fn a_hard_link_into_the_layer_below_leans_on_it() {
    let sandbox = Sandbox::new();
    let tar = Raw::default().link(b'1', b"new", b"old").end();
    let alone = applied(&tar, &new_dir(&sandbox, "alone"), Form::Overlay);
    assert_eq!((alone.applied.leans, alone.applied.dangling), (true, Some(b"old".to_vec())));

    let below = new_dir(&sandbox, "below");
    fs::write(below.join("old"), "from below").unwrap();
    let over = applied(&tar, &below, Form::Whole);
    assert_eq!(over.applied.dangling, None);
    assert_eq!(brief(&over.rows), ["new File =0", "old File implied =0"]);
    assert_eq!(find(&over.rows, "new").digest, Some(Digest::of(b"from below")));
    let mut rows = Vec::new();
    let fd = open(&below);
    let scanned =
        scan(&Job::silent(), &mut &tar[..], Some(std::os::fd::AsFd::as_fd(&fd)), &mut rows).unwrap();
    assert_eq!((scanned.leans, brief(&super::kit::sorted(rows))), (true, brief(&over.rows)));
}

#[test]
fn links_on_the_way_are_followed_inside_the_root() {
    let sandbox = Sandbox::new();
    let tar = Raw::default()
        .dir(b"usr/")
        .dir(b"usr/lib/")
        .link(b'2', b"lib", b"usr/lib")
        .link(b'2', b"abs", b"/../../usr/./lib")
        .file(b"lib/one", b"1")
        .file(b"abs/two", b"2")
        .link(b'1', b"lib/three", b"/abs/two")
        .link(b'2', b"out", b"../../../../etc")
        .file(b"out/passwd", b"ours")
        .end();
    let rows = both_ways(&sandbox, &tar);
    assert_eq!(
        brief(&rows),
        [
            "abs Symlink -> /../../usr/./lib",
            "etc Dir implied",
            "etc/passwd File",
            "lib Symlink -> usr/lib",
            "out Symlink -> ../../../../etc",
            "usr Dir",
            "usr/lib Dir",
            "usr/lib/one File",
            "usr/lib/three File =0",
            "usr/lib/two File =0",
        ]
    );
}

#[test]
fn umoci_unpacks_what_we_pack_as_we_do() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    plain_tree(&tree, 400);
    let layer = super::kit::packed_tree(&tree);
    fs::write(sandbox.dir().join("layer.tar"), &layer.tar).unwrap();
    let script = "umoci init --layout img && umoci new --image img:one && \
        umoci raw add-layer --image img:one layer.tar && umoci unpack --image img:one bundle";
    run("sh", &["-c", script], sandbox.dir());
    assert_same(&listing(&sandbox.dir().join("bundle/rootfs")), &listing(&tree));
}

#[test]
fn a_cut_archive_is_an_error_wherever_it_is_cut() {
    let sandbox = Sandbox::new();
    let tar = Raw::default().pax(b'x', &[("path", b"file")]).file(b"x", &[7; 1000]).end();
    for end in [100, 600, 1024, 1500, 1536 + 512] {
        let result = scan(&Job::silent(), &mut &tar[..end], None, &mut Vec::<Row>::new());
        let error = result.err().unwrap_or_else(|| panic!("cut at {end}"));
        assert_eq!(error.kind(), error::Kind::Invalid);
        assert!(
            error::Error::to_string(&error).contains("the archive ends")
                || error.message().starts_with("unpacking")
        );
    }
    assert_eq!(scanned(&tar).1[0].kind, Kind::File);
    drop(sandbox);
}
