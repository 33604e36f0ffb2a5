//! Bytes move when a step has to stand on them or an output needs them: base images of which a cache knows enough, and pushes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use outcrop::archive::{Layout as OciLayout, LayoutDir, REF_NAME};
use outcrop::error::Context as _;
use outcrop::image::{Descriptor, Digest, MediaType};
use outcrop::transfer::Sink as _;
use serde_json::Value;

use crate::cache_export::{edit, from, id, machine, ran, to};
use crate::registry_kit::{Image, Layout, RealRegistry, Reply, Server, config_for};
use crate::sandbox::{Outcome, Sandbox, build_it as build, find_on_path};

/// A registry with `team/base:1`: busybox, and on it a layer whose archive names no directory, so that it leans.
struct Team {
    registry: RealRegistry,
    base: Image,
}

impl Team {
    fn new(sandbox: &Sandbox) -> Self {
        let registry = RealRegistry::start(sandbox);
        let tree = sandbox.dir().join("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/deep"), "deep\n").unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--mtime=@1700000000", "--owner=0", "--group=0", "-C"]).arg(&tree);
        let leaning = tar.args(["-cf", "-", "etc/deep"]).output().unwrap();
        assert!(leaning.status.success());
        let mut config = config_for(&"linux/amd64".parse().unwrap());
        config.config.env = Some(vec!["PATH=/bin".into()]);
        let tars = [fs::read(sandbox.busybox_archive()).unwrap(), leaning.stdout];
        let base = Image::made(&tars, config);
        let layout = Layout::single(&sandbox.dir().join("base-layout"), &base);
        registry.push(&layout, "team/base:1");
        Team { registry, base }
    }

    fn proxy(&self) -> Server {
        Server::before(&self.registry)
    }

    /// Of the base image's layers that were fetched, how many.
    fn fetched(&self, proxy: &Server) -> usize {
        let digests: Vec<String> =
            self.base.manifest.layers.iter().map(|layer| layer.digest.to_string()).collect();
        let is_layer = |path: &str| digests.iter().any(|digest| path.ends_with(digest));
        let asked = proxy.asked();
        asked.iter().filter(|asked| asked.method == "GET" && is_layer(&asked.path)).count()
    }
}

/// The base is stood on, copied from and mounted; nothing of it is in the image.
fn apart(registry: impl std::fmt::Display) -> String {
    format!(
        "FROM {registry}/team/base:1 AS builder
RUN mkdir /out && cat /etc/deep > /out/one
WORKDIR /src
COPY file /src/file
RUN --mount=from={registry}/team/base:1,source=/etc,target=/m cat /src/file /m/deep > /out/two
FROM scratch
COPY --from=builder /out/ /app/
COPY --from={registry}/team/base:1 /etc/ /etc/
CMD [\"none\"]
"
    )
}

/// The image stands on the base.
fn on_it(registry: impl std::fmt::Display) -> String {
    format!(
        "FROM {registry}/team/base:1\nRUN cat /etc/deep > /one\nCOPY file /two\nCMD [\"cat\", \"/one\", \"/two\"]\n"
    )
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    sandbox.outcrop(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().lines()
}

fn build_from(sandbox: &Sandbox, cache: &Path) -> Outcome {
    build(sandbox, &["--cache-from", &from(cache)]).ok()
}

#[test]
fn steps_on_a_base_that_is_not_here_hit_and_none_of_its_layers_comes() {
    for (driver, mode) in [("overlay2", ""), ("overlay2", ",mode=max"), ("vfs", ",mode=max")] {
        let first = machine(driver, "");
        let team = Team::new(&first);
        first.dockerfile(&apart(team.registry.address));
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, mode)]).ok();
        let proxy = team.proxy();
        let other = machine(driver, &apart(proxy.address));
        let told = build_from(&other, &cache).stdout();
        assert_eq!(ran(&other), [""; 0], "{driver}\n{told}");
        assert_eq!(id(&other), id(&first), "{driver}");
        assert_eq!(team.fetched(&proxy), 0, "{driver} {:?}", proxy.asked());
        // Nothing has a name that is not all there.
        assert_eq!(names(&other), ["it:latest"], "{driver}");
        other.check();
        // What it knew of the base goes on to the next cache.
        let next = other.dir().join("next");
        build(&other, &["--cache-from", &from(&cache), "--cache-to", &to(&next, mode)]).ok();
        let third = machine(driver, &apart(proxy.address));
        build_from(&third, &next);
        assert_eq!((ran(&third), team.fetched(&proxy)), (Vec::new(), 0), "{driver}");
    }
}

