//! Caches that go from one store to another: `--cache-to` and `--cache-from`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::{Outcome, Sandbox};

const STAGES: &str = "FROM scratch AS base
ADD busybox.tar /
FROM base AS builder
RUN mkdir /out && echo one > /out/one && ln -s one /out/link && ln /out/one /out/hard
COPY file /src/file
RUN cp /src/file /out/two && chown 7:8 /out/two && chmod 4755 /out/two
FROM base
LABEL a=b
WORKDIR /work
COPY --from=builder /out/ /app/
RUN cat /app/one /app/two > /both
CMD [\"cat\", \"/both\"]
";

fn machine(driver: &str, dockerfile: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    fs::copy(sandbox.busybox_archive(), sandbox.context().join("busybox.tar")).unwrap();
    sandbox.dockerfile(dockerfile);
    sandbox.file("file", "two\n");
    sandbox
}

fn build(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    let mut args = vec!["build", "--progress", "plain", "-t", "it"];
    args.extend(more);
    args.push(".");
    sandbox.outcrop(&args)
}

fn id(sandbox: &Sandbox) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", "it"]).ok().line()
}

/// Instructions that ran.
fn ran(sandbox: &Sandbox) -> Vec<String> {
    let told = sandbox.outcrop(&["explain", "--format", "json"]).ok().json();
    let steps = told["steps"].as_array().unwrap().iter();
    let ran = steps.filter(|step| step["outcome"] == "ran");
    ran.map(|step| step["instruction"].as_str().unwrap().to_owned()).collect()
}

fn to(dir: &Path, more: &str) -> String {
    format!("type=local,dest={}{more}", dir.display())
}

fn from(dir: &Path) -> String {
    format!("type=local,src={}", dir.display())
}

/// Of a cache in a directory, by the kind that its manifest says.
fn blobs(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let read =
        |path: PathBuf| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &serde_json::Value| {
        dir.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let index = read(dir.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]["digest"]));
    let layers = manifest["layers"].as_array().unwrap().iter();
    let of_kind = layers.filter(|layer| layer["mediaType"].as_str().unwrap().contains(kind));
    of_kind.map(|layer| blob(&layer["digest"])).collect()
}

#[test]
fn a_fresh_store_hits_every_step_of_a_cache_and_makes_the_same_image() {
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, STAGES);
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
        let other = machine(driver, STAGES);
        build(&other, &["--cache-from", &from(&cache)]).ok();
        assert_eq!(ran(&other), [""; 0], "{driver}");
        assert_eq!(id(&other), id(&first), "{driver}");
        other.check();
        other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("one\ntwo\n");
        // What was brought is the store's own.
        fs::remove_dir_all(&cache).unwrap();
        build(&other, &[]).ok();
        assert_eq!(ran(&other), [""; 0], "{driver}");
        assert_eq!(id(&other), id(&first), "{driver}");
    }
}

#[test]
fn a_cache_that_is_not_there_is_a_warning() {
    let sandbox = machine("overlay2", STAGES);
    let missing = sandbox.dir().join("missing");
    build(&sandbox, &["--cache-from", &from(&missing)])
        .ok()
        .says("building without the cache `type=local,src=");
}

#[test]
fn what_changed_runs_on_what_the_cache_has() {
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, STAGES);
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
        let other = machine(driver, STAGES);
        other.file("file", "2\n");
        build(&other, &["--cache-from", &from(&cache)]).ok();
        let expected = [
            "COPY file /src/file",
            "RUN /bin/sh -c cp /src/file /out/two && chown 7:8 /out/two && chmod 4755 /out/two",
            "COPY /out/ /app/",
            "RUN /bin/sh -c cat /app/one /app/two > /both",
            "CMD [\"cat\" \"/both\"]",
        ];
        assert_eq!(ran(&other), expected, "{driver}");
        other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("one\n2\n");
        other.check();
    }
}

#[test]
fn a_cache_of_the_image_alone_knows_all_steps_and_has_the_bytes_of_its_layers() {
    let first = machine("overlay2", STAGES);
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, "")]).ok();
    assert_eq!((blobs(&cache, "rows").len(), blobs(&cache, "tar").len()), (7, 4));
    // The builder's steps are known and cannot be stood on: they run.
    let third = machine("overlay2", STAGES);
    third.file("file", "2\n");
    build(&third, &["--cache-from", &from(&cache)])
        .ok()
        .says("building again without what a cache cannot give");
    assert_eq!(ran(&third).len(), 6);
    third.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("one\n2\n");
    third.check();
}

#[test]
fn a_second_export_writes_only_what_is_new() {
    let sandbox = machine("overlay2", STAGES);
    let cache = sandbox.dir().join("cache");
    let export = || build(&sandbox, &["--cache-to", &to(&cache, ",mode=max")]).ok();
    export();
    let inodes = || -> std::collections::BTreeSet<(std::ffi::OsString, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let entries = fs::read_dir(cache.join("blobs/sha256")).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().ino())).collect()
    };
    let before = inodes();
    export();
    assert_eq!(inodes(), before);
    sandbox.file("file", "2\n");
    export();
    let after = inodes();
    assert!(before.is_subset(&after));
    // Four layers with their rows, the index, the manifest.
    assert_eq!(after.len() - before.len(), 4 * 2 + 2);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    build(&sandbox, &["--cache-to", &to(&cache, ",mode=max,tag=other")]).ok();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn damage_to_a_cache_is_told_and_the_steps_run() {
    const TWO: &str = "FROM scratch\nADD busybox.tar /\nRUN echo one > /one\nCMD [\"cat\", \"/one\"]\n";
    let first = machine("overlay2", TWO);
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
    let flip: fn(&mut Vec<u8>) = |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() - 3);
    for damage in [flip, cut] {
        for path in blobs(&cache, "").into_iter().chain([cache.join("index.json"), cache.join("oci-layout")])
        {
            let whole = fs::read(&path).unwrap();
            let mut damaged = whole.clone();
            damage(&mut damaged);
            fs::write(&path, damaged).unwrap();
            let other = machine("overlay2", TWO);
            let told = build(&other, &["--cache-from", &from(&cache)]).ok().stdout();
            // Rows are read where a tree is walked alone.
            let is_rows = whole.starts_with(b"\x28\xb5\x2f\xfd") && ran(&other).is_empty();
            assert!(is_rows || told.contains("cache"), "{}\n{told}", path.display());
            other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("one\n");
            other.check();
            fs::write(&path, whole).unwrap();
        }
    }
}
