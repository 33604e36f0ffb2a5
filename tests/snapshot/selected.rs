//! Which driver a store gets.

use super::*;

#[test]
fn the_first_driver_that_works_is_selected_and_the_reason_is_kept() {
    let sandbox = Sandbox::new();
    let selected = select(sandbox.dir(), None).unwrap();
    assert_eq!(selected.driver.name(), "overlay2");
    assert!(selected.reason.starts_with("kernel overlayfs on "), "{}", selected.reason);
    assert!(selected.refused.is_empty());
}

/// The kernel has no overlay on overlay with an upper, so there the next one serves.
#[test]
fn where_overlayfs_cannot_work_vfs_is_selected() {
    let bench = Bench::new("overlay2");
    let below = bench.base(|_| {});
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    let selected = select(&mounted.path(), None).unwrap();
    assert_eq!(selected.driver.name(), "vfs");
    assert_eq!(selected.reason, "copies on overlayfs");
    let (name, why) = &selected.refused[0];
    assert_eq!(*name, "overlay2");
    assert!(why.starts_with("overlayfs cannot be mounted with its upper directory on overlayfs"), "{why}");
    let probed = driver::probe_all(&setting(&mounted.path()));
    // Each probe works under a name of its own.
    let (name, refused) = &probed[0];
    let again = refused.as_ref().unwrap_err();
    assert_eq!((*name, &again[..70]), ("overlay2", &why[..70]));
    assert_eq!(*probed.last().unwrap(), ("vfs", Ok("copies on overlayfs".into())));
    let Err(error) = select(&mounted.path(), Some("overlay2")) else { panic!("it works") };
    assert!(error.hint_text().is_some());
    let root = mounted.names("");
    assert_eq!(root, ["trash", "vfs"], "a probe leaves nothing");
}

#[test]
fn an_unknown_driver_is_refused_with_the_names_of_all() {
    let sandbox = Sandbox::new();
    let Err(error) = select(sandbox.dir(), Some("overlay3")) else { panic!("it is there") };
    assert_eq!(error.kind(), Kind::Invalid);
    let names: Vec<&str> = driver::TABLE.iter().map(|entry| entry.name).collect();
    assert_eq!(error.hint_text(), Some(&*format!("there are: {}", names.join(", "))));
}