#[test]
fn a_step_that_changed_brings_the_base_that_it_stands_on_once() {
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, "");
        let team = Team::new(&first);
        first.dockerfile(&apart(team.registry.address));
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, ",mode=max")]).ok();
        let proxy = team.proxy();
        let other = machine(driver, &apart(proxy.address));
        other.file("file", "2\n");
        build_from(&other, &cache);
        assert_eq!(ran(&other).len(), 4, "{driver} {:?}", ran(&other));
        assert_eq!(team.fetched(&proxy), 2, "{driver}");
        let base = format!("{}/team/base:1", proxy.address);
        assert!(names(&other).contains(&base), "{:?}", names(&other));
        other.check();
        // As if it had been pulled: it can be pushed on as it is.
        other.outcrop(&["tag", &base, &format!("{}/team/copy:1", team.registry.address)]).ok();
        let pushed = other.outcrop(&["push", &format!("{}/team/copy:1", team.registry.address)]).ok();
        assert!(pushed.stdout().contains(&team.base.descriptor().digest.to_string()), "{}", pushed.stdout());
        // From scratch the same files come.
        let third = machine(driver, &apart(proxy.address));
        third.file("file", "2\n");
        build(&third, &[]).ok();
        assert_eq!(files(&third), files(&other), "{driver}");
    }
}

/// What is in the image, with owners and modes.
fn files(sandbox: &Sandbox) -> String {
    let dir = sandbox.dir().join("files");
    drop(fs::remove_dir_all(&dir));
    build(sandbox, &["-o", dir.to_str().unwrap()]).ok();
    let list = "find . -printf '%p %y %m %U %G %s\\n' | sort; find . -type f | sort | xargs cat";
    let output = Command::new("sh").args(["-c", list]).current_dir(&dir).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_image_that_stands_on_its_base_has_all_of_it_in_the_store() {
    for driver in ["overlay2", "vfs"] {
        let first = machine(driver, "");
        let team = Team::new(&first);
        first.dockerfile(&on_it(team.registry.address));
        let cache = first.dir().join("cache");
        build(&first, &["--cache-to", &to(&cache, "")]).ok();
        let proxy = team.proxy();
        let other = machine(driver, &on_it(proxy.address));
        build_from(&other, &cache);
        assert_eq!((ran(&other), id(&other)), (Vec::new(), id(&first)), "{driver}");
        assert_eq!(team.fetched(&proxy), 2, "{driver}");
        other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("deep\ntwo\n");
        other.check();
    }
}

#[test]
fn a_cache_that_lies_about_a_base_is_found_out_when_that_comes() {
    let first = machine("overlay2", "");
    let team = Team::new(&first);
    first.dockerfile(&on_it(team.registry.address));
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, "")]).ok();
    edit(&cache, &|document: &mut Value| {
        let layers = document["layers"].as_array_mut().unwrap();
        let bases: Vec<usize> = (0..layers.len()).filter(|n| layers[*n].get("archive").is_none()).collect();
        assert_eq!(bases.len(), 2);
        let lie = layers[bases[1]]["content_id"].clone();
        layers[bases[0]]["content_id"] = lie;
    });
    // As if somebody had come to something else on what the base is said to be.
    let other = machine("overlay2", &on_it(team.registry.address));
    build_from(&other, &cache);
    other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("deep\ntwo\n");
    other.check();
    let steps = "CMD [\"cat\", \"/etc/deep\"]";
    let third = machine("overlay2", &format!("FROM {}/team/base:1\n{steps}\n", team.registry.address));
    build_from(&third, &cache).says("building again without what a cache cannot give: layer ");
    third.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("deep\n");
    third.check();
}

/// Requests for the bytes of blobs, the base's config and the cache's index among them.
fn blobs_fetched(proxy: &Server) -> Vec<String> {
    let asked = proxy.asked().into_iter();
    let gets = asked.filter(|asked| asked.method == "GET" && asked.is_blob() && !asked.is_upload());
    gets.map(|asked| asked.path).collect()
}

