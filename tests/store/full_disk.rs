//! A disk without room.

use super::*;

#[test]
fn a_full_disk_is_said_and_what_is_not_needed_can_still_be_removed() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.root()).unwrap();
    // In a mount namespace of its own, whose mounts end with it.
    let script = r#"mount -t tmpfs -o size=24m none "$ROOT" && exec "$0" "$@""#;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["store::does_what_another_test_asks_for", "--exact", "--nocapture", "--test-threads=1"])
        .env("ROOT", sandbox.root())
        .env(CHILD, format!("fill the disk {}", sandbox.root().display()))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn the_reserve_is_given_up_and_made_again() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    db.give_up_reserve().unwrap();
    db.give_up_reserve().unwrap();
    assert!(!sandbox.root().join("reserve").exists());
    db.restore_reserve().unwrap();
    db.restore_reserve().unwrap();
    assert_eq!(fs::metadata(sandbox.root().join("reserve")).unwrap().len(), 8 << 20);
}
