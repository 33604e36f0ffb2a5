//! What a kill or a power cut leaves of a driver where it keeps more than a tree.

use std::os::fd::AsFd as _;

use outcrop::db::Db;
use outcrop::snapshot::Snapshots;
use outcrop::sys::btrfs;

use super::*;

/// The note is on disk, its tree is not, and the row that stood before both is lost.
#[test]
fn the_note_of_a_limit_whose_row_is_lost_goes_without_its_tree() {
    let sandbox = Sandbox::new();
    let db = Db::open(&sandbox.root()).unwrap();
    let snapshots = Snapshots::open(&db, Some("vfs"), &Options::default()).unwrap();
    let note = sandbox.root().join("vfs/limits/777");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    fs::write(&note, "1000000").unwrap();
    assert_eq!(snapshots.driver().list().unwrap(), [SnapshotId(777)]);
    snapshots.remove_strays().unwrap();
    assert!(!note.exists());
    assert_eq!(snapshots.driver().list().unwrap(), []);
}

#[test]
fn the_note_of_a_quota_is_found_and_goes_without_its_subvolume() {
    let bench = Bench::on_filesystem("btrfs", "btrfs");
    let (lost, kept) = (bench.create(&[]), bench.create(&[]));
    for id in [lost, kept] {
        bench.driver.limit(id, 16 << 20).unwrap();
    }
    let subvolumes = fs::File::open(bench.root.join("btrfs/subvolumes")).unwrap();
    let name = std::ffi::CString::new(lost.to_string()).unwrap();
    btrfs::destroy(subvolumes.as_fd(), &name).unwrap();
    let mut list = bench.driver.list().unwrap();
    list.sort();
    assert_eq!(list, [lost, kept]);
    bench.driver.remove(lost).unwrap();
    assert_eq!(names(&bench.root.join("btrfs/quotas")), [kept.to_string()]);
    bench.driver.remove(kept).unwrap();
    assert_eq!(bench.driver.list().unwrap(), []);
    assert_eq!(names(&bench.root.join("btrfs/quotas")), [""; 0]);
}