fn uploads(proxy: &Server) -> usize {
    proxy.asked().iter().filter(|asked| asked.method == "PUT" && asked.is_upload()).count()
}

/// What a name points at in a registry.
fn manifest(name: &str) -> Value {
    let output = Command::new(find_on_path("skopeo"))
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A machine that built on the team's base, pushed that as `team/app:1` and wrote `team/cache:1`.
fn pushed_once(driver: &str) -> (Sandbox, Team) {
    let first = machine(driver, "");
    let team = Team::new(&first);
    let at = team.registry.address;
    first.dockerfile(&on_it(at));
    let cache = format!("type=registry,ref={at}/team/cache:1,mode=max");
    let app = format!("{at}/team/app:1");
    let args = ["build", "-q", "--push", "-t", &app, "--cache-to", &cache, "."];
    first.outcrop(&args).ok();
    (first, team)
}

fn push_from(sandbox: &Sandbox, cache: &str, name: &str, more: &[&str]) -> Outcome {
    let args = ["build", "--progress", "plain", "--push", "-t", name, "--cache-from", cache];
    sandbox.outcrop(&[&args, more, &["."]].concat()).ok()
}

#[test]
fn what_the_target_of_a_push_has_is_not_brought() {
    let (_first, team) = pushed_once("overlay2");
    for (repository, mounted) in [("team/app", 0), ("other/app", 4)] {
        let proxy = team.proxy();
        let at = proxy.address;
        let other = machine("overlay2", &on_it(at));
        let name = format!("{at}/{repository}:2");
        let told = push_from(&other, &format!("{at}/team/cache:1"), &name, &[]);
        assert_eq!(ran(&other), [""; 0], "{}", told.stdout());
        // The base's config, the cache's index.
        assert_eq!(blobs_fetched(&proxy).len(), 2, "{:?}", blobs_fetched(&proxy));
        let mounts = proxy.asked().iter().filter(|asked| asked.path.contains("mount=")).count();
        assert_eq!(mounts, mounted, "{:?}", proxy.asked());
        // The config of the image.
        assert_eq!(uploads(&proxy), usize::from(mounted > 0));
        assert_eq!(manifest(&name), manifest(&format!("{}/team/app:1", team.registry.address)));
        assert_eq!(names(&other), [""; 0]);
        other.check();
        let third = Sandbox::new();
        third.outcrop(&["run", "--rm", "--network", "none", &name]).ok().says("deep\ntwo\n");
    }
}

#[test]
fn only_what_the_target_lacks_passes_and_nothing_of_it_stays() {
    for driver in ["overlay2", "vfs"] {
        let (first, team) = pushed_once(driver);
        let target = RealRegistry::start(&first);
        let (proxy, there) = (team.proxy(), Server::before(&target));
        let other = machine(driver, &on_it(proxy.address));
        let cache = format!("{}/team/cache:1", proxy.address);
        let name = format!("{}/app:1", there.address);
        push_from(&other, &cache, &name, &[]);
        // Two layers of the base, two of the steps; the config goes up, too.
        assert_eq!((blobs_fetched(&proxy).len(), uploads(&there)), (2 + 4, 5), "{driver}");
        assert_eq!(manifest(&name), manifest(&format!("{}/team/app:1", team.registry.address)));
        assert_eq!((names(&other), blobs_here(&other)), (Vec::new(), 0));
        // Another step on it: what the target has by now stays where it is.
        let next = machine(driver, &on_it(proxy.address).replace("CMD", "LABEL a=b\nCMD"));
        let name = format!("{}/app:2", there.address);
        push_from(&next, &cache, &name, &[]);
        assert_eq!((blobs_fetched(&proxy).len(), uploads(&there)), (6 + 2, 6), "{driver}");
        next.check();
        let third = Sandbox::new().driver(driver);
        third.outcrop(&["run", "--rm", "--network", "none", &name]).ok().says("deep\ntwo\n");
        third.check();
    }
}

fn blobs_here(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.root().join("blobs/sha256")).map_or(0, Iterator::count)
}

