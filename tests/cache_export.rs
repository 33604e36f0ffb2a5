//! Caches that go from one store to another: `--cache-to` and `--cache-from`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outcrop::image::Digest;
use serde_json::Value;

use crate::registry_kit::{RealRegistry, Server};
use crate::sandbox::{Sandbox, build_it as build, find_on_path};

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

pub(crate) fn machine(driver: &str, dockerfile: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    fs::copy(sandbox.busybox_archive(), sandbox.context().join("busybox.tar")).unwrap();
    sandbox.dockerfile(dockerfile);
    sandbox.file("file", "two\n");
    sandbox
}

pub(crate) fn id(sandbox: &Sandbox) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", "it"]).ok().line()
}

/// Instructions that ran.
pub(crate) fn ran(sandbox: &Sandbox) -> Vec<String> {
    let told = sandbox.outcrop(&["explain", "--format", "json"]).ok().json();
    let steps = told["steps"].as_array().unwrap().iter();
    let ran = steps.filter(|step| step["outcome"] == "ran");
    ran.map(|step| step["instruction"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn to(dir: &Path, more: &str) -> String {
    format!("type=local,dest={}{more}", dir.display())
}

pub(crate) fn from(dir: &Path) -> String {
    format!("type=local,src={}", dir.display())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(dir: &Path, digest: &Value) -> PathBuf {
    dir.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

/// Changes what the index of a cache says, and all that names it.
pub(crate) fn edit(dir: &Path, change: &dyn Fn(&mut Value)) {
    let put = |json: &Value, entry: &mut Value| {
        let bytes = serde_json::to_vec(json).unwrap();
        entry["digest"] = Digest::of(&bytes).to_string().into();
        entry["size"] = bytes.len().into();
        fs::write(blob(dir, &entry["digest"]), bytes).unwrap();
    };
    let mut index = read_json(&dir.join("index.json"));
    let mut manifest = read_json(&blob(dir, &index["manifests"][0]["digest"]));
    let mut document = read_json(&blob(dir, &manifest["config"]["digest"]));
    change(&mut document);
    put(&document, &mut manifest["config"]);
    put(&manifest, &mut index["manifests"][0]);
    fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// Of a cache in a directory, by the kind that its manifest says.
pub(crate) fn blobs(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let index = read_json(&dir.join("index.json"));
    let manifest = read_json(&blob(dir, &index["manifests"][0]["digest"]));
    let layers = manifest["layers"].as_array().unwrap().iter();
    let of_kind = layers.filter(|layer| layer["mediaType"].as_str().unwrap().contains(kind));
    of_kind.map(|layer| blob(dir, &layer["digest"])).collect()
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
        // What was brought is the store's own: all but the builder, which nothing stood on.
        fs::remove_dir_all(&cache).unwrap();
        build(&other, &[]).ok();
        assert_eq!(ran(&other).len(), 3, "{driver}");
        assert_eq!(id(&other), id(&first), "{driver}");
        other.check();
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
    let other = machine("overlay2", STAGES);
    build(&other, &["--cache-from", &from(&cache)]).ok();
    assert_eq!(ran(&other), [""; 0]);
    assert_eq!(id(&other), id(&first));
    other.check();
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
    let index = read_json(&cache.join("index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    build(&sandbox, &["--cache-to", &to(&cache, ",mode=max,tag=other")]).ok();
    let index = read_json(&cache.join("index.json"));
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

/// Whose archives were read of a cache: those that are gone when `sandbox` builds from it are not among them.
fn without(cache: &Path, left_out: &[PathBuf], then: impl FnOnce()) {
    let aside = cache.with_extension("aside");
    fs::create_dir(&aside).unwrap();
    for path in left_out {
        fs::rename(path, aside.join(path.file_name().unwrap())).unwrap();
    }
    then();
    for path in left_out {
        fs::rename(aside.join(path.file_name().unwrap()), path).unwrap();
    }
    fs::remove_dir(&aside).unwrap();
}

#[test]
fn nothing_is_read_of_what_no_step_stands_on_and_no_image_holds() {
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, STAGES);
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
        // In the order of the steps: base, three of the builder, WORKDIR, COPY, RUN.
        let archives = blobs(&cache, "tar");
        assert_eq!(archives.len(), 7);
        without(&cache, &archives[1..4], || {
            let other = machine(driver, STAGES);
            let told = build(&other, &["--cache-from", &from(&cache)]).ok().stdout();
            assert!(!told.contains("building again"), "{told}");
            assert_eq!(ran(&other), [""; 0], "{driver}");
            assert_eq!(id(&other), id(&first), "{driver}");
            other.check();
        });
        // A step at the end stands on the image's layers alone.
        without(&cache, &archives[1..4], || {
            let other = machine(driver, &format!("{STAGES}RUN cat /both /both > /last\n"));
            let told = build(&other, &["--cache-from", &from(&cache)]).ok().stdout();
            assert!(!told.contains("building again"), "{told}");
            assert_eq!(ran(&other), ["RUN /bin/sh -c cat /both /both > /last"], "{driver}");
            other.check();
        });
    }
}

#[test]
fn files_are_compared_by_rows_as_they_are_by_themselves() {
    const MANY: &str = "FROM scratch AS base
ADD busybox.tar /
FROM base AS below
RUN mkdir -p /t/gone /t/new/x /t/a/b/c /t/keep && echo 1 > /t/f && ln /t/f /t/g && ln -s f /t/l && ln -s /t/a /t/to && \
    mkfifo /t/fifo && mknod /t/null c 1 3 && touch /t/gone/x /t/new/x/y /t/a-b /t/a/b/c/d /t/keep/k && \
    chown 5:6 /t/f && chmod 6711 /t/a && chmod 000 /t/a-b && ln -s /nowhere /t/dangling
FROM below AS above
RUN rm -r /t/gone /t/new && mkdir /t/new && echo 2 > /t/new/z && rm /t/keep/k && chmod 700 /t/keep && ln /t/g /t/h
RUN echo 3 >> /t/f && mkdir /t/a/late && echo 4 > /t/a/late/f
FROM base
COPY --from=above /t /all
COPY --from=above /t/f /t/g /t/h /t/l /files/
COPY --from=above /t/a* /t/to/b/../late /wild/
COPY --from=above --parents /t/./a/*/f /t/new /parents/
COPY --from=above --exclude=b /t/a /excluded/
COPY --from=above --chown=9:9 /t/to /to
COPY --from=above --link / /root
COPY --from=above /t/n?w/z /t/*/k* /t/keep /named/
RUN --mount=type=bind,from=above,source=/t/a,target=/m ls -R /m > /listed
";
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, MANY);
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
        let archives = blobs(&cache, "tar");
        without(&cache, &archives[1..4], || {
            let other = machine(driver, MANY);
            let told = build(&other, &["--cache-from", &from(&cache)]).ok().stdout();
            assert!(!told.contains("building again"), "{told}");
            assert_eq!(ran(&other), [""; 0], "{driver}");
            assert_eq!(id(&other), id(&first), "{driver}");
            other.check();
        });
    }
}

/// What is changed in an index.
type Lie<'l> = &'l dyn Fn(&mut Value);

#[test]
fn a_cache_that_lies_is_found_out_before_anything_stands_on_it() {
    let first = machine("overlay2", STAGES);
    let cache = first.dir().join("cache");
    let whole = first.dir().join("whole");
    build(&first, &["--cache-to", &to(&whole, ",mode=max")]).ok();
    let swap = |document: &mut Value, field: &str, a: usize, b: usize| {
        let (one, other) = (document["layers"][a][field].clone(), document["layers"][b][field].clone());
        (document["layers"][a][field], document["layers"][b][field]) = (other, one);
    };
    let lies: [(&str, Lie); 8] = [
        ("is taken for another archive", &|document| swap(document, "archive", 1, 3)),
        ("has the contents of another", &|document| swap(document, "content_id", 0, 6)),
        ("has the contents of another", &|document| swap(document, "content_id", 1, 3)),
        ("has the files of another", &|document| swap(document, "rows", 1, 3)),
        ("is another", &|document| swap(document, "diff_id", 4, 6)),
        ("has another key", &|document| document["records"][2]["key_text"] = "{}".into()),
        ("names no layer", &|document| document["records"][2]["layer"] = 700.into()),
        ("is of another version", &|document| document["version"] = 2.into()),
    ];
    let list = |sandbox: &Sandbox| {
        let words = ["run", "--rm", "--network", "none", "it", "find", "/app", "/both"];
        sandbox.outcrop(&words).ok().stdout()
    };
    for (what, lie) in lies {
        let copied = std::process::Command::new("cp").arg("-r").args([&whole, &cache]).status().unwrap();
        assert!(copied.success());
        edit(&cache, lie);
        let other = machine("overlay2", STAGES);
        let told = build(&other, &["--cache-from", &from(&cache)]).ok().stdout();
        assert_eq!(list(&other), list(&first), "{what}\n{told}");
        other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("one\ntwo\n");
        other.check();
        fs::remove_dir_all(&cache).unwrap();
    }
}

#[test]
fn whoever_is_killed_while_a_cache_is_read_or_written_leaves_nothing_wrong() {
    let first = machine("overlay2", STAGES);
    build(&first, &[]).ok();
    let cache = first.dir().join("cache");
    let other = machine("overlay2", STAGES);
    let args = |flag: &str, cache: String| ["build", "-q", "-t", "it", flag, &cache, "."].map(str::to_owned);
    for milliseconds in [30, 60, 90, 120, 180, 240, 300] {
        let kill = |sandbox: &Sandbox, args: &[String]| {
            let mut command = sandbox.command(args);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(milliseconds));
            child.kill().unwrap();
            child.wait().unwrap();
        };
        kill(&first, &args("--cache-to", to(&cache, ",mode=max")));
        first.check();
        // What is there is whole, or nothing.
        kill(&other, &args("--cache-from", from(&cache)));
        other.check();
    }
    build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
    build(&other, &["--cache-from", &from(&cache)]).ok();
    other.check();
    let third = machine("overlay2", STAGES);
    build(&third, &["--cache-from", &from(&cache)]).ok();
    assert_eq!(ran(&third), [""; 0]);
    assert_eq!(id(&third), id(&first));
}

#[test]
fn a_registry_gives_a_fresh_store_the_index_and_the_layers_of_the_image_alone() {
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, STAGES);
        let real = RealRegistry::start(&first);
        let cache = format!("type=registry,ref={}/team/cache:main,mode=max", real.address);
        build(&first, &["--cache-to", &cache]).ok();
        let proxy = Server::before(&real);
        let other = machine(driver, STAGES);
        build(&other, &["--cache-from", &format!("{}/team/cache:main", proxy.address)]).ok();
        assert_eq!(ran(&other), [""; 0], "{driver}");
        assert_eq!(id(&other), id(&first), "{driver}");
        other.check();
        // The index, the rows of the builder's four layers, the archives of the image's four.
        let asked = proxy.asked();
        let blobs = asked.iter().filter(|asked| asked.is_blob()).count();
        assert_eq!(blobs, 1 + 4 + 4, "{driver} {asked:?}");
        // What is known here is not asked for again.
        build(&other, &["--cache-from", &format!("{}/team/cache:main", proxy.address)]).ok();
        assert_eq!(ran(&other), [""; 0]);
        // The second export of a store that has no builder sends nothing, and keeps what the cache knew of it.
        let third = machine(driver, STAGES);
        let name = format!("{}/team/cache:main", real.address);
        build(&third, &["--cache-from", &name, "--cache-to", &cache]).ok();
        let fourth = machine(driver, STAGES);
        fourth.file("file", "2\n");
        build(&fourth, &["--cache-from", &name]).ok();
        assert_eq!(ran(&fourth).len(), 5, "{driver}");
        fourth.check();
    }
}

#[test]
fn a_cache_moves_from_one_place_to_another_without_being_unpacked() {
    let first = machine("overlay2", STAGES);
    let (one, two) = (first.dir().join("one"), first.dir().join("two"));
    build(&first, &["--cache-to", &to(&one, ",mode=max,compression=gzip")]).ok();
    let other = machine("overlay2", STAGES);
    build(&other, &["--cache-from", &from(&one), "--cache-to", &to(&two, ",mode=max")]).ok();
    assert_eq!(ran(&other), [""; 0]);
    assert_eq!(blobs(&two, "").len(), 14);
    fs::remove_dir_all(&one).unwrap();
    let third = machine("overlay2", STAGES);
    third.file("file", "2\n");
    build(&third, &["--cache-from", &from(&two)]).ok();
    assert_eq!(ran(&third).len(), 5);
    third.check();
}

#[test]
fn an_image_carries_the_records_of_its_own_layers() {
    const ONE: &str = "FROM scratch
ADD busybox.tar /
RUN echo one > /one
COPY file /file
CMD [\"cat\", \"/one\", \"/file\"]
";
    let first = machine("overlay2", ONE);
    let real = RealRegistry::start(&first);
    let layout = first.dir().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    build(&first, &["--cache-to", "type=inline", "-o", &output, "--load"]).ok();
    let name = format!("{}/team/app:1", real.address);
    let copied = std::process::Command::new(find_on_path("skopeo"))
        .args(["copy", "--insecure-policy", "--dest-tls-verify=false", "--quiet", "--preserve-digests"])
        .args([format!("oci:{}:latest", layout.display()), format!("docker://{name}")])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let other = machine("overlay2", ONE);
    build(&other, &["--cache-from", &name, "--cache-to", "type=inline"]).ok();
    assert_eq!(ran(&other), [""; 0]);
    assert_eq!(id(&other), id(&first));
    other.check();
    let third = machine("overlay2", ONE);
    third.file("file", "2\n");
    build(&third, &["--cache-from", &name]).ok();
    assert_eq!(ran(&third), ["COPY file /file", "CMD [\"cat\" \"/one\" \"/file\"]"]);
    third.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("one\n2\n");
    third.check();
    // An image without one, and a name that nothing has.
    let plain = format!("{}/team/none:1", real.address);
    build(&third, &["--cache-from", &plain]).ok().says("building without the cache");
}

const MOUNT: &str = "FROM scratch
ADD busybox.tar /
COPY file /file
RUN --mount=type=cache,id=work,target=/c \
    if [ ! -e /c/big ]; then mkdir -p /c/d && yes | head -c 300000 > /c/big && echo small > /c/d/small && \
    ln /c/d/small /c/d/hard && ln -s big /c/link && : > /c/empty && echo small > /c/same && \
    chown 3:4 /c/same && chmod 4711 /c/same && touch -d @1000000000 /c/big /c/d /c/link; fi; \
    cp /file /c/file && find /c | sort > /listed && stat -c '%n %a %u %g %h %s %Y' /c/big /c/d /c/d/hard /c/same /c/empty >> /listed && \
    md5sum /c/big /c/d/small /c/same >> /listed && readlink /c/link >> /listed
CMD [\"cat\", \"/listed\"]
";

fn shown(sandbox: &Sandbox) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().stdout()
}

#[test]
fn cache_mounts_go_along_where_that_is_asked_for_and_only_new_files_are_sent() {
    let first = machine("overlay2", MOUNT);
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, ",mode=max,mounts=true")]).ok();
    let before = shown(&first);
    assert_eq!(blobs(&cache, "cache.files").len(), 1);
    // A step that runs finds what the other machine left; one that hits needs nothing.
    let other = machine("overlay2", MOUNT);
    build(&other, &["--cache-from", &from(&cache)]).ok();
    assert_eq!(ran(&other), [""; 0]);
    assert!(!other.root().join("cache/mounts").exists());
    other.file("file", "2\n");
    build(&other, &["--cache-from", &from(&cache)]).ok();
    assert_eq!(shown(&other), before);
    other.check();
    // What changed is sent, and the rest stays where it is.
    let sizes = |cache: &Path| {
        let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
        blobs(cache, "cache.files").iter().map(size).collect::<Vec<_>>()
    };
    let one = sizes(&cache);
    build(&other, &["--cache-from", &from(&cache), "--cache-to", &to(&cache, ",mode=max,mounts=true")]).ok();
    let two = sizes(&cache);
    assert_eq!((two.len(), two[0]), (2, one[0]));
    assert!(two[1] < 50, "{two:?}");
    // A mount that is there already stays as it is.
    let third = machine("overlay2", &MOUNT.replace("big", "own"));
    build(&third, &[]).ok();
    third.dockerfile(MOUNT);
    third.file("file", "3\n");
    build(&third, &["--cache-from", &from(&cache)]).ok();
    assert!(shown(&third).contains("/c/own\n"));
    // One that nothing needed goes on to the next cache.
    let fourth = machine("overlay2", MOUNT);
    fourth.file("file", "2\n");
    let next = fourth.dir().join("next");
    build(&fourth, &["--cache-from", &from(&cache), "--cache-to", &to(&next, ",mounts=true")]).ok();
    assert_eq!(ran(&fourth), [""; 0]);
    fourth.file("file", "4\n");
    build(&fourth, &["--cache-from", &from(&next)]).ok();
    assert_eq!(shown(&fourth), before);
    fourth.check();
}

