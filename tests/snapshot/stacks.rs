//! What of a stack shows through, and what a layer hides of it.

use super::*;

pub(super) fn what_is_written_is_seen_from_then_on(bench: &Bench) {
    let stack = bench.base(|root| fs::write(root.at("file"), "content").unwrap());
    assert_eq!(bench.view(&stack).read("file"), "content");
}

pub(super) fn a_view_cannot_be_written(bench: &Bench) {
    let stack = bench.base(|root| fs::write(root.at("file"), "").unwrap());
    let view = bench.view(&stack);
    assert_eq!(fs::write(view.at("file"), "x").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::create_dir(view.at("dir")).unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

pub(super) fn a_view_of_nothing_is_an_empty_directory(bench: &Bench) {
    assert_eq!(bench.view(&[]).names(""), [""; 0]);
}

/// From outside: the filesystem that the mount is, and the layout that people know.
pub(super) fn the_driver_itself_serves(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::write(mounted.at("above"), "").unwrap();
    let kind = rustix::fs::fstatfs(&mounted.0).unwrap().f_type;
    let own = rustix::fs::statfs(&bench.root).unwrap().f_type;
    match bench.driver.name() {
        "overlay2" => {
            assert_eq!(kind, 0x794c_7630);
            assert_eq!(names(&bench.root.join("overlay2/2/diff")), ["above"]);
            assert_eq!(names(&bench.root.join("overlay2/1/diff")), ["below"]);
        }
        "vfs" => {
            assert_eq!(kind, own);
            assert_eq!(names(&bench.root.join("vfs/dir/2")), ["above", "below"]);
            assert_eq!(names(&bench.root.join("vfs/dir/1")), ["below"]);
        }
        "zfs" => {
            assert_eq!(kind, if crate::zfs::in_the_kernel() { 0x2fc1_2fc1 } else { 0x6573_5546 });
            assert_eq!(names(&bench.root.join("zfs/graph/2")), ["above", "below"]);
            assert_eq!(names(&bench.root.join("zfs/graph/1")), ["below"]);
            assert_eq!(crate::zfs::datasets(), ["1", "1@2", "2"]);
        }
        // tests/devicemapper.rs looks at its devices.
        "devicemapper" => assert_eq!(names(&bench.root.join("devicemapper/snapshots")), ["1", "2"]),
        "btrfs" => {
            assert_eq!(kind, 0x9123_683e);
            assert_eq!(names(&bench.root.join("btrfs/subvolumes/2")), ["above", "below"]);
            assert_eq!(names(&bench.root.join("btrfs/subvolumes/1")), ["below"]);
            assert_eq!(mounted.at("").metadata().unwrap().ino(), 256);
        }
        "overlay" => {
            assert_eq!(kind, 0x794c_7630);
            assert_eq!(names(&bench.root.join("overlay/2/upper")), ["above"]);
            assert_eq!(names(&bench.root.join("overlay/1/root")), ["below"]);
        }
        other => panic!("say here how {other} looks from outside"),
    }
}

/// Each deletes what the one below it made. Where a snapshot takes a tenth of a second, fewer must do.
pub(super) fn stacks_of_many_layers_show_through(bench: &Bench) {
    let most = match bench.driver.name() {
        "devicemapper" => 50,
        "zfs" if crate::zfs::in_the_kernel() => 50,
        "zfs" => 200,
        _ => 600,
    };
    let mut stack = bench.base(|root| fs::write(root.at("first"), "").unwrap());
    for depth in 2..=most {
        stack = bench.on(&stack, |root| {
            fs::write(root.at("all"), depth.to_string()).unwrap();
            fs::write(root.at(format!("of-{depth}")), "").unwrap();
            if depth > 2 {
                fs::remove_file(root.at(format!("of-{}", depth - 1))).unwrap();
            }
        });
        if [2, 50, 200, 501, 600].contains(&depth) {
            let view = bench.view(&stack);
            assert_eq!(view.names(""), ["all", "first", &format!("of-{depth}")]);
            assert_eq!(view.read("all"), depth.to_string());
        }
    }
}

pub(super) fn a_child_changes_nothing_below_it(bench: &Bench) {
    let parent = bench.base(|root| {
        fs::write(root.at("kept"), "kept").unwrap();
        fs::write(root.at("changed"), "before").unwrap();
        fs::write(root.at("deleted"), "").unwrap();
        fs::write(root.at("moved"), "moved").unwrap();
    });
    let child = bench.on(&parent, |root| {
        let mut file = fs::OpenOptions::new().append(true).open(root.at("changed")).unwrap();
        file.write_all(b" and after").unwrap();
        fs::remove_file(root.at("deleted")).unwrap();
        fs::rename(root.at("moved"), root.at("elsewhere")).unwrap();
        fs::set_permissions(root.at("kept"), Permissions::from_mode(0o600)).unwrap();
    });
    let (below, above) = (bench.view(&parent), bench.view(&child));
    assert_eq!(below.names(""), ["changed", "deleted", "kept", "moved"]);
    assert_eq!(below.read("changed"), "before");
    assert_eq!(below.at("kept").metadata().unwrap().mode() & 0o7777, 0o644);
    assert_eq!(above.names(""), ["changed", "elsewhere", "kept"]);
    assert_eq!(above.read("changed"), "before and after");
    assert_eq!(above.at("kept").metadata().unwrap().mode() & 0o7777, 0o600);
}

pub(super) fn two_children_do_not_see_each_other(bench: &Bench) {
    let parent = bench.base(|root| fs::write(root.at("file"), "0").unwrap());
    let one = bench.on(&parent, |root| fs::write(root.at("file"), "1").unwrap());
    let two = bench.on(&parent, |root| fs::write(root.at("file"), "2").unwrap());
    let read = |stack| bench.view(stack).read("file");
    assert_eq!([read(&parent), read(&one), read(&two)], ["0", "1", "2"]);
}

pub(super) fn what_was_deleted_stays_so_until_it_is_made_again(bench: &Bench) {
    let first = bench.base(|root| {
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("dir/one"), "1").unwrap();
        fs::write(root.at("dir/two"), "2").unwrap();
    });
    let second = bench.on(&first, |root| fs::remove_file(root.at("dir/one")).unwrap());
    let third = bench.on(&second, |root| fs::write(root.at("unrelated"), "").unwrap());
    assert_eq!(bench.view(&third).names("dir"), ["two"]);
    let fourth = bench.on(&third, |root| fs::write(root.at("dir/one"), "again").unwrap());
    assert_eq!(bench.view(&fourth).read("dir/one"), "again");
}

pub(super) fn a_replaced_directory_hides_what_was_in_it(bench: &Bench) {
    let first = bench.base(|root| {
        fs::create_dir_all(root.at("dir/below")).unwrap();
        fs::write(root.at("dir/old"), "").unwrap();
    });
    let second = bench.on(&first, |root| {
        fs::remove_dir_all(root.at("dir")).unwrap();
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("dir/new"), "").unwrap();
    });
    let third = bench.on(&second, |root| fs::write(root.at("dir/newer"), "").unwrap());
    assert_eq!(bench.view(&third).names("dir"), ["new", "newer"]);
    assert_eq!(bench.view(&first).names("dir"), ["below", "old"]);
}

