//! A store that cannot be used: no permission, made by a newer version, broken. Each a clear error, said whole.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::left::{ask_file, names};
use crate::sandbox::{Outcome, Sandbox};

const NOBODY: u32 = 65_534;

/// The words of the sandbox's own paths differ from run to run.
fn complaint(sandbox: &Sandbox, outcome: &Outcome) -> String {
    outcome.stderr().replace(sandbox.dir().to_str().unwrap(), "DIR")
}

/// A copy of the binary where everybody may execute it, and a command that runs it as nobody.
fn as_nobody(sandbox: &Sandbox, args: &[&str]) -> Command {
    let binary = sandbox.dir().join("outcrop");
    if !binary.exists() {
        crate::sandbox::copy_program(env!("CARGO_BIN_EXE_outcrop").as_ref(), &binary);
    }
    fs::set_permissions(sandbox.dir(), Permissions::from_mode(0o755)).unwrap();
    let template = sandbox.command(args);
    let mut command = Command::new(&binary);
    command.args(template.get_args()).current_dir("/").env_clear().uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn somebody_elses_store_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let before = names(&sandbox.root());
    let refused = Outcome::of(&mut as_nobody(&sandbox, &["import", "/dev/null"])).fails(1);
    assert_eq!(
        complaint(&sandbox, &refused),
        "error: looking for a store in DIR/root
  because: Permission denied (os error 13)
hint: use the store as its owner, with `sudo`, or name one of your own with --root
"
    );
    assert_eq!(names(&sandbox.root()), before);
}

#[test]
fn a_store_cannot_be_made_where_one_may_not_write() {
    let sandbox = Sandbox::new();
    let refused = Outcome::of(&mut as_nobody(&sandbox, &["import", "/dev/null"])).fails(1);
    assert_eq!(
        complaint(&sandbox, &refused),
        "error: making the store's directory DIR/root
  because: Permission denied (os error 13)
hint: use the store as its owner, with `sudo`, or name one of your own with --root
"
    );
    assert!(!sandbox.root().exists());
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_stays_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let index = sandbox.root().join("outcrop.db");
    ask_file(&index, "pragma user_version = 99; pragma wal_checkpoint(truncate)");
    let size = fs::metadata(&index).unwrap().size();
    let refused = sandbox.outcrop(&["import", sandbox.busybox_archive().to_str().unwrap()]).fails(1);
    assert_eq!(
        complaint(&sandbox, &refused),
        "error: the store was made by a newer outcrop: its outcrop.db has version 99, this one knows 2
hint: use that outcrop, or another store with --root
"
    );
    assert_eq!(fs::metadata(&index).unwrap().size(), size);
    assert_eq!(ask_file(&index, "pragma user_version"), "99");
}

#[test]
fn an_index_that_is_no_database_is_corrupt() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let index = sandbox.root().join("outcrop.db");
    for side in ["outcrop.db-wal", "outcrop.db-shm"] {
        drop(fs::remove_file(sandbox.root().join(side)));
    }
    fs::write(&index, "This is no database.\n".repeat(1000)).unwrap();
    let refused = sandbox.outcrop(&["import", sandbox.busybox_archive().to_str().unwrap()]).fails(1);
    assert_eq!(
        complaint(&sandbox, &refused),
        "error: opening the database DIR/root/outcrop.db
  because: file is not a database
hint: `outcrop system check` says what is wrong, `outcrop system check --rebuild-index` makes the store's databases again
"
    );
}
