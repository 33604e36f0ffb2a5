//! Trees with everything a tree can have, packed and unpacked.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;

use outcrop::job::Job;
use outcrop::layer::{Changes, Difference, Extras, Form, Kind, content_id, verify};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::kit::{
    applied, assert_same, brief, id_of, listing, name, new_dir, open, packed, packed_at, packed_tree,
    replayed, run, scanned, set_xattr, shown,
};
use crate::sandbox::Sandbox;

/// 2020-01-02 03:04:05.678 UTC.
pub(super) fn set_time(path: &Path, seconds: i64) {
    let time = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 678_000_000 },
    };
    rustix::fs::utimensat(CWD, path, &time, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// `VFS_CAP_REVISION_2`, effective, `cap_net_raw` (linux/capability.h).
const NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn rich_tree(dir: &Path) {
    fs::create_dir_all(dir.join("etc/empty")).unwrap();
    fs::write(dir.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(dir.join("etc/nothing"), "").unwrap();
    fs::create_dir(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/ping"), vec![7; 300_000]).unwrap();
    set_xattr(&dir.join("bin/ping"), "security.capability", NET_RAW);
    fs::write(dir.join("bin/su"), "su").unwrap();
    chown(dir.join("bin/su"), Some(5), Some(6)).unwrap();
    fs::set_permissions(dir.join("bin/su"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(dir.join("bin/su"), dir.join("bin/sg")).unwrap();
    fs::hard_link(dir.join("bin/su"), dir.join("etc/su")).unwrap();
    symlink("/bin/su", dir.join("etc/link")).unwrap();
    lchown(dir.join("etc/link"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    rustix::fs::linkat(CWD, dir.join("etc/link"), CWD, dir.join("etc/link2"), AtFlags::empty()).unwrap();
    symlink("t".repeat(200), dir.join("long-target")).unwrap();
    fs::create_dir(dir.join("dev")).unwrap();
    for (device, kind, major, minor) in [
        ("null", FileType::CharacterDevice, 1, 3),
        ("loop", FileType::BlockDevice, 7, 1_000_000),
        ("fifo", FileType::Fifo, 0, 0),
    ] {
        let rdev = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, dir.join("dev").join(device), kind, Mode::from_raw_mode(0o640), rdev)
            .unwrap();
    }
    set_xattr(&dir.join("dev/fifo"), "trusted.on-a-fifo", b"yes");
    chown(dir.join("etc/hosts"), Some(2_097_152), Some(2_097_151)).unwrap();
    set_xattr(&dir.join("etc/hosts"), "user.lines", b"one\ntwo=2\n\0three");
    set_xattr(&dir.join("etc/hosts"), "user.a=b", b"equals");
    set_xattr(&dir.join("etc"), "user.on-a-directory", b"");
    let deep: Vec<String> = (0..6).map(|n| format!("{n}").repeat(90)).collect();
    fs::create_dir_all(dir.join(deep.join("/"))).unwrap();
    fs::write(dir.join(deep.join("/")).join("f".repeat(255)), "far down").unwrap();
    fs::write(dir.join(name(b"not-utf8-\xff\xfe\n\t")), "odd").unwrap();
    fs::write(dir.join("umlaut-\u{e4}"), "utf8").unwrap();
    fs::create_dir(dir.join("sticky")).unwrap();
    fs::set_permissions(dir.join("sticky"), fs::Permissions::from_mode(0o3777)).unwrap();
    fs::write(dir.join("old"), "before the epoch").unwrap();
    fs::write(dir.join("late"), "after 2242").unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 1 << 20).unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap());
    for path in ["etc/hosts", "etc/link", "bin/su", "sparse", "dev/null", "etc/empty", "bin", "dev", "etc"] {
        set_time(&dir.join(path), 1_577_934_245);
    }
    set_time(&dir.join("old"), -3);
    set_time(&dir.join("late"), 9_000_000_000);
}

#[test]
fn a_tree_comes_back_as_it_was_and_packs_to_the_same_bytes() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    rich_tree(&tree);
    let layer = packed_tree(&tree);
    assert!(replayed(&layer.recipe, &tree) == layer.tar);
    let (scan, rows) = scanned(&layer.tar);
    assert_same(&shown(&rows), &shown(&layer.rows));
    assert_eq!((scan.leans, scan.bytes), (false, layer.packed.bytes));

    fs::remove_file(tree.join("socket")).unwrap();
    for (number, form) in [Form::Whole, Form::Overlay, Form::OverlayUser, Form::Aufs].into_iter().enumerate()
    {
        let again = new_dir(&sandbox, &format!("again{number}"));
        let back = applied(&layer.tar, &again, form);
        assert_same(&shown(&back.rows), &shown(&layer.rows));
        assert_eq!(back.applied.bytes, layer.packed.bytes);
        // The root had no member of its own; its listing is not part of it.
        assert_same(&listing(&again), &listing(&tree));
        assert!(packed_tree(&again).tar == layer.tar, "{form:?}");
    }
}

#[test]
fn gnu_tar_and_python_read_what_we_write() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    rich_tree(&tree);
    fs::remove_file(tree.join("socket")).unwrap();
    // Known to libarchive alone.
    rustix::fs::lremovexattr(tree.join("etc/hosts"), "user.a=b").unwrap();
    let layer = packed_tree(&tree);
    fs::write(sandbox.dir().join("layer.tar"), &layer.tar).unwrap();
    let again = new_dir(&sandbox, "again");
    let xattrs = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "../layer.tar"];
    run("tar", &xattrs, &again);
    // GNU tar cannot set attributes of a fifo, nor the owner of the root it unpacks into.
    set_xattr(&again.join("dev/fifo"), "trusted.on-a-fifo", b"yes");
    assert_same(&listing(&again), &listing(&tree));

    let names = run(
        "python3",
        &["-c", "import tarfile; print(len(tarfile.open('layer.tar').getmembers()))"],
        sandbox.dir(),
    );
    assert_eq!(String::from_utf8(names).unwrap().trim(), layer.rows.len().to_string());
}

#[test]
fn an_empty_layer_is_two_blocks_of_zeros() {
    let sandbox = Sandbox::new();
    let layer = packed_tree(&new_dir(&sandbox, "tree"));
    assert_eq!(layer.tar, [0; 1024]);
    assert_eq!(
        layer.packed.diff_id.to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

/// linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each entry.
fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[test]
fn access_lists_are_kept_and_not_inherited() {
    const NOBODY: u32 = u32::MAX;
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    fs::create_dir_all(tree.join("dir/plain-dir")).unwrap();
    fs::write(tree.join("dir/plain"), "").unwrap();
    fs::write(tree.join("dir/listed"), "").unwrap();
    let list = access_list(&[(1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)]);
    set_xattr(&tree.join("dir/listed"), "system.posix_acl_access", &list);
    set_xattr(&tree.join("dir"), "system.posix_acl_default", &list);
    let layer = packed_tree(&tree);
    for form in [Form::Overlay, Form::Whole] {
        let again = new_dir(&sandbox, &format!("{form:?}"));
        applied(&layer.tar, &again, form);
        assert_same(&listing(&again), &listing(&tree));
    }
    // Over a tree where everything made in the directory would inherit.
    applied(&layer.tar, &tree, Form::Whole);
    assert_same(&listing(&sandbox.dir().join("Whole")), &listing(&tree));
    let new = super::kit::Raw::default().file(b"dir/new", b"").dir(b"dir/new-dir/").end();
    applied(&new, &tree, Form::Whole);
    assert!(super::kit::xattrs(&tree.join("dir/new")).is_empty());
    assert!(super::kit::xattrs(&tree.join("dir/new-dir")).is_empty());
}

#[test]
fn the_root_is_a_member_only_when_it_differs() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o1700)).unwrap();
    let layer = packed_tree(&tree);
    assert!(layer.tar.starts_with(b"./\0"));
    assert_eq!((layer.rows[0].path.as_slice(), layer.rows[0].mode), (&b""[..], 0o1700));
    let again = new_dir(&sandbox, "again");
    applied(&layer.tar, &again, Form::Overlay);
    assert_eq!(fs::metadata(&again).unwrap().permissions().mode() & 0o7777, 0o1700);
}