#[test]
fn a_push_of_other_blobs_than_a_cache_has_brings_them_and_so_does_a_name_that_is_here() {
    let (_first, team) = pushed_once("overlay2");
    let proxy = team.proxy();
    let at = proxy.address;
    let cache = format!("{at}/team/cache:1");
    let name = format!("{at}/team/app:2");
    let other = machine("overlay2", &on_it(at));
    let zstd = format!("type=registry,name={name},compression=zstd,force-compression=true");
    let args = ["build", "-q", "--cache-from", &cache, "-o", &zstd, "."];
    other.outcrop(&args).ok();
    let layers = manifest(&name)["layers"].as_array().unwrap().clone();
    assert!(layers.iter().all(|layer| layer["mediaType"].as_str().unwrap().ends_with("zstd")), "{layers:?}");
    assert!(names(&other).contains(&name));
    other.check();
    let third = machine("overlay2", "FROM scratch\nCOPY file /\n");
    build(&third, &["-t", &name]).ok();
    third.dockerfile(&on_it(at));
    push_from(&third, &cache, &name, &[]);
    third.outcrop(&["run", "--rm", "--network", "none", &name]).ok().says("deep\ntwo\n");
    third.check();
}

#[test]
fn a_build_that_leaves_nothing_but_the_cache_brings_nothing() {
    let (_first, team) = pushed_once("overlay2");
    let proxy = team.proxy();
    let at = proxy.address;
    let other = machine("overlay2", &on_it(at));
    let next = other.dir().join("next");
    let (cache, to) = (format!("{at}/team/cache:1"), to(&next, ""));
    let args = ["build", "-q", "--cache-from", &cache, "--cache-to", &to, "-o", "type=cacheonly", "."];
    other.outcrop(&args).ok();
    assert_eq!((team.fetched(&proxy), names(&other).len()), (0, 0));
    other.check();
    let third = machine("overlay2", &on_it(at));
    build_from(&third, &next);
    assert_eq!(ran(&third), [""; 0]);
    third.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().says("deep\ntwo\n");
}

#[test]
fn a_blob_that_is_not_the_layer_is_found_out_while_it_passes() {
    let first = machine("overlay2", "");
    let team = Team::new(&first);
    first.dockerfile(&on_it(team.registry.address));
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, ",compression=gzip")]).ok();
    edit(&cache, &|document: &mut Value| {
        let layers = document["layers"].as_array_mut().unwrap();
        let own: Vec<usize> = (0..layers.len()).filter(|n| layers[*n].get("archive").is_some()).collect();
        let (a, b) = (layers[own[0]]["archive"].clone(), layers[own[1]]["archive"].clone());
        (layers[own[0]]["archive"], layers[own[1]]["archive"]) = (b, a);
    });
    let other = machine("overlay2", &on_it(team.registry.address));
    let name = format!("{}/team/app:2", team.registry.address);
    push_from(&other, &from(&cache), &name, &[]).says("building again without what a cache cannot give");
    assert_eq!(ran(&other).len(), 2);
    let third = Sandbox::new();
    third.outcrop(&["run", "--rm", "--network", "none", &name]).ok().says("deep\ntwo\n");
}

/// Threads of this process, each with a lock of its own, as other processes have.
#[test]
fn who_adds_to_a_layout_at_once_takes_no_name_from_others() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for n in 0..50 {
                    let bytes = format!("{thread} {n}").into_bytes();
                    let mut entry = Descriptor::of(MediaType::OciManifest, &bytes);
                    entry.annotations.insert(REF_NAME.into(), format!("tag-{thread}-{n}"));
                    let mut layout = LayoutDir::open(dir).unwrap();
                    layout.blob(&entry, &mut |out| out.write_all(&bytes).context(|| "writing")).unwrap();
                    layout.finish(vec![entry]).unwrap();
                }
            });
        }
    });
    assert_eq!(OciLayout::open(&dir).unwrap().entries().unwrap().len(), 200);
    // And nothing that was on its way is left, nor taken for left.
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!((count(&dir), count(&dir.join("blobs/sha256"))), (3, 200));
}

