//! `system check`: a clean store is clean, and no damage stays unseen.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outcrop::image::ImageConfig;
use rusqlite::Connection;
use rustix::process::Pid;

use crate::registry_kit::{Image, Layout, RealRegistry};
use crate::sandbox::{Outcome, Sandbox, wait_until};

/// A store with a base of two files and an image of three steps on it, `app`.
fn store(driver: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    let tree = sandbox.dir().join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/motd"), "hello\n").unwrap();
    fs::create_dir(tree.join("srv")).unwrap();
    let tar = sandbox.dir().join("base.tar");
    let packed = std::process::Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    sandbox.outcrop(&["import", tar.to_str().unwrap(), "base"]).ok();
    sandbox.file("a", "first\n");
    sandbox.file("b", "second\n");
    sandbox.dockerfile("FROM base\nCOPY a /srv/a\nENV X=y\nCOPY b /etc/motd\n");
    sandbox.outcrop(&["build", "-t", "app", "."]).ok();
    sandbox
}

const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

fn check(sandbox: &Sandbox) -> Outcome {
    sandbox.outcrop(&["system", "check"])
}

/// The one line of standard output that is a finding, after all was made right again it is clean.
#[track_caller]
fn finds(sandbox: &Sandbox, what: &[&str]) {
    let outcome = sandbox.outcrop(&["system", "check", "-q"]).fails(1);
    let text = outcome.stdout();
    for what in what {
        assert!(text.contains(what), "`{what}` is not in:\n{text}");
    }
}

/// The tree of a snapshot.
fn tree(sandbox: &Sandbox, driver: &str, number: u64) -> PathBuf {
    match driver {
        "overlay2" => sandbox.root().join(format!("overlay2/{number}/diff")),
        _ => sandbox.root().join(format!("vfs/dir/{number}")),
    }
}

/// Where the store keeps the base's `path`, below its root.
fn base_file(driver: &str, path: &str) -> String {
    match driver {
        "overlay2" => format!("overlay2/1/diff/{path}"),
        _ => format!("vfs/dir/1/{path}"),
    }
}

fn keeping_times(path: &Path, change: impl FnOnce()) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    change();
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    keeping_times(path, || fs::write(path, &bytes).unwrap());
}

fn sql(sandbox: &Sandbox, file: &str, text: &str) {
    let connection = Connection::open(sandbox.root().join(file)).unwrap();
    assert!(connection.execute(text, ()).unwrap() > 0, "nothing was changed by: {text}");
}

#[test]
fn a_new_store_is_clean() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let text = check(&sandbox).ok().stdout();
        assert!(text.starts_with("nothing is wrong: 4 images, 3 layers, 3 trees, 4 blobs"), "{text}");
        assert_eq!(sandbox.outcrop(&["system", "check", "-q"]).ok().stdout(), "");
    }
}

#[test]
fn a_flipped_bit_in_a_file_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        flip(&tree(&sandbox, driver, 1).join("etc/passwd"));
        finds(&sandbox, &["(of app:latest, base:latest)", &base_file(driver, "etc/passwd: content differs")]);
    }
}

#[test]
fn a_changed_mode_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let file = tree(&sandbox, driver, 1).join("etc/passwd");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        finds(&sandbox, &[&base_file(driver, "etc/passwd: mode differs")]);
    }
}

#[test]
fn a_missing_file_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let etc = tree(&sandbox, driver, 1).join("etc");
        keeping_times(&etc, || fs::remove_file(etc.join("passwd")).unwrap());
        finds(&sandbox, &[&base_file(driver, "etc/passwd: is missing")]);
    }
}

#[test]
fn an_added_file_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let etc = tree(&sandbox, driver, 1).join("etc");
        keeping_times(&etc, || fs::write(etc.join("new"), "").unwrap());
        finds(&sandbox, &[&base_file(driver, "etc/new: should not be there")]);
    }
}

#[test]
fn a_row_deleted_from_files_db_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        sql(&sandbox, "files.db", "delete from file where layer = 1 and path = x'6574632f706173737764'");
        finds(
            &sandbox,
            &["(of app:latest, base:latest): files.db: 4 rows stand under number 1, and should be 5"],
        );
    }
}

#[test]
fn a_row_changed_in_files_db_is_found() {
    let sandbox = store("overlay2");
    sql(&sandbox, "files.db", "update file set mode = 7 where layer = 1 and path = x'6574632f706173737764'");
    finds(&sandbox, &["files.db: the rows under number 1 are not the layer's"]);
}