#[test]
fn no_time_is_later_than_asked() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    fs::write(tree.join("new"), "").unwrap();
    fs::write(tree.join("old"), "").unwrap();
    set_time(&tree.join("old"), 5);
    let layer = packed_at(Changes::Trees { tree: open(&tree).as_fd(), parent: None }, Some(100));
    let times: Vec<i64> = layer.rows.iter().map(|row| row.mtime / 1_000_000_000).collect();
    assert_eq!(times, [100, 5]);
}

/// A whole tree holds what lies below, with its times.
#[test]
fn what_is_later_than_asked_since_before_is_no_change() {
    let sandbox = Sandbox::new();
    let (before, after) = (new_dir(&sandbox, "before"), new_dir(&sandbox, "after"));
    fs::write(before.join("late"), "").unwrap();
    run("cp", &["-a", "before/.", "after"], sandbox.dir());
    fs::write(after.join("new"), "").unwrap();
    let (before, after) = (open(&before), open(&after));
    let layer = packed_at(Changes::Trees { tree: after.as_fd(), parent: Some(before.as_fd()) }, Some(100));
    let paths: Vec<_> = layer.rows.iter().map(|row| row.path.as_slice()).collect();
    assert_eq!(paths, [b"new"]);
}

#[test]
fn a_settled_upper_has_no_time_later_than_asked_either() {
    let sandbox = Sandbox::new();
    let upper = new_dir(&sandbox, "upper");
    fs::create_dir(upper.join("dir")).unwrap();
    fs::write(upper.join("dir/new"), "").unwrap();
    symlink("new", upper.join("dir/link")).unwrap();
    let fd = open(&upper);
    let changes = |settle| Changes::Upper { upper: fd.as_fd(), form: Form::Overlay, parent: None, settle };
    let layer = packed_at(changes(true), Some(100));
    let findings =
        verify(&Job::silent(), fd.as_fd(), Form::Overlay, Extras::Report, layer.rows.into_iter().map(Ok));
    assert_eq!(findings.unwrap().list, []);
    assert!(packed(changes(false)).tar == layer.tar);
}

