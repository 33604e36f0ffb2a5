//! `build --squash`: one layer of all that was built, judged by other tools.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use serde_json::Value;

use crate::sandbox::{Sandbox, based, build_offline as build, tool};

/// Files that come and go, directories in the place of files and the other way round, names of one file in two layers.
const CHANGES: &str = "FROM base AS first
COPY file /gone
RUN mkdir -p /d/e /was/dir && echo one > /d/one && ln /d/one /d/two && ln -s one /d/link && chown 12:34 /d/e && echo x > /was/dir/x
FROM first
RUN rm /gone /etc/group && rm -r /was && echo file > /was && ln /d/two /d/three && chmod 4711 /d/one
RUN rm -r /home && mkdir /home && echo new > /home/new && mv /root /moved && mknod /d/null c 1 3
RUN rm -r /d/e && mkdir -m 700 /d/e && rm /bin/yes && mkdir /bin/yes && touch -d @1000000000 /bin/yes/in
LABEL a=b
";

fn sandbox(dockerfile: &str) -> Sandbox {
    let sandbox = based(dockerfile);
    sandbox.file("file", "hello\n");
    sandbox
}

fn config(sandbox: &Sandbox, layout: &str) -> Value {
    let text = tool(sandbox, &["skopeo", "inspect", "--config", &format!("oci:{layout}:1")]);
    serde_json::from_str(&text).unwrap()
}

/// What umoci makes of an image; times of directories are those of the host where no layer says them.
fn unpacked(sandbox: &Sandbox, layout: &str) -> BTreeMap<String, String> {
    let to = format!("../of-{layout}");
    tool(sandbox, &["umoci", "unpack", "--image", &format!("{layout}:1"), &to]);
    let root = sandbox.context().join(&to).join("rootfs");
    let mut found = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), said(&path));
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path);
            }
        }
    }
    found
}

fn said(path: &Path) -> String {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let owner = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    if kind.is_dir() {
        return owner;
    }
    let more = if kind.is_symlink() {
        path.read_link().unwrap().to_str().unwrap().to_owned()
    } else if kind.is_char_device() {
        meta.rdev().to_string()
    } else {
        let bytes = std::fs::read(path).unwrap();
        format!(
            "{} bytes, {}",
            bytes.len(),
            bytes.escape_ascii().take(80).map(char::from).collect::<String>()
        )
    };
    format!("{owner} {} {} {more}", meta.nlink(), meta.mtime())
}

#[test]
fn a_squashed_image_shows_the_same_files_in_one_layer_on_its_base() {
    let sandbox = sandbox(CHANGES);
    let plain =
        build(&sandbox, &["-t", "it:1", "-o", "type=oci,dest=plain,tar=false", "--load", "--iidfile", "iid"]);
    plain.ok();
    build(&sandbox, &["-t", "it:1", "--squash", "-o", "type=oci,dest=squashed,tar=false", "--load"]).ok();
    assert_eq!(unpacked(&sandbox, "squashed"), unpacked(&sandbox, "plain"));

    let (plain, squashed) = (config(&sandbox, "plain"), config(&sandbox, "squashed"));
    assert_eq!(squashed["config"], plain["config"]);
    let layers = |config: &Value| config["rootfs"]["diff_ids"].as_array().unwrap().clone();
    assert_eq!((layers(&plain).len(), layers(&squashed).len()), (6, 2));
    assert_eq!(layers(&plain)[0], layers(&squashed)[0], "the base stays as it is");
    let history = squashed["history"].as_array().unwrap();
    let empty: Vec<bool> = history.iter().map(|entry| entry["empty_layer"] == true).collect();
    assert_eq!(empty, [false, true, true, true, true, true, true, false]);
    for (entry, before) in std::iter::zip(history, plain["history"].as_array().unwrap()) {
        assert_eq!(entry["created_by"], before["created_by"]);
    }
    let image = std::fs::read_to_string(sandbox.context().join("iid")).unwrap();
    let base = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", "base"]).ok().line();
    assert_eq!(history[7]["comment"], format!("merge {} to {base}", image.trim()));

    // What came and went is in no layer.
    let layer = &layers(&squashed)[1];
    let id = sandbox.outcrop(&["inspect", "-f", "{{json .RootFS.Layers}}", "it:1"]).ok().json();
    assert_eq!(id[1], *layer);
    let archive = tool(
        &sandbox,
        &[
            "sh",
            "-c",
            "cd squashed/blobs/sha256; for b in *; do tar -tzf $b 2>/dev/null | grep -q 'd/three' && tar -tzf $b; done; true",
        ],
    );
    let names: Vec<&str> = archive.lines().collect();
    assert!(names.contains(&"etc/.wh.group"), "{names:?}");
    assert!(!archive.contains("gone"), "{names:?}");
    sandbox.check();
}