#[test]
fn a_tag_that_moved_by_itself_is_found() {
    let sandbox = store("overlay2");
    let swap = "update tag set image = (select image from tag where name like '%/app:latest') where name like '%/base:latest'";
    sql(&sandbox, "outcrop.db", swap);
    finds(&sandbox, &["tag base:latest: outcrop.db: is not what its log says"]);
}

#[test]
fn an_edited_log_of_tags_is_found() {
    let sandbox = store("overlay2");
    let log = sandbox.root().join("tags.log");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("\"import\"", "\"inport\"", 1)).unwrap();
    finds(&sandbox, &["tags: tags.log: does not tell the same moves as the index"]);
}

#[test]
fn a_cut_blob_is_found_with_the_image_it_belongs_to() {
    let sandbox = store("overlay2");
    let id = sandbox.outcrop(&["build", "-q", "-t", "app", "."]).ok().line();
    let hex = id.strip_prefix("sha256:").unwrap();
    let blob =
        fs::OpenOptions::new().write(true).open(sandbox.root().join("blobs/sha256").join(hex)).unwrap();
    blob.set_len(10).unwrap();
    let short = &hex[..12];
    finds(&sandbox, &[&format!("config of image {short} (app:latest): blobs/sha256/{hex}: ")]);
}

#[test]
fn a_damaged_recipe_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let recipes = fs::read_dir(sandbox.root().join("layers")).unwrap();
        for recipe in recipes {
            let recipe = recipe.unwrap().path();
            let name = recipe.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".at") {
                continue;
            }
            flip(&recipe);
            finds(&sandbox, &[&format!("layers/{name}: it does not make the layer's archive again: ")]);
            flip(&recipe);
        }
        check(&sandbox).ok();
    }
}

#[test]
fn a_missing_recipe_is_found() {
    let sandbox = store("overlay2");
    let recipes = fs::read_dir(sandbox.root().join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let recipe = recipes.into_iter().find(|path| path.extension().is_none()).unwrap();
    let name = recipe.file_name().unwrap().to_str().unwrap();
    fs::remove_file(&recipe).unwrap();
    finds(&sandbox, &[&format!("layers/{name}: the layer's recipe is missing")]);
}

#[test]
fn a_missing_tree_is_found() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let tree = tree(&sandbox, driver, 2);
        fs::remove_dir_all(if driver == "vfs" { &tree } else { tree.parent().unwrap() }).unwrap();
        finds(
            &sandbox,
            &[&format!(
                "{}: the layer's tree is missing",
                tree.strip_prefix(sandbox.root()).unwrap().display()
            )],
        );
    }
}

#[test]
fn leftovers_are_no_damage() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let stray = match driver {
            "overlay2" => "overlay2/777",
            _ => "vfs/dir/777",
        };
        fs::create_dir_all(sandbox.root().join(stray)).unwrap();
        fs::write(sandbox.root().join("ingest/half"), "half").unwrap();
        fs::write(sandbox.root().join("layers/making-99"), "half").unwrap();
        fs::write(sandbox.root().join("trash/old"), "half").unwrap();
        fs::write(sandbox.root().join("blobs/sha256/half"), "half").unwrap();
        let text = check(&sandbox).ok().stdout();
        for left in
            ["/777: no row knows it", "ingest/half", "layers/making-99", "trash/old", "blobs/sha256/half"]
        {
            assert!(text.contains(left), "`{left}` is not in:\n{text}");
        }
        assert!(text.contains("\nnothing is wrong: "), "{text}");
        assert_eq!(sandbox.outcrop(&["system", "check", "-q"]).ok().stdout(), "");
    }
}

#[test]
fn findings_are_json_too() {
    let sandbox = store("overlay2");
    let clean = sandbox.outcrop(&["system", "check", "--format", "json"]).ok().json();
    assert_eq!(clean["Clean"], true);
    assert_eq!(clean["Checked"]["Layers"], 3);
    flip(&tree(&sandbox, "overlay2", 1).join("etc/passwd"));
    let damaged = sandbox.outcrop(&["system", "check", "--format", "json"]).fails(1).json();
    assert_eq!(damaged["Findings"][0]["File"], "overlay2/1/diff/etc/passwd");
    assert_eq!(damaged["Findings"][0]["What"], "content differs");
}