#[test]
fn times_do_not_change_what_a_layer_contains() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    rich_tree(&tree);
    let first = packed_tree(&tree);
    set_time(&tree.join("etc/hosts"), 77);
    let second = packed_tree(&tree);
    assert_ne!(first.packed.diff_id, second.packed.diff_id);
    assert_eq!(id_of(&first.rows), id_of(&second.rows));
    fs::set_permissions(tree.join("etc/hosts"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(id_of(&second.rows), id_of(&packed_tree(&tree).rows));
    assert!(content_id(second.rows.into_iter().rev().map(Ok)).is_err());
}

#[test]
fn long_zeros_take_no_space() {
    use std::os::unix::fs::MetadataExt as _;
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    let mut bytes = vec![0; 8 << 20];
    bytes[(3 << 20) + 17] = 1;
    fs::write(tree.join("zeros"), &bytes).unwrap();
    fs::write(tree.join("tail"), [vec![1; 100_001], vec![0; 1 << 20]].concat()).unwrap();
    fs::write(tree.join("short"), [vec![1; 100_000], vec![0; 50_000], vec![1; 10]].concat()).unwrap();
    let layer = packed_tree(&tree);
    let again = new_dir(&sandbox, "again");
    applied(&layer.tar, &again, Form::Whole);
    assert_same(&listing(&again), &listing(&tree));
    let blocks = |name: &str| fs::metadata(again.join(name)).unwrap().blocks() * 512;
    assert!(blocks("zeros") <= 16 << 10, "{}", blocks("zeros"));
    assert!(blocks("tail") <= 128 << 10, "{}", blocks("tail"));
}

#[test]
fn every_difference_between_tree_and_rows_is_found() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    rich_tree(&tree);
    fs::remove_file(tree.join("socket")).unwrap();
    let rows = packed_tree(&tree).rows;
    fs::write(tree.join("bin/ping"), vec![8; 300_000]).unwrap();
    set_xattr(&tree.join("bin/ping"), "security.capability", NET_RAW);
    fs::write(tree.join("etc/nothing"), "something").unwrap();
    fs::remove_file(tree.join("late")).unwrap();
    fs::create_dir(tree.join("etc/extra")).unwrap();
    fs::write(tree.join("etc/extra/file"), "").unwrap();
    set_time(&tree.join("etc"), 1_577_934_245);
    fs::remove_file(tree.join("dev/fifo")).unwrap();
    fs::write(tree.join("dev/fifo"), "").unwrap();
    set_time(&tree.join("dev"), 1_577_934_245);
    fs::remove_file(tree.join("bin/sg")).unwrap();
    fs::copy(tree.join("bin/su"), tree.join("bin/sg")).unwrap();
    chown(tree.join("bin/sg"), Some(5), Some(6)).unwrap();
    fs::set_permissions(tree.join("bin/sg"), fs::Permissions::from_mode(0o6755)).unwrap();
    set_time(&tree.join("bin/sg"), 1_577_934_245);
    set_time(&tree.join("bin"), 1_577_934_245);
    set_xattr(&tree.join("etc/hosts"), "user.more", b"");
    chown(tree.join("sparse"), Some(1), None).unwrap();
    fs::set_permissions(tree.join("sticky"), fs::Permissions::from_mode(0o777)).unwrap();
    set_time(&tree.join("old"), -4);
    for path in ["bin/ping", "etc/nothing"] {
        let row = rows.iter().find(|row| row.path == path.as_bytes()).unwrap();
        set_time(&tree.join(path), row.mtime / 1_000_000_000);
    }
    let findings =
        verify(&Job::silent(), open(&tree).as_fd(), Form::Whole, Extras::Report, rows.into_iter().map(Ok))
            .unwrap();
    let found: Vec<(String, Difference)> = findings
        .list
        .into_iter()
        .map(|finding| (finding.path.escape_ascii().to_string(), finding.what))
        .collect();
    let expected = [
        ("bin/ping", Difference::Content),
        // `bin/sg` comes first, so it is what the others are compared with.
        ("bin/su", Difference::Link),
        ("dev/fifo", Difference::Kind),
        ("etc/extra", Difference::Extra),
        ("etc/hosts", Difference::Xattrs),
        ("etc/nothing", Difference::Size),
        ("etc/su", Difference::Link),
        ("late", Difference::Missing),
        ("old", Difference::Time),
        ("sparse", Difference::Owner),
        ("sticky", Difference::Mode),
    ];
    assert_eq!(found, expected.map(|(path, what)| (path.to_owned(), what)));
}