pub(super) fn names_change_their_kind(bench: &Bench) {
    let first = bench.base(|root| {
        fs::write(root.at("file-dir"), "").unwrap();
        fs::create_dir_all(root.at("dir-file/inside")).unwrap();
        fs::create_dir(root.at("target")).unwrap();
        fs::write(root.at("target/inside"), "").unwrap();
        symlink("target", root.at("link-dir")).unwrap();
        fs::create_dir(root.at("dir-link")).unwrap();
    });
    let second = bench.on(&first, |root| {
        fs::remove_file(root.at("file-dir")).unwrap();
        fs::create_dir(root.at("file-dir")).unwrap();
        fs::remove_dir_all(root.at("dir-file")).unwrap();
        fs::write(root.at("dir-file"), "file").unwrap();
        fs::remove_file(root.at("link-dir")).unwrap();
        fs::create_dir(root.at("link-dir")).unwrap();
        fs::remove_dir(root.at("dir-link")).unwrap();
        symlink("target", root.at("dir-link")).unwrap();
    });
    let third = bench.on(&second, |root| {
        fs::remove_dir(root.at("file-dir")).unwrap();
        fs::write(root.at("file-dir"), "back").unwrap();
        fs::remove_file(root.at("dir-file")).unwrap();
        fs::create_dir(root.at("dir-file")).unwrap();
    });
    let view = bench.view(&second);
    assert!(view.at("file-dir").is_dir());
    assert_eq!(view.read("dir-file"), "file");
    assert_eq!(view.names("link-dir"), [""; 0]);
    assert_eq!(view.names("target"), ["inside"]);
    assert_eq!(fs::read_link(view.at("dir-link")).unwrap(), Path::new("target"));
    let view = bench.view(&third);
    assert_eq!(view.read("file-dir"), "back");
    assert_eq!(view.names("dir-file"), [""; 0]);
}