/// Everything the databases say that comes back when they are made again: images, layers, stacks, tags, rows.
fn content(sandbox: &Sandbox) -> Vec<String> {
    let mut lines = Vec::new();
    let mut ask = |file: &str, sql: &str| {
        let connection = Connection::open(sandbox.root().join(file)).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values =
                (0..columns).map(|n| format!("{:?}", row.get::<_, rusqlite::types::Value>(n).unwrap()));
            lines.push(values.collect::<Vec<_>>().join(" "));
        }
    };
    ask(
        "outcrop.db",
        "select id, parent, tags, platform, created, instruction, layers, chain_id, size, origin, durable
         from imagedb order by id",
    );
    ask(
        "outcrop.db",
        "select chain_id, parent, diff_id, content_id, depth, size, total_size, tar_size, files, driver, snapshot,
             instruction, durable from layerdb order by chain_id",
    );
    ask("outcrop.db", "select * from tag order by name");
    ask("outcrop.db", "select * from tag_log order by seq");
    ask(
        "outcrop.db",
        "select id, name, image, snapshot, auto_remove, created_at, config from container order by id",
    );
    ask("outcrop.db", "select digest, size from blob order by digest");
    lines
}

/// Rows of files by what their layer is, not by the number it has.
fn rows(sandbox: &Sandbox) -> Vec<String> {
    let connection = Connection::open(sandbox.root().join("files.db")).unwrap();
    let index = sandbox.root().join("outcrop.db");
    connection.execute("attach ?1 as idx", (index.to_str().unwrap(),)).unwrap();
    let mut statement = connection
        .prepare(
            "select hex(diff_id), file.* from file join idx.layer on layer.id = file.layer order by 1, path",
        )
        .unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query(()).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        // Column 1 is the number, `link` a name for a group.
        let values = (0..columns).filter(|n| *n != 1);
        let values = values.map(|n| format!("{:?}", row.get::<_, rusqlite::types::Value>(n).unwrap()));
        lines.push(values.collect::<Vec<_>>().join(" "));
    }
    lines
}

fn remove_databases(sandbox: &Sandbox) {
    for name in ["outcrop.db", "outcrop.db-wal", "outcrop.db-shm", "files.db", "files.db-wal", "files.db-shm"]
    {
        // Whoever closed them last has taken some away.
        let _gone = fs::remove_file(sandbox.root().join(name));
    }
}

/// What was known before is known again, and the store goes on.
#[track_caller]
fn comes_back(sandbox: &Sandbox, damage: impl FnOnce()) {
    let (before, rows_before) = (content(sandbox), rows(sandbox));
    damage();
    sandbox.outcrop(&["system", "check", "--rebuild-index"]).ok().says("made again: 4 images");
    similar_asserts(&before, &content(sandbox));
    similar_asserts(&rows_before, &rows(sandbox));
    check(sandbox).ok().says("nothing is wrong: 4 images, 3 layers, 3 trees, 4 blobs");
}

#[track_caller]
fn similar_asserts(before: &[String], after: &[String]) {
    let missing: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(missing.is_empty() && new.is_empty(), "before: {missing:#?}\nafter: {new:#?}");
}

#[test]
fn a_store_without_databases_comes_back() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        comes_back(&sandbox, || remove_databases(&sandbox));
        sandbox.outcrop(&["build", "-t", "next", "."]).ok();
        check(&sandbox).ok();
    }
}

#[test]
fn databases_of_garbage_are_named_and_come_back() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        let garbage = || fs::write(sandbox.root().join("outcrop.db"), vec![7; 100_000]).unwrap();
        comes_back(&sandbox, || {
            garbage();
            let hint =
                "hint: `outcrop system check` says what is wrong, `outcrop system check --rebuild-index`";
            sandbox.outcrop(&["build", "."]).fails(1).complains("outcrop.db").complains(hint);
            sandbox.outcrop(&["system", "check"]).fails(1).complains("outcrop.db").complains(hint);
        });
        let second = sandbox.root().join("files.db");
        comes_back(&sandbox, || {
            fs::write(second, vec![7; 100_000]).unwrap();
            finds(&sandbox, &["index: files.db: "]);
        });
    }
}

#[test]
fn trees_are_found_without_being_told_where_they_are() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        comes_back(&sandbox, || {
            remove_databases(&sandbox);
            for entry in fs::read_dir(sandbox.root().join("layers")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|ext| ext == "at") {
                    fs::remove_file(path).unwrap();
                }
            }
        });
    }
}

