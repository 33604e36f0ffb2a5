//! The behaviour suite of storage drivers: every driver runs all of it by one line at the end; and
//! `Snapshots` on each.

mod bench;
mod kept;
mod left;
mod removed;
mod room;
mod selected;
mod stacks;
mod worked_on;

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use outcrop::error::Kind;
use outcrop::snapshot::driver::{self, Driver, Mount, Options, Setting, Shape, SnapshotId};
use outcrop::sys::mount::{Attributes, detached};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

pub(crate) use self::bench::new_disk;
use self::bench::*;
use self::kept::*;
use self::removed::*;
use self::stacks::*;
use self::worked_on::*;
use crate::sandbox::Sandbox;
use crate::zfs::Pool;

macro_rules! suite {
    ($dollar:tt $($test:ident)*) => {
        macro_rules! driver {
            ($dollar name:ident) => {
                mod $dollar name {
                    $(
                        #[test]
                        fn $test() {
                            super::$test(&super::Bench::new(stringify!($dollar name)));
                        }
                    )*
                }
            };
            ($dollar name:ident in_a_machine on $dollar kind:ident) => {
                mod $dollar kind {
                    $(
                        #[test]
                        #[ignore = "tests/devicemapper.rs runs it in a machine"]
                        fn $test() {
                            super::super::$test(&super::super::Bench::$dollar name(stringify!($dollar kind)));
                        }
                    )*
                }
            };
            ($dollar name:ident on $dollar kind:ident) => {
                mod $dollar kind {
                    $(
                        #[test]
                        fn $test() {
                            let (name, kind) = (stringify!($dollar name), stringify!($dollar kind));
                            super::super::$test(&super::super::Bench::on_filesystem(name, kind));
                        }
                    )*
                }
            };
        }
    };
}

suite! { $
    what_is_written_is_seen_from_then_on
    a_view_cannot_be_written
    a_view_of_nothing_is_an_empty_directory
    the_driver_itself_serves
    stacks_of_many_layers_show_through
    a_child_changes_nothing_below_it
    two_children_do_not_see_each_other
    what_was_deleted_stays_so_until_it_is_made_again
    a_replaced_directory_hides_what_was_in_it
    names_change_their_kind
    hard_links_stay_one_file
    devices_fifos_and_sockets_are_kept
    owners_modes_xattrs_and_capabilities_are_kept
    times_are_kept_those_of_directories_too
    holes_stay_holes
    any_name_is_kept
    the_root_keeps_its_owner_mode_and_xattrs
    trees_deeper_than_any_path_are_kept_and_removed
    trees_of_many_levels_are_removed
    what_even_root_may_not_delete_is_removed
    a_snapshot_is_removed_while_it_is_mounted
    everything_but_create_may_be_done_again
    a_parent_may_go_before_its_child_is_removed
    the_rest_of_a_killed_process_is_removed
    a_tree_is_written_without_a_mount
    a_delta_holds_the_changes_alone
    a_copy_is_made_of_what_is_not_sealed
    a_mount_is_made_again_after_it_is_gone
    an_open_file_outlives_its_mount
    eight_writers_at_once
}

driver!(overlay2);
driver!(zfs);
driver!(overlay);
driver!(vfs);

mod in_a_machine;

/// The plain root of a test is on whatever there is.
mod btrfs_on {
    driver!(btrfs on btrfs);
}
mod overlay_on {
    driver!(overlay on xfs);
    driver!(overlay on btrfs);
    driver!(overlay on tmpfs);
}
mod overlay2_on {
    driver!(overlay2 on xfs);
    driver!(overlay2 on btrfs);
    driver!(overlay2 on tmpfs);
}
mod vfs_on {
    driver!(vfs on xfs);
    driver!(vfs on btrfs);
    driver!(vfs on tmpfs);
}

/// Without CAP_SYS_ADMIN on the host: overlayfs without `userxattr` mounts there, and fails on what it deletes.
#[test]
fn overlay2_works_in_a_user_namespace() {
    let inside = "OUTCROP_TEST_IN_NAMESPACE";
    if std::env::var_os(inside).is_none() {
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "--propagation", "unchanged"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "snapshot::overlay2_works_in_a_user_namespace", "--nocapture"])
            .env(inside, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
        return;
    }
    for test in [
        what_is_written_is_seen_from_then_on,
        a_view_cannot_be_written,
        what_was_deleted_stays_so_until_it_is_made_again,
        a_replaced_directory_hides_what_was_in_it,
        names_change_their_kind,
        hard_links_stay_one_file,
        a_copy_is_made_of_what_is_not_sealed,
        the_rest_of_a_killed_process_is_removed,
        everything_but_create_may_be_done_again,
        eight_writers_at_once,
    ] {
        test(&Bench::new("overlay2"));
    }
    let bench = Bench::new("overlay2");
    let first = bench.base(|root| fs::create_dir(root.at("dir")).unwrap());
    let second = bench.on(&first, |root| {
        fs::remove_dir(root.at("dir")).unwrap();
        fs::create_dir(root.at("dir")).unwrap();
    });
    assert_eq!(xattr(&bench.driver.path(second[0]).join("dir"), "user.overlay.opaque"), b"y");
    let selected = select(&bench.root, None).unwrap();
    assert!(selected.reason.ends_with(", in a user namespace"), "{}", selected.reason);
}

#[test]
fn every_driver_of_the_table_runs_the_suite() {
    let text = concat!(include_str!("snapshot.rs"), include_str!("snapshot/in_a_machine.rs"));
    for entry in driver::TABLE {
        let name = entry.name;
        let lines = [
            format!("\ndriver!({name});"),
            format!("driver!({name} on "),
            format!("driver!({name} in_a_machine on "),
        ];
        assert!(lines.iter().any(|line| text.contains(line)), "{}", entry.name);
    }
}