#[test]
fn what_a_killed_export_had_not_finished_goes_with_the_next() {
    let sandbox = machine("overlay2", "FROM scratch\nADD busybox.tar /\nCOPY file /\n");
    build(&sandbox, &[]).ok();
    let cache = sandbox.dir().join("cache");
    let left = || -> Vec<String> {
        let dirs = [cache.clone(), cache.join("blobs/sha256")];
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.contains(".making-")).collect()
    };
    let mut kills = 0;
    while left().is_empty() {
        kills += 1;
        assert!(kills < 500, "no kill came while something was written");
        drop(fs::remove_dir_all(&cache));
        let args = ["build", "-q", "--cache-to", &to(&cache, ",mode=max,compression=uncompressed"), "."];
        let mut child = sandbox.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while left().is_empty() && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
    }
    build(&sandbox, &["--cache-to", &to(&cache, ",mode=max")]).ok();
    assert_eq!(left(), [""; 0]);
    sandbox.check();
}

#[test]
fn whoever_is_killed_while_a_base_comes_or_a_push_passes_layers_on_leaves_nothing_wrong() {
    let (first, team) = pushed_once("overlay2");
    let target = RealRegistry::start(&first);
    let at = team.registry.address;
    let (cache, name) = (format!("{at}/team/cache:1"), format!("{}/app:1", target.address));
    let other = machine("overlay2", &on_it(at));
    for milliseconds in [20, 40, 60, 80, 100, 130, 160, 200, 250, 300] {
        for flags in [&["-t", "it"][..], &["--push", "-t", &name]] {
            let args = [&["build", "-q", "--cache-from", &cache], flags, &["."]].concat();
            let mut child = other.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(milliseconds));
            child.kill().unwrap();
            child.wait().unwrap();
            other.check();
        }
    }
    build(&other, &["--cache-from", &cache]).ok();
    assert_eq!(
        id(&other),
        first.outcrop(&["inspect", "--format", "{{.Id}}", &format!("{at}/team/app:1")]).ok().line()
    );
    other.check();
}

/// Steps that know for which platform they are; of amd64 alone, what runs.
fn for_each(registry: impl std::fmt::Display) -> String {
    format!(
        "FROM --platform=$BUILDPLATFORM {registry}/team/base:1 AS make
ARG TARGETARCH
RUN echo $TARGETARCH > /arch
FROM {registry}/team/several:1
COPY --from=make /arch /arch
COPY file /file
"
    )
}

#[test]
fn a_build_for_several_platforms_hits_whole_and_moves_nothing() {
    let first = machine("overlay2", "");
    let team = Team::new(&first);
    let at = team.registry.address;
    let images = ["linux/amd64", "linux/arm64"].map(|platform| {
        let tar = fs::read(first.busybox_archive()).unwrap();
        Image::made(&[tar, several_tar(&first, platform)], config_for(&platform.parse().unwrap()))
    });
    let layout = Layout::index(&first.dir().join("several-layout"), &[&images[0], &images[1]]);
    team.registry.push(&layout, "team/several:1");
    first.dockerfile(&for_each(at));
    let flags = ["--platform", "linux/amd64,linux/arm64", "-q", "--push"];
    let app = format!("{at}/team/app:1");
    let cache = format!("type=registry,ref={at}/team/cache:1,mode=max");
    first.outcrop(&[&["build"], &flags[..], &["-t", &app, "--cache-to", &cache, "."]].concat()).ok();
    let proxy = team.proxy();
    let other = machine("overlay2", &for_each(proxy.address));
    let name = format!("{}/team/app:2", proxy.address);
    let cache = format!("{}/team/cache:1", proxy.address);
    other.outcrop(&[&["build"], &flags[..], &["-t", &name, "--cache-from", &cache, "."]].concat()).ok();
    assert_eq!(ran(&other), [""; 0]);
    // Three configs, the index, and the lists of files of what is copied from: two layers and one for each platform.
    assert_eq!(blobs_fetched(&proxy).len(), 3 + 1 + 4, "{:?}", blobs_fetched(&proxy));
    assert_eq!(manifest(&name), manifest(&app));
    assert_eq!(names(&other), [""; 0]);
    other.check();
    // In the store each platform has its own base, and the base's name stays with the one that came first.
    let third = machine("overlay2", &for_each(at));
    let args = ["build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", "it", "--cache-from"];
    third.outcrop(&[&args[..], &[&format!("{at}/team/cache:1"), "."]].concat()).ok();
    assert_eq!(ran(&third), [""; 0]);
    third.check();
    let fourth = machine("overlay2", &for_each(at));
    fourth.file("file", "2\n");
    fourth.outcrop(&[&args[..], &[&format!("{at}/team/cache:1"), "."]].concat()).ok();
    assert_eq!(ran(&fourth), ["COPY file /file"; 2]);
    fourth.check();
}