#[test]
fn an_unchanged_build_is_squashed_once_and_a_label_merges_nothing_again() {
    let sandbox = sandbox(CHANGES);
    let squash = |more: &[&str]| build(&sandbox, &[&["--squash", "-q"], more].concat()).ok().line();
    let first = squash(&[]);
    assert_eq!(squash(&[]), first);
    assert_eq!(squash(&["--no-cache"]).len(), first.len());
    let labelled = squash(&["--label", "more=1"]);
    assert_ne!(labelled, first);
    let layers = |id: &str| sandbox.outcrop(&["inspect", "-f", "{{json .RootFS.Layers}}", id]).ok().json();
    assert_eq!(layers(&labelled), layers(&first));
    // The image that was squashed is no image of its own to people, and is gone with the squashed one.
    sandbox.outcrop(&["rmi", "-f", &labelled, &first]).ok();
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    assert_eq!(squash(&[]).len(), first.len());
    sandbox.check();
}

#[test]
fn a_squashed_image_dated_by_the_build_is_the_same_in_every_store() {
    for driver in ["overlay2", "vfs"] {
        let [first, second] = [1, 2].map(|_| {
            let sandbox = Sandbox::new().driver(driver);
            sandbox.base_image("base");
            sandbox.dockerfile(CHANGES);
            sandbox.file("file", "hello\n");
            let dated = ["--squash", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1600000000"];
            let id = build(&sandbox, &dated).ok().line();
            assert_eq!(build(&sandbox, &dated).ok().line(), id);
            sandbox.check();
            // The base has the time of its import.
            sandbox.outcrop(&["inspect", "-f", "{{.Created}} {{json .RootFS.Layers}}", &id]).ok().line()
        });
        assert_eq!(first, second, "{driver}");
    }
}

#[test]
fn an_image_from_nothing_is_squashed_to_one_layer_and_one_without_layers_stays() {
    let sandbox = sandbox(
        "FROM scratch AS all\nCOPY file /a\nCOPY file /b\nFROM all\nCOPY file /b\nFROM base AS bare\nLABEL a=b\n",
    );
    let target = ["--target", "1", "--squash", "-t", "it:1", "-o", "type=oci,dest=it,tar=false", "--load"];
    build(&sandbox, &target).ok();
    let config = config(&sandbox, "it");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    let said = config["history"][3]["comment"].as_str().unwrap();
    assert!(said.starts_with("create new from sha256:"), "{said}");
    assert_eq!(unpacked(&sandbox, "it").into_keys().collect::<Vec<_>>(), ["a", "b"]);
    let bare = build(&sandbox, &["--target", "bare", "-q"]).ok().line();
    assert_eq!(build(&sandbox, &["--target", "bare", "-q", "--squash"]).ok().line(), bare);
    sandbox.check();
}

#[test]
fn the_history_of_a_squashed_image_leads_back_to_its_base() {
    let sandbox = sandbox("FROM base\nRUN echo 1 > /one\nRUN echo 2 > /two\n");
    build(&sandbox, &["--squash", "-t", "it"]).ok();
    let ids = sandbox.outcrop(&["history", "-q", "--no-trunc", "it"]).ok().lines();
    let base = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", "base"]).ok().line();
    assert_eq!((ids.len(), &ids[3]), (4, &base));
    sandbox.outcrop(&["rollback", "it", "--to", "1"]).ok();
    assert_eq!(sandbox.outcrop(&["inspect", "-f", "{{.Id}}", "it"]).ok().line(), base);
    sandbox.check();
}
