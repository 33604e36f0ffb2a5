//! What goes, whatever it is, and leaves nothing.

use super::*;

/// 40 x 255 bytes is more than twice PATH_MAX.
pub(super) fn trees_deeper_than_any_path_are_kept_and_removed(bench: &Bench) {
    let name = OsString::from_vec(vec![b'd'; 255]);
    let first = bench.base(|root| {
        let mut at = rustix::fs::openat(&root.0, c".", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..40 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            rustix::fs::openat(
                &at,
                c"file",
                rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
                Mode::RUSR,
            )
            .unwrap();
            at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        }
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    let mut depth = 0;
    let mut at = rustix::fs::openat(&view.0, c".", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    while let Ok(below) = rustix::fs::openat(&at, &name, rustix::fs::OFlags::RDONLY, Mode::empty()) {
        assert!(rustix::fs::statat(&at, c"file", rustix::fs::AtFlags::empty()).is_ok());
        (at, depth) = (below, depth + 1);
    }
    assert_eq!(depth, 40);
    drop((view, at));
    for number in 1..=2 {
        bench.driver.remove(SnapshotId(number)).unwrap();
    }
    nothing_is_left(bench);
}

/// Deeper than the directories that removal keeps open, and wide down there.
pub(super) fn trees_of_many_levels_are_removed(bench: &Bench) {
    bench.base(|root| {
        let deep = root.at(vec!["d"; 200].join("/"));
        fs::create_dir_all(&deep).unwrap();
        for number in 0..20 {
            fs::create_dir_all(deep.join(format!("{number}/x/y"))).unwrap();
        }
    });
    bench.driver.remove(SnapshotId(1)).unwrap();
    nothing_is_left(bench);
}

pub(super) fn what_even_root_may_not_delete_is_removed(bench: &Bench) {
    let id = bench.create(&[]);
    let tree = bench.tree(id);
    fs::create_dir(tree.at("dir")).unwrap();
    fs::write(tree.at("dir/file"), "").unwrap();
    for path in ["dir/file", "dir"] {
        let file = fs::File::open(tree.at(path)).unwrap();
        // zfs-fuse has no such flags.
        if is_zfs_fuse(bench) {
            continue;
        }
        rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE).unwrap();
    }
    bench.driver.remove(id).unwrap();
    nothing_is_left(bench);
}

pub(super) fn a_snapshot_is_removed_while_it_is_mounted(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::write(mounted.at("above"), "").unwrap();
    let open = fs::File::open(mounted.at("below")).unwrap();
    for id in [id, below[0]] {
        bench.driver.remove(id).unwrap();
    }
    nothing_is_left(bench);
    drop((mounted, open));
    nothing_is_left(bench);
}

pub(super) fn everything_but_create_may_be_done_again(bench: &Bench) {
    let id = bench.create(&[]);
    assert_eq!(bench.driver.create(id, &[]).unwrap_err().kind(), Kind::Conflict);
    for _ in 0..2 {
        bench.driver.release(id).unwrap();
        bench.driver.seal(id).unwrap();
        bench.driver.sync(&[id]).unwrap();
    }
    for _ in 0..2 {
        bench.driver.remove(id).unwrap();
    }
    bench.driver.remove(SnapshotId(4_711)).unwrap();
    nothing_is_left(bench);
}

pub(super) fn a_parent_may_go_before_its_child_is_removed(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    bench.driver.remove(below[0]).unwrap();
    bench.driver.remove(id).unwrap();
    nothing_is_left(bench);
}

/// As one finds it after a kill or a power cut: something of everything, and another process.
pub(super) fn the_rest_of_a_killed_process_is_removed(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::write(mounted.at("above"), "").unwrap();
    drop(mounted);
    let again = driver::open(&setting(&bench.root), bench.driver.name()).unwrap();
    assert_eq!(again.list().unwrap().len(), 2);
    again.remove(id).unwrap();
    // A removal that was killed after its first step.
    if again.name() == "zfs" {
        fs::write(bench.root.join(format!("zfs/removed/{}", below[0])), "").unwrap();
        assert_eq!(again.list().unwrap(), []);
        again.remove(below[0]).unwrap();
        assert_eq!(crate::zfs::datasets(), [""; 0]);
        return nothing_is_left(bench);
    }
    if again.name() == "devicemapper" {
        let records = bench.root.join("devicemapper");
        let of = |state: &str| records.join(state).join(below[0].to_string());
        fs::rename(of("snapshots"), of("deleted")).unwrap();
        again.remove(below[0]).unwrap();
        // Of the other one the first driver still has its mount.
        assert_eq!(names(&records.join("deleted")), ["2"]);
        return nothing_is_left(bench);
    }
    begin_removal(bench, below[0]);
    again.remove(below[0]).unwrap();
    nothing_is_left(bench);
}

/// Its first step, as each driver does it.
pub(super) fn begin_removal(bench: &Bench, id: SnapshotId) {
    let path = bench.driver.path(id);
    let number = id.to_string();
    let home = path.ancestors().find(|at| at.ends_with(&number)).unwrap();
    if bench.driver.name() == "btrfs" {
        let dir = fs::File::open(home).unwrap();
        outcrop::sys::btrfs::set_read_only(std::os::fd::AsFd::as_fd(&dir), false).unwrap();
    }
    fs::rename(home, bench.root.join(format!("trash/{}-{id}", bench.driver.name()))).unwrap();
}

#[test]
fn what_is_mounted_inside_stops_a_removal_and_stays_whole() {
    let bench = &Bench::new("vfs");
    let id = bench.create(&[]);
    let tree = bench.tree(id);
    fs::create_dir(tree.at("mounted")).unwrap();
    let precious = bench.sandbox.dir().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    rustix::mount::mount_bind(&precious, tree.at("mounted")).unwrap();
    let refused = bench.driver.remove(id);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mountinfo.lines().filter(|line| line.contains(bench.sandbox.dir().to_str().unwrap())) {
        let at = line.split(' ').nth(4).unwrap();
        rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    assert!(refused.is_err());
    assert_eq!(names(&precious), ["file"]);
    bench.driver.remove(id).unwrap();
    nothing_is_left(bench);
}
