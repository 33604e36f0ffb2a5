//! What trees take, and may take.

use super::*;

/// Where the filesystem can, a copy takes no room.
#[test]
fn vfs_shares_blocks_by_reflink() {
    for kind in ["xfs", "btrfs"] {
        let bench = Bench::on_filesystem("vfs", kind);
        let below = bench.base(|root| fs::write(root.at("big"), vec![7; 64 << 20]).unwrap());
        let used = || {
            rustix::fs::syncfs(fs::File::open(&bench.root).unwrap()).unwrap();
            let stat = rustix::fs::statvfs(&bench.root).unwrap();
            (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        };
        let before = used();
        let child = bench.on(&below, |_| {});
        assert!(used() < before + (8 << 20), "{kind}: {before} -> {}", used());
        assert_eq!(fs::read(bench.view(&child).at("big")).unwrap(), vec![7; 64 << 20]);
    }
}

/// Where the file system keeps no quotas the user is told what would.
#[test]
fn a_limit_that_cannot_be_kept_is_refused() {
    for (driver, kind) in [("overlay2", "xfs"), ("vfs", "tmpfs")] {
        let bench = Bench::on_filesystem(driver, kind);
        let id = bench.create(&[]);
        let error = bench.driver.limit(id, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{}", error.one_line());
        assert!(error.hint_text().unwrap().contains("size="), "{:?}", error.hint_text());
    }
}
