//! What a kill or a power cut leaves of a driver where it keeps more than a tree.

use std::os::fd::AsFd as _;

use outcrop::db::Db;
use outcrop::snapshot::Snapshots;
use outcrop::sys::btrfs;

use super::*;
use crate::crash::steps;
use crate::sandbox::Outcome;

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

/// Or its layers would be looked for by marks that nobody there can write.
#[test]
fn a_store_of_a_user_namespace_is_one_whenever_its_maker_dies() {
    let sandbox = Sandbox::new().driver("overlay2");
    let info = || {
        let real = sandbox.command(&["info"]);
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", "--mount", "--propagation", "unchanged"]);
        inside.arg(real.get_program()).args(real.get_args()).current_dir(sandbox.context());
        inside.env("HOME", sandbox.dir()).env("OUTCROP_STORAGE_DRIVER", "overlay2");
        inside
    };
    Outcome::of(&mut info()).ok();
    let mut step = 0;
    loop {
        fs::remove_dir_all(sandbox.root().join("overlay2")).unwrap();
        step += 1;
        let ran = steps::run(info(), Some(step), sandbox.dir());
        Outcome::of(&mut info()).ok();
        let driver = driver::open(&setting(&sandbox.root()), "overlay2").unwrap();
        let view = driver.view(&[SnapshotId(2), SnapshotId(1)]).unwrap();
        assert!(matches!(view, Mount::Overlay { user: true, .. }), "dead before {step}: {:?}", ran.before);
        if ran.before.is_none() {
            assert_eq!(ran.code, Some(0), "{}", ran.said);
            break;
        }
    }
    assert!(step > 3, "{step}");
}
