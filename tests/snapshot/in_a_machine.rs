//! What takes a kernel with thin pools or with quotas: tests/devicemapper.rs runs it in a machine of its own.

use super::*;

driver!(devicemapper in_a_machine on ext4);

mod xfs {
    macro_rules! some {
        ($($test:ident)*) => {
            $(
                #[test]
                #[ignore = "tests/devicemapper.rs runs it in a machine"]
                fn $test() {
                    super::super::$test(&super::super::Bench::devicemapper("xfs"));
                }
            )*
        };
    }
    some! {
        a_child_changes_nothing_below_it
        owners_modes_xattrs_and_capabilities_are_kept
        holes_stay_holes
        a_snapshot_is_removed_while_it_is_mounted
        a_copy_is_made_of_what_is_not_sealed
    }
}

macro_rules! limited_by_projects {
    ($($name:ident: $driver:literal),*) => {$(
        #[test]
        #[ignore = "the host's kernel may have no quotas: it runs in the machine of tests/devicemapper.rs"]
        fn $name() {
            is_limited_by_projects($driver);
        }
    )*};
}
limited_by_projects! {
    overlay2_limits_containers_by_projects_of_xfs: "overlay2",
    overlay_limits_containers_by_projects_of_xfs: "overlay",
    vfs_limits_containers_by_projects_of_xfs: "vfs"
}

fn is_limited_by_projects(driver: &str) {
    let disk = Sandbox::new();
    let (image, root) = (disk.dir().join("disk"), disk.root());
    fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    fs::create_dir(&root).unwrap();
    let ran = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    ran(Command::new("mkfs.xfs").arg("-q").arg(&image));
    ran(Command::new("mount").args(["-o", "loop,prjquota"]).arg(&image).arg(&root));
    let driver = select(&root, Some(driver)).unwrap().driver;
    let bench =
        Bench { root: root.clone(), _pool: None, sandbox: disk, driver, _disk: None, next: Cell::new(1) };
    let below = bench.base(|root| {
        fs::write(root.at("below"), vec![1; 8 << 20]).unwrap();
        std::os::unix::fs::symlink("below", root.at("link")).unwrap();
    });
    let free = bench.create(&below);
    let limited = bench.create(&below);
    bench.driver.limit(limited, 4 << 20).unwrap();
    let write = |id, bytes: usize| {
        let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
        let mut file = fs::File::create(mounted.at("own")).unwrap();
        file.write_all(&vec![7; bytes]).and_then(|()| file.sync_all()).map_err(|error| error.kind())
    };
    assert_eq!(write(limited, 3 << 20), Ok(()));
    assert!(matches!(
        write(limited, 6 << 20),
        Err(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    ));
    assert_eq!(write(free, 6 << 20), Ok(()));
    // It is full, and can be mounted all the same. Room is given back, and what lies below counts only once it is copied up.
    let mounted = bench.open(&bench.driver.mount(limited, &below).unwrap());
    fs::remove_file(mounted.at("own")).unwrap();
    if bench.driver.name() != "vfs" {
        assert!(fs::OpenOptions::new().append(true).open(mounted.at("below")).is_err());
    }
    fs::rename(mounted.at("link"), mounted.at("moved")).unwrap();
    assert_eq!(fs::read(mounted.at("moved")).unwrap().len(), 8 << 20);
    drop(mounted);
    assert_eq!(write(limited, 3 << 20), Ok(()));
    let reported = || {
        let mut report = Command::new("xfs_quota");
        let output = report.args(["-x", "-c", "report -p -N -b"]).arg(&root).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Of vfs, what was there at first is no part of what is limited.
    let at_first = if bench.driver.name() == "vfs" { 8 << 10 } else { 0 };
    let limits = |reported: &str| -> Vec<u64> {
        let limits = reported.lines().filter_map(|line| line.split_whitespace().nth(3)?.parse().ok());
        limits.filter(|limit| *limit > 0).collect()
    };
    let report = reported();
    assert!(matches!(limits(&report)[..], [limit] if limit.abs_diff(4096 + at_first) < 100), "{report}");
    bench.driver.remove(limited).unwrap();
    assert_eq!(limits(&reported()), [0; 0]);
    bench.driver.remove(free).unwrap();
    bench.driver.remove(below[0]).unwrap();
    nothing_is_left(&bench);
    ran(Command::new("umount").arg("-l").arg(&root));
}