#[test]
fn numbers_of_trees_do_not_come_back() {
    let sandbox = store("overlay2");
    fs::create_dir_all(sandbox.root().join("overlay2/41/diff")).unwrap();
    remove_databases(&sandbox);
    let said = sandbox.outcrop(&["system", "check", "--rebuild-index"]).fails(1);
    said.says("lost: overlay2/41: no image and no container has this tree; it stays where it is");
    sandbox.file("a", "other\n");
    sandbox.outcrop(&["build", "-t", "app", "."]).ok();
    assert!(sandbox.root().join("overlay2/42/diff/srv/a").exists());
}

#[test]
fn an_image_whose_layer_is_lost_is_named_and_its_tag_goes_on_record() {
    for driver in DRIVERS {
        let sandbox = store(driver);
        remove_databases(&sandbox);
        fs::remove_dir_all(tree(&sandbox, driver, 3)).unwrap();
        let said = sandbox.outcrop(&["system", "check", "--rebuild-index"]).fails(1);
        said.says("lost: image ")
            .says("lost: the tag app:latest: its image is not there")
            .says("made again: 3 images, 1 tag");
        check(&sandbox).ok();
        sandbox.outcrop(&["build", "-t", "app", "."]).ok();
        check(&sandbox).ok();
    }
}

/// Commands ran in it, a container stands and one was run and committed, with a volume.
fn used(driver: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    sandbox.base_image("base");
    sandbox.file("a", "first\n");
    let steps = "FROM base\nCOPY a /srv/a\nRUN rm /etc/group && ln /etc/passwd /etc/second && mkfifo /tmp/f && chmod 711 /\n\
                 RUN rm -r /usr && mkdir /usr && echo x > /usr/x && ln -s /usr /link\nENV A=b\n";
    sandbox.dockerfile(steps);
    sandbox.outcrop(&["build", "-t", "app", "."]).ok();
    sandbox.outcrop(&["create", "--name", "idle", "app", "true"]).ok();
    let said = ["run", "--name", "ran", "-v", "data:/data", "--network", "none", "app"];
    let done = ["sh", "-c", "echo 1 > /data/x; echo 2 > /srv/b; rm -f /srv/a; mkdir -p /v"];
    sandbox.outcrop(&[&said[..], &done].concat()).ok();
    sandbox.outcrop(&["commit", "ran", "saved"]).ok();
    sandbox
}

#[test]
fn a_store_in_use_is_clean_at_every_step() {
    for driver in DRIVERS {
        let sandbox = used(driver);
        let clean = || check(&sandbox).ok().says("nothing is wrong").says_not("left over");
        clean().says("2 containers");
        sandbox.outcrop(&["run", "--rm", "--network", "none", "saved", "cat", "/srv/b"]).ok().says("2");
        clean();
        sandbox.outcrop(&["rm", "ran", "idle"]).ok();
        sandbox.outcrop(&["rmi", "saved", "app"]).ok();
        clean();
        // What the cache kept is used again, or made again where it kept no tree.
        sandbox.outcrop(&["build", "-t", "app", "."]).ok();
        clean();
        sandbox
            .outcrop(&["run", "--rm", "--network", "none", "app", "cat", "/srv/a", "/usr/x"])
            .ok()
            .says("first\nx");
        sandbox.outcrop(&["rmi", "app", "base"]).ok();
        sandbox.outcrop(&["system", "prune", "-a", "-f"]).ok();
        clean().says("0 images, 0 layers, 0 trees, 0 blobs, 0 containers");
    }
}

#[test]
fn containers_and_volumes_come_back() {
    for driver in DRIVERS {
        let sandbox = used(driver);
        let before = content(&sandbox);
        let names = |sandbox: &Sandbox| {
            let mut names = sandbox
                .outcrop(&["ps", "-a", "--format", "{{.ID}} {{.Names}} {{.Image}} {{.Command}}"])
                .ok()
                .lines();
            names.sort();
            names
        };
        let (named, changed) = (names(&sandbox), sandbox.outcrop(&["diff", "ran"]).ok().stdout());
        remove_databases(&sandbox);
        sandbox.outcrop(&["system", "check", "--rebuild-index"]).ok().says("2 containers, 1 volume");
        check(&sandbox).ok().says("nothing is wrong").says_not("left over");
        similar_asserts(&before, &content(&sandbox));
        assert_eq!(names(&sandbox), named);
        assert_eq!(sandbox.outcrop(&["diff", "ran"]).ok().stdout(), changed);
        sandbox.outcrop(&["start", "-a", "ran"]).ok();
        sandbox
            .outcrop(&["run", "--rm", "-v", "data:/d", "--network", "none", "saved", "cat", "/d/x", "/srv/b"])
            .ok()
            .says("1\n2");
        sandbox.outcrop(&["rm", "idle", "ran"]).ok();
        check(&sandbox).ok().says("0 containers").says_not("left over");
    }
}

