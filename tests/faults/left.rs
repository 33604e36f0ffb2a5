//! What a store must not hold when nobody is at work in it: rows, directories, locks.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use crate::sandbox::Sandbox;

/// One value from the index, as SQLite prints it.
pub(super) fn ask(sandbox: &Sandbox, sql: &str) -> String {
    ask_file(&sandbox.root().join("outcrop.db"), sql)
}

pub(super) fn ask_file(file: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg("-batch").arg(file).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}: {}", sql, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

pub(super) fn names(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// As sentences: whatever is there and hangs on nothing that lives.
pub(super) fn half_written(sandbox: &Sandbox) -> Vec<String> {
    let root = sandbox.root();
    let mut left = Vec::new();
    let mut rows = |what: &str, sql: &str| {
        let found = ask(sandbox, sql);
        left.extend(found.lines().map(|line| format!("{what}: {line}")));
    };
    rows(
        "snapshot",
        "select id, state from snapshot where state <> 'sealed' and id not in (select snapshot from container)",
    );
    rows(
        "snapshot of nothing",
        "select id from snapshot where state = 'sealed' and layer is null and chain is null",
    );
    rows("intent", "select what, number, detail, lease from intent");
    rows("build", "select id, status from build where status = 'running'");
    rows("container", "select id, state from container where state in ('running', 'removing')");
    rows(
        "layer without a tree",
        "select distinct layer.id from chain join layer on layer.id = chain.layer where not exists (select 1 from chain join snapshot on snapshot.chain = chain.chain_id or snapshot.layer = chain.layer where chain.layer = layer.id)",
    );

    let driver = ask(sandbox, "select value from meta where key = 'driver'");
    let listed = |sql: &str| ask(sandbox, sql).lines().map(str::to_owned).collect::<BTreeSet<String>>();
    let mut compare = |what: &str, there: BTreeSet<String>, known: BTreeSet<String>| {
        left.extend(there.difference(&known).map(|name| format!("{what} without a row: {name}")));
        left.extend(known.difference(&there).map(|name| format!("a row without its {what}: {name}")));
    };
    let mut trees = names(&root.join(if driver == "vfs" { "vfs/dir" } else { &driver }));
    trees.remove("empty");
    compare("tree", trees, listed(&format!("select id from snapshot where driver = '{driver}'")));
    let recipes = names(&root.join("layers"));
    let recipes = recipes.iter().map(|name| name.trim_end_matches(".at").to_owned()).collect();
    compare("recipe", recipes, listed("select lower(hex(diff_id)) from layer"));
    compare("blob", names(&root.join("blobs/sha256")), listed("select lower(hex(digest)) from blob"));
    compare("container", names(&root.join("containers")), listed("select id from container"));
    let files = root.join("files.db");
    let numbered = ask_file(&files, "select distinct layer from file order by 1");
    compare(
        "set of rows",
        numbered.lines().map(str::to_owned).collect(),
        listed("select id from layer where row_count > 0"),
    );

    for dir in ["ingest", "trash"] {
        left.extend(names(&root.join(dir)).into_iter().map(|name| format!("{dir}/{name}")));
    }
    left.extend(strangers(sandbox));
    left.extend(held_locks(&root.join("locks")));
    left.extend(sandbox.leftovers());
    left
}

/// What does not belong at the top of a store.
pub(super) fn strangers(sandbox: &Sandbox) -> Vec<String> {
    const KNOWN: [&str; 18] = [
        "blobs",
        "cache",
        "containers",
        "files.db",
        "files.db-shm",
        "files.db-wal",
        "ingest",
        "layers",
        "locks",
        "outcrop.db",
        "outcrop.db-shm",
        "outcrop.db-wal",
        "overlay2",
        "reserve",
        "tags.log",
        "trash",
        "vfs",
        "volumes",
    ];
    let there = names(&sandbox.root());
    let mut strange: Vec<String> = there
        .iter()
        .filter(|name| !KNOWN.contains(&name.as_str()))
        .map(|name| format!("stranger: {name}"))
        .collect();
    let contexts = names(&sandbox.root().join("cache/context"));
    strange
        .extend(contexts.iter().filter(|name| name.len() != 64).map(|name| format!("cache/context/{name}")));
    strange
}

/// Locks that somebody holds. Nobody runs, so nobody may.
fn held_locks(locks: &Path) -> Vec<String> {
    let mut held = Vec::new();
    for name in names(locks) {
        let file = fs::File::open(locks.join(&name)).unwrap();
        let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(file.as_fd(), how).is_err() {
            held.push(format!("held: locks/{name}"));
        } else if name.starts_with("lease-") {
            held.push(format!("left: locks/{name}"));
        }
    }
    held
}