/// In the archive a deletion's name is longer than any file's can be.
#[test]
fn a_file_with_the_longest_name_can_be_deleted() {
    let sandbox = Sandbox::new();
    let [before, after, alone] = ["before", "after", "alone"].map(|name| new_dir(&sandbox, name));
    let longest = "n".repeat(255);
    fs::write(before.join(&longest), "").unwrap();
    let (old, new) = (open(&before), open(&after));
    let layer = packed(Changes::Trees { tree: new.as_fd(), parent: Some(old.as_fd()) });
    assert_eq!(brief(&applied(&layer.tar, &alone, Form::Overlay).rows), [format!("{longest} Whiteout")]);
    applied(&layer.tar, &before, Form::Whole);
    assert_eq!(listing(&before), "");
}

#[test]
fn a_name_that_would_mean_a_deletion_cannot_be_packed() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    fs::write(tree.join(".wh.file"), "").unwrap();
    let tree = open(&tree);
    let changes = Changes::Trees { tree: tree.as_fd(), parent: None };
    let result =
        outcrop::layer::pack(&Job::silent(), changes, Default::default(), &mut Vec::new(), &mut Vec::new());
    let error = result.unwrap_err();
    assert_eq!(error.message(), "`/.wh.file` cannot be in a layer");
    assert!(error.hint_text().is_some());
}

#[test]
fn the_difference_of_two_trees_makes_the_second_of_the_first() {
    let sandbox = Sandbox::new();
    let (before, after) = (new_dir(&sandbox, "before"), new_dir(&sandbox, "after"));
    rich_tree(&before);
    run("cp", &["-a", "before/.", "after"], sandbox.dir());
    fs::remove_file(after.join("etc/hosts")).unwrap();
    fs::remove_dir_all(after.join("dev")).unwrap();
    fs::write(after.join("dev"), "a file now").unwrap();
    fs::remove_file(after.join("old")).unwrap();
    fs::create_dir(after.join("old")).unwrap();
    fs::write(after.join("old/new"), "in a directory").unwrap();
    fs::remove_file(after.join("bin/ping")).unwrap();
    let change = packed(Changes::Trees { tree: open(&after).as_fd(), parent: Some(open(&before).as_fd()) });
    let shown: Vec<String> = change
        .rows
        .iter()
        .map(|row| {
            let mark = if row.kind == Kind::Whiteout {
                " gone"
            } else if row.opaque {
                " opaque"
            } else {
                ""
            };
            format!("{}{mark}", row.path.escape_ascii())
        })
        .collect();
    assert_eq!(shown, ["bin", "bin/ping gone", "dev", "etc", "etc/hosts gone", "old opaque", "old/new"]);

    let merged = new_dir(&sandbox, "merged");
    applied(&packed_tree(&before).tar, &merged, Form::Whole);
    applied(&change.tar, &merged, Form::Whole);
    fs::remove_file(after.join("socket")).unwrap();
    assert_same(&listing(&merged), &listing(&after));
}