/// A file that says for which platform it is.
fn several_tar(sandbox: &Sandbox, platform: &str) -> Vec<u8> {
    let tree = sandbox.dir().join(platform.replace('/', "-"));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("platform"), platform).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--mtime=@1700000000", "--owner=0", "--group=0", "-cf", "-", "-C"]).arg(&tree).arg("platform");
    tar.output().unwrap().stdout
}

#[test]
fn cache_mounts_go_by_way_of_a_registry() {
    const MOUNT: &str = "FROM scratch
ADD busybox.tar /
COPY file /file
RUN --mount=type=cache,id=work,target=/c \
    if [ ! -e /c/big ]; then yes | head -c 300000 > /c/big && ln -s big /c/link; fi; \
    cp /file /c/file-$(cat /file) && ls -l /c/ | awk '{print $1, $5, $9}' > /listed
CMD [\"cat\", \"/listed\"]
";
    let first = machine("overlay2", MOUNT);
    let registry = RealRegistry::start(&first);
    let name = format!("{}/team/cache:1", registry.address);
    let to = format!("type=registry,ref={name},mode=max,mounts=true");
    build(&first, &["--cache-to", &to]).ok();
    let proxy = Server::before(&registry);
    let through = format!("{}/team/cache:1", proxy.address);
    let other = machine("overlay2", MOUNT);
    // A step that hits needs no mount; one that runs finds what the other machine left.
    build(&other, &["--cache-from", &through]).ok();
    assert_eq!(ran(&other), [""; 0]);
    let before = blobs_fetched(&proxy).len();
    other.file("file", "2\n");
    let to = format!("type=registry,ref={through},mode=max,mounts=true");
    build(&other, &["--cache-from", &through, "--cache-to", &to]).ok();
    let shown = other.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().stdout();
    assert!(
        shown.contains("file-two\n") && shown.contains("file-2\n") && shown.contains("300000 big\n"),
        "{shown}"
    );
    // The index, the list of files, that of packs and the pack; the index and the packs again for what is there.
    assert_eq!(blobs_fetched(&proxy).len() - before, 1 + 3 + 2, "{:?}", blobs_fetched(&proxy));
    // What went up: two layers with their rows, a pack of one file, lists, the index.
    let third = machine("overlay2", MOUNT);
    third.file("file", "3\n");
    build(&third, &["--cache-from", &through]).ok();
    let shown = third.outcrop(&["run", "--rm", "--network", "none", "it"]).ok().stdout();
    assert!(
        shown.contains("file-two\n") && shown.contains("file-2\n") && shown.contains("file-3\n"),
        "{shown}"
    );
    third.check();
}

#[test]
fn a_name_that_is_asked_for_again_moves_when_what_it_points_at_now_has_come() {
    let first = machine("overlay2", "");
    let team = Team::new(&first);
    let at = team.registry.address;
    first.dockerfile(&apart(at));
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, "")]).ok();
    let other = machine("overlay2", "FROM scratch\nADD busybox.tar /\n");
    let base = format!("{at}/team/base:1");
    build(&other, &["-t", &base]).ok();
    let of_base = || other.outcrop(&["inspect", "--format", "{{.Id}}", &base]).ok().line();
    let before = of_base();
    other.dockerfile(&apart(at));
    build(&other, &["--pull", "--cache-from", &from(&cache)]).ok();
    assert_eq!((ran(&other), of_base()), (Vec::new(), before.clone()));
    other.file("file", "2\n");
    build(&other, &["--pull", "--cache-from", &from(&cache)]).ok();
    assert_eq!(of_base(), Digest::of(&team.base.config).to_string());
    other.check();
}