/// A pulled image: a layer of whole directories, and one that leaves them out and links into the one below.
fn pulled(driver: &str) -> (Sandbox, RealRegistry, String) {
    let sandbox = Sandbox::new().driver(driver);
    let tree = sandbox.dir().join("tree");
    fs::create_dir_all(tree.join("etc/deep")).unwrap();
    fs::write(tree.join("etc/a"), "a\n").unwrap();
    fs::set_permissions(tree.join("etc/deep"), fs::Permissions::from_mode(0o700)).unwrap();
    let tar = |name: &str, words: &[&str]| {
        let out = sandbox.dir().join(name);
        let mut tar = std::process::Command::new("tar");
        tar.arg("-f").arg(&out).arg("-C").arg(&tree).args(["--numeric-owner"]).args(words);
        assert!(tar.status().unwrap().success());
        fs::read(out).unwrap()
    };
    let lower = tar("lower.tar", &["-c", "."]);
    fs::hard_link(tree.join("etc/a"), tree.join("etc/b")).unwrap();
    fs::write(tree.join("etc/deep/c"), "c\n").unwrap();
    tar("upper.tar", &["-c", "etc/a", "etc/b", "etc/deep/c"]);
    let upper = tar("upper.tar", &["--delete", "etc/a"]);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [{ "created_by": "lower" }, { "created_by": "upper" }],
    });
    let config = ImageConfig::parse(config.to_string().as_bytes()).unwrap();
    let registry = RealRegistry::start(&sandbox);
    let layout = Layout::single(&sandbox.dir().join("layout"), &Image::made(&[lower, upper], config));
    registry.push(&layout, "team/app:1");
    let name = format!("{}/team/app:1", registry.address);
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    (sandbox, registry, name)
}

#[test]
fn a_pulled_image_comes_back_with_what_it_was_pulled_as() {
    for driver in DRIVERS {
        let (sandbox, registry, name) = pulled(driver);
        check(&sandbox)
            .ok()
            .says("nothing is wrong: 1 image, 2 layers, 2 trees, 4 blobs")
            .says_not("left over");
        let (before, rows_before) = (content(&sandbox), rows(&sandbox));
        let shown = sandbox.outcrop(&["images", "--digests", "--no-trunc"]).ok().stdout();
        remove_databases(&sandbox);
        sandbox.outcrop(&["system", "check", "--rebuild-index"]).ok();
        // Pulled layers now know their instructions, too.
        let after: Vec<String> = content(&sandbox)
            .iter()
            .map(|line| match line.contains("Text(\"linux/amd64\")") {
                true => line.clone(),
                false => line.replace("Text(\"upper\")", "Null").replace("Text(\"lower\")", "Null"),
            })
            .collect();
        similar_asserts(&before, &after);
        similar_asserts(&rows_before, &rows(&sandbox));
        assert_eq!(sandbox.outcrop(&["images", "--digests", "--no-trunc"]).ok().stdout(), shown);
        check(&sandbox)
            .ok()
            .says("nothing is wrong: 1 image, 2 layers, 2 trees, 4 blobs")
            .says_not("left over");
        drop(registry);
        sandbox.dockerfile(&format!("FROM {name}\nCOPY Dockerfile /etc/\n"));
        sandbox.outcrop(&["build", "."]).ok();
        check(&sandbox).ok();
    }
}

#[test]
fn a_compressed_layer_that_is_another_is_found() {
    let (sandbox, _registry, _) = pulled("overlay2");
    sql(&sandbox, "outcrop.db", "update blob_layer set diff_id = (select max(diff_id) from layer)");
    finds(&sandbox, &[": outcrop.db: it unpacks to sha256:"]);
}

#[test]
fn a_check_can_be_stopped() {
    let sandbox = store("overlay2");
    let mut command = sandbox.command(&["system", "check"]);
    // Stopped before it reads: what it waits for is held by us.
    let lock = Connection::open(sandbox.root().join("outcrop.db")).unwrap();
    lock.execute_batch("begin immediate").unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap().to_owned();
        u64::from_str_radix(&line, 16).unwrap() & 2 != 0
    };
    assert!(wait_until(Duration::from_secs(20), caught));
    rustix::process::kill_process(Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    lock.execute_batch("rollback").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