#[test]
fn a_cache_mount_that_is_damaged_begins_empty() {
    let first = machine("overlay2", MOUNT);
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, ",mode=max,mounts=true")]).ok();
    let names = |sandbox: &Sandbox| shown(sandbox).lines().take(9).map(str::to_owned).collect::<Vec<_>>();
    let before = names(&first);
    let index = read_json(&cache.join("index.json"));
    let manifest = read_json(&blob(&cache, &index["manifests"][0]["digest"]));
    let document = read_json(&blob(&cache, &manifest["config"]["digest"]));
    let mount = &document["mounts"][0];
    let paths = [blob(&cache, &mount["rows"]["digest"]), blob(&cache, &mount["packs"]["digest"])];
    for path in blobs(&cache, "cache.files").iter().chain(&paths) {
        let whole = fs::read(path).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(path, damaged).unwrap();
        let other = machine("overlay2", MOUNT);
        other.file("file", "2\n");
        build(&other, &["--cache-from", &from(&cache)]).ok().says("the cache `work` begins empty");
        assert_eq!(names(&other), before);
        fs::write(path, whole).unwrap();
    }
}

#[test]
fn a_copy_that_stands_elsewhere_is_found_in_a_cache() {
    const ONE: &str = "FROM scratch
ADD busybox.tar /
RUN echo one > /one
WORKDIR /work
COPY file dir/file
CMD [\"cat\", \"/work/dir/file\"]
";
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, ONE);
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
        for (instead, runs) in [("RUN echo other > /other\n", 1), ("", 0), ("RUN mkdir /work /work/dir\n", 2)]
        {
            let other = machine(driver, &ONE.replace("RUN echo one > /one\n", instead));
            build(&other, &["--cache-from", &from(&cache)]).ok();
            let ran: Vec<String> = ran(&other).into_iter().filter(|step| !step.starts_with("CMD")).collect();
            assert_eq!(ran.len(), runs + usize::from(runs == 2), "{driver} {instead} {ran:?}");
            other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("two\n");
            other.check();
            build(&other, &[]).ok();
            other.check();
        }
    }
}