#[test]
fn an_image_that_carries_its_cache_is_built_and_pushed_again_without_its_layers() {
    let first = machine("overlay2", "");
    let team = Team::new(&first);
    let at = team.registry.address;
    first.dockerfile(&on_it(at));
    let app = format!("{at}/team/app:1");
    first.outcrop(&["build", "-q", "--push", "-t", &app, "--cache-to", "type=inline", "."]).ok();
    let proxy = team.proxy();
    let other = machine("overlay2", &on_it(proxy.address));
    let name = format!("{}/team/app:2", proxy.address);
    let metadata = other.dir().join("metadata.json");
    let more = ["--metadata-file", metadata.to_str().unwrap()];
    push_from(&other, &format!("{}/team/app:1", proxy.address), &name, &more);
    assert_eq!((ran(&other), blobs_fetched(&proxy).len()), (Vec::new(), 2));
    let told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(told["image.name"], name);
    let raw = serde_json::to_vec(&manifest(&name)).unwrap();
    assert_eq!(told["containerimage.descriptor"]["size"], raw.len());
    other.check();
    let third = Sandbox::new();
    third.outcrop(&["run", "--rm", "--network", "none", &name]).ok().says("deep\ntwo\n");
}

#[test]
fn layers_that_are_here_and_others_that_are_not_go_into_one_push() {
    for driver in ["overlay2", "vfs"] {
        let (first, team) = pushed_once(driver);
        let target = RealRegistry::start(&first);
        let proxy = team.proxy();
        let other = machine(driver, &on_it(proxy.address));
        other.outcrop(&["pull", "-q", &format!("{}/team/base:1", proxy.address)]).ok();
        let before = blobs_fetched(&proxy).len();
        let name = format!("{}/app:1", target.address);
        push_from(&other, &format!("{}/team/cache:1", proxy.address), &name, &[]);
        // The index, and the layers of the steps.
        assert_eq!((ran(&other), blobs_fetched(&proxy).len() - before), (Vec::new(), 3), "{driver}");
        assert_eq!(manifest(&name), manifest(&format!("{}/team/app:1", team.registry.address)));
        assert_eq!(names(&other), [format!("{}/team/base:1", proxy.address)], "{driver}");
        other.check();
    }
}

/// A stage that fails need not wait for the base of another.
#[test]
fn a_failure_elsewhere_stops_a_base_on_its_way() {
    let sandbox = machine("overlay2", "");
    let team = Team::new(&sandbox);
    let slow = team.base.manifest.layers[0].digest.to_string();
    let layer = slow.clone();
    let proxy =
        Server::start(Some(team.registry.address), move |asked, _| match asked.path.ends_with(&layer) {
            true => Reply::Silent(Duration::from_secs(20)),
            false => Reply::Forward,
        });
    sandbox.dockerfile(&format!(
        "FROM scratch AS fails\nADD busybox.tar /\nRUN exit 7\n\
         FROM {}/team/base:1\nCOPY --from=fails / /all\n",
        proxy.address
    ));
    build(&sandbox, &[]).fails(1).complains("exit code: 7");
    // Who had waited for the answer would have asked again when there was none.
    let asked = proxy.asked().iter().filter(|asked| asked.path.ends_with(&slow)).count();
    assert_eq!(asked, 1);
    sandbox.check();
}

#[test]
fn a_cache_without_the_bytes_of_a_step_still_tells_of_bases() {
    let first = machine("overlay2", "");
    let team = Team::new(&first);
    let text = |at: &dyn std::fmt::Display| {
        format!(
            "FROM scratch AS changes
ADD busybox.tar /
RUN echo step > /step
COPY file /file
FROM scratch
COPY --from=changes /file /step /
COPY --from={at}/team/base:1 /etc/ /etc/
"
        )
    };
    first.dockerfile(&text(&team.registry.address));
    let cache = first.dir().join("cache");
    build(&first, &["--cache-to", &to(&cache, "")]).ok();
    let proxy = team.proxy();
    let other = machine("overlay2", &text(&proxy.address));
    other.file("file", "2\n");
    build_from(&other, &cache).says("building again without what a cache cannot give");
    let expected =
        ["ADD busybox.tar /", "RUN /bin/sh -c echo step > /step", "COPY file /file", "COPY /file /step /"];
    assert_eq!(ran(&other), expected);
    assert_eq!(team.fetched(&proxy), 0);
    other.check();
}
