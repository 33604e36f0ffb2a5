//! `overlay`: one lower tree of hard links.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use outcrop::snapshot::driver::SnapshotId;

use super::disk::{OnDisk, from_end_to_end};
use super::random::Place;
use crate::sandbox::Sandbox;

/// The snapshots that are sealed, in the order of their numbers.
fn roots(sandbox: &Sandbox) -> Vec<PathBuf> {
    let dir = fs::read_dir(sandbox.root().join("overlay")).unwrap();
    let mut numbers: Vec<u64> =
        dir.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let roots = numbers.into_iter().map(|number| sandbox.root().join(format!("overlay/{number}/root")));
    roots.filter(|root| root.exists()).collect()
}

#[test]
fn images_live_in_trees_of_hard_links() {
    for filesystem in ["ext4", "btrfs"] {
        let store = OnDisk::new(filesystem, "overlay");
        let sandbox = &store.sandbox;
        from_end_to_end(sandbox, "one\n", || {
            let roots = roots(sandbox);
            assert_eq!(roots.len(), 6, "base, four steps, one committed: {roots:?}");
            let inode = |root: &PathBuf, path: &str| root.join(path).metadata().unwrap().ino();
            for root in &roots[1..] {
                assert_eq!(inode(root, "bin/busybox"), inode(&roots[0], "bin/busybox"));
                assert_ne!(inode(root, "bin"), inode(&roots[0], "bin"), "directories are each tree's own");
            }
            assert!(roots[0].join("bin/busybox").metadata().unwrap().nlink() >= 6);
            // What changed stands alone, and what stood there before is what it was.
            assert_eq!(fs::read_to_string(roots[1].join("srv/one")).unwrap(), "one\n");
            assert_eq!(fs::read_to_string(roots[2].join("srv/one")).unwrap(), "one\nmore\n");
            assert_ne!(inode(&roots[2], "srv/one"), inode(&roots[1], "srv/one"));
            assert_eq!(roots[1].join("srv/two").metadata().unwrap().permissions().mode() & 0o7777, 0o4711);
            assert_eq!(inode(&roots[1], "srv/one"), inode(&roots[1], "srv/d/same"));
        });
        assert_eq!(roots(sandbox), Vec::<PathBuf>::new());
    }
}

/// ext4 ends at 65,000: some names of the file are given in the new tree before that is known.
#[test]
fn a_file_with_too_many_names_is_copied_and_stays_one_file() {
    const NAMES: usize = 40_000;
    let place = Place::new("overlay", Some("ext4"));
    let driver = &place.driver;
    let [below, above] = [SnapshotId(1), SnapshotId(2)];
    driver.create(below, &[]).unwrap();
    let root = driver.path(below);
    fs::write(root.join("0"), "content").unwrap();
    fs::set_permissions(root.join("0"), fs::Permissions::from_mode(0o4750)).unwrap();
    for name in 1..NAMES {
        fs::hard_link(root.join("0"), root.join(name.to_string())).unwrap();
    }
    fs::write(root.join("alone"), "").unwrap();
    driver.seal(below).unwrap();
    driver.create(above, &[below]).unwrap();
    driver.seal(above).unwrap();
    let top = driver.path(above);
    let of =
        |path: PathBuf| path.metadata().map(|meta| (meta.ino(), meta.nlink(), meta.mode() & 0o7777)).unwrap();
    let (copied, kept) = (of(top.join("0")), of(root.join("0")));
    assert_eq!((copied.1, copied.2), (NAMES as u64, 0o4750));
    assert_eq!((kept.1, kept.2), (NAMES as u64, 0o4750));
    assert_ne!(copied.0, kept.0);
    for name in 0..NAMES {
        assert_eq!(of(top.join(name.to_string())).0, copied.0, "{name}");
    }
    assert_eq!(fs::read_to_string(top.join("39999")).unwrap(), "content");
    assert_eq!(of(top.join("alone")).0, of(root.join("alone")).0);
}
