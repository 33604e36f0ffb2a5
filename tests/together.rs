//! Processes that want the same layers: one brings and unpacks each, and the others wait for it, and take it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use outcrop::image::Digest;
use rustix::process::{Pid, Signal, kill_process};

use crate::cache_export::machine;
use crate::registry_kit::{Asked, Image, Layout, RealRegistry, Reply, Server, tar_of_files as tar_of};
use crate::sandbox::{Sandbox, build_it, tool, wait_until};
use crate::transfer_kit::{
    LONG, MB, filled, image_of, ingest, is_of, is_stored, kill, ranges, size, start, stuck_after,
};

/// Trees that were begun in the store since it was made.
fn trees_made(sandbox: &Sandbox) -> usize {
    let sql = "select next - 1 from sequence where name = 'snapshot'";
    let index = sandbox.root().join("outcrop.db");
    tool(sandbox, &["sqlite3", index.to_str().unwrap(), sql]).trim().parse().unwrap()
}

/// Three images of five layers, each of three that stand next to each other.
fn overlapping(sandbox: &Sandbox, registry: &RealRegistry) -> Vec<Image> {
    let tars: Vec<Vec<u8>> = ["a", "b", "c", "d", "e"].iter().map(|name| tar_of(&[(name, MB)])).collect();
    let images: Vec<Image> = tars.windows(3).map(image_of).collect();
    for (n, image) in images.iter().enumerate() {
        let layout = Layout::single(&sandbox.dir().join(format!("layout{n}")), image);
        registry.push(&layout, &format!("app:{n}"));
    }
    images
}

/// Ten processes pull them at once: each blob's bytes leave the registry once, and each tree is made once.
#[track_caller]
fn ten_at_once(driver: &str, trees: usize) {
    let sandbox = Sandbox::new().driver(driver);
    let registry = RealRegistry::start(&sandbox);
    let images = overlapping(&sandbox, &registry);
    let server = Server::before(&registry);
    let name = |n: usize| format!("{}/app:{}", server.address, n % 3);
    // So that none of them makes the store.
    sandbox.outcrop(&["ps"]).ok();
    let children: Vec<Child> = (0..10).map(|n| start(&sandbox, &["pull", &name(n)])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for (n, image) in images.iter().enumerate() {
        let id = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", &name(n)]).ok().line();
        assert_eq!(id, Digest::of(&image.config).to_string());
        for layer in &image.manifest.layers {
            assert_eq!(ranges(&server, layer), ["all"]);
        }
    }
    assert_eq!(trees_made(&sandbox), trees);
    sandbox.check();
}

#[test]
fn ten_processes_that_pull_what_overlaps_move_and_unpack_each_layer_once() {
    ten_at_once("overlay2", 5);
}

/// There a layer has a tree for each stack that it is in.
#[test]
fn where_trees_are_whole_stacks_each_of_them_is_made_once() {
    ten_at_once("vfs", 9);
}

/// An image of one layer, which is stuck in the middle as long as `stuck` says so.
struct Stuck {
    image: Image,
    stuck: Arc<AtomicBool>,
    server: Server,
    name: String,
    _registry: RealRegistry,
}

impl Stuck {
    fn at_one_megabyte(sandbox: &Sandbox) -> Stuck {
        let image = image_of(&[tar_of(&[("first", 3 * MB)])]);
        let registry = filled(sandbox, &image);
        let stuck = Arc::new(AtomicBool::new(true));
        let server = stuck_after(&registry, &image.manifest.layers[0], MB, &stuck, |_| Reply::Forward);
        let name = format!("{}/app:v1", server.address);
        Stuck { image, stuck, server, name, _registry: registry }
    }
}

#[test]
fn whoever_waits_for_a_blob_takes_it_over_from_one_who_dies() {
    let sandbox = Sandbox::new();
    let Stuck { image, stuck, server, name, _registry } = Stuck::at_one_megabyte(&sandbox);
    let layer = &image.manifest.layers[0];
    let first = start(&sandbox, &["pull", &name]);
    assert!(wait_until(LONG, || size(&ingest(&sandbox, layer)) == MB as u64));
    let mut second = start(&sandbox, &["pull", &name]);
    let config = Digest::of(&image.config);
    let has_begun =
        || server.asked().iter().filter(|asked| asked.path.ends_with(&config.to_string())).count() == 2;
    assert!(wait_until(LONG, has_begun));
    stuck.store(false, Ordering::SeqCst);
    kill(first);
    assert!(second.wait().unwrap().success());
    assert_eq!(ranges(&server, layer), ["all", "bytes=1000000-"]);
    sandbox.check();
}

/// A process whose output goes into a file.
struct Watched {
    child: Child,
    said: PathBuf,
}

fn watched(sandbox: &Sandbox, n: usize, args: &[&str]) -> Watched {
    let said = sandbox.dir().join(format!("said{n}"));
    let out = File::create(&said).unwrap();
    let child = sandbox.command(args).stdout(out).stderr(Stdio::null()).spawn().unwrap();
    Watched { child, said }
}

impl Watched {
    fn says(&self, line: &str) -> bool {
        fs::read_to_string(&self.said).unwrap().lines().any(|said| said == line)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// An image of these layers as `app:TAG` there.
fn tagged(sandbox: &Sandbox, registry: &RealRegistry, tag: &str, tars: &[&Vec<u8>]) -> Image {
    let image = image_of(&tars.iter().map(|tar| (*tar).clone()).collect::<Vec<_>>());
    registry
        .push(&Layout::single(&sandbox.dir().join(format!("layout-{tag}")), &image), &format!("app:{tag}"));
    image
}

#[test]
fn who_waits_for_one_layer_holds_no_other_that_somebody_waits_for() {
    let sandbox = Sandbox::new().driver("overlay2");
    let registry = RealRegistry::start(&sandbox);
    let (a, b) = (tar_of(&[("a", 3 * MB)]), tar_of(&[("b", MB)]));
    let alone = tagged(&sandbox, &registry, "a", &[&a]);
    tagged(&sandbox, &registry, "ab", &[&a, &b]);
    tagged(&sandbox, &registry, "ba", &[&b, &a]);
    let layer_a = &alone.manifest.layers[0];
    let layer_b = image_of(std::slice::from_ref(&b)).manifest.layers[0].clone();
    let stuck = Arc::new(AtomicBool::new(true));
    let server = stuck_after(&registry, layer_a, MB, &stuck, |_| Reply::Forward);
    let name = |tag: &str| format!("{}/app:{tag}", server.address);
    let first = start(&sandbox, &["pull", &name("a")]);
    assert!(wait_until(LONG, || size(&ingest(&sandbox, layer_a)) == MB as u64));
    // Both wait for the one layer; that stops neither from having the other, in whatever order they want them.
    let mut second = watched(&sandbox, 2, &["pull", &name("ba")]);
    assert!(wait_until(LONG, || second.says(&format!("{}: Pull complete", layer_b.digest.short()))));
    let mut third = watched(&sandbox, 3, &["pull", &name("ab")]);
    for waiting in [&second, &third] {
        assert!(wait_until(LONG, || waiting.says(&format!("{}: Waiting", layer_a.digest.short()))));
    }
    assert!(wait_until(LONG, || third.says(&format!("{}: Already exists", layer_b.digest.short()))));
    stuck.store(false, Ordering::SeqCst);
    kill(first);
    assert!(second.child.wait().unwrap().success());
    assert!(third.child.wait().unwrap().success());
    assert_eq!(ranges(&server, layer_a), ["all", "bytes=1000000-"]);
    assert_eq!(ranges(&server, &layer_b), ["all"]);
    sandbox.check();
}

#[test]
fn who_waits_for_a_layer_brings_the_others_meanwhile_though_he_may_bring_one_at_a_time() {
    let sandbox = Sandbox::new().driver("overlay2");
    let registry = RealRegistry::start(&sandbox);
    let (a, b) = (tar_of(&[("a", 3 * MB)]), tar_of(&[("b", MB)]));
    let alone = tagged(&sandbox, &registry, "a", &[&a]);
    let both = tagged(&sandbox, &registry, "ab", &[&a, &b]);
    let [layer_a, layer_b] = &both.manifest.layers[..] else { panic!("two layers") };
    let stuck = Arc::new(AtomicBool::new(true));
    let server = stuck_after(&registry, &alone.manifest.layers[0], MB, &stuck, |_| Reply::Forward);
    let name = |tag: &str| format!("{}/app:{tag}", server.address);
    let first = start(&sandbox, &["pull", &name("a")]);
    assert!(wait_until(LONG, || size(&ingest(&sandbox, layer_a)) == MB as u64));
    let mut second = watched(&sandbox, 2, &["pull", "--max-concurrent", "1", &name("ab")]);
    assert!(wait_until(LONG, || second.says(&format!("{}: Pull complete", layer_b.digest.short()))));
    assert!(second.says(&format!("{}: Waiting", layer_a.digest.short())));
    stuck.store(false, Ordering::SeqCst);
    kill(first);
    assert!(second.child.wait().unwrap().success());
    assert_eq!(ranges(&server, layer_a), ["all", "bytes=1000000-"]);
    assert_eq!(ranges(&server, layer_b), ["all"]);
    sandbox.check();
}

/// Two builds want the layers of a cache in a registry, the first of which comes only when both know that they want it.
#[track_caller]
fn two_builds_from_one_cache(driver: &str) {
    const STEPS: &str = "FROM scratch\nADD busybox.tar /\nRUN echo one > /one\nRUN echo two > /two\n";
    let maker = machine(driver, STEPS);
    let registry = RealRegistry::start(&maker);
    let cache = format!("{}/team/cache:1", registry.address);
    build_it(&maker, &["--cache-to", &format!("type=registry,ref={cache}")]).ok();
    let alone = machine(driver, STEPS);
    build_it(&alone, &["--cache-from", &cache]).ok();
    let held = Arc::new(AtomicBool::new(true));
    let is_index = |path: &str, asked: &[Asked]| {
        asked.iter().find(|asked| asked.is_blob()).is_none_or(|index| index.path == path)
    };
    let server = {
        let (held, index) = (Arc::clone(&held), Mutex::new(None));
        Server::start(Some(registry.address), move |asked, _| {
            let mut index = index.lock().unwrap();
            let is_layer = asked.is_blob() && *index.get_or_insert(asked.path.clone()) != asked.path;
            match is_layer {
                true => {
                    let held = Arc::clone(&held);
                    Reply::Change(Box::new(move |_| {
                        wait_until(LONG, || !held.load(Ordering::SeqCst));
                    }))
                }
                false => Reply::Forward,
            }
        })
    };
    let sandbox = machine(driver, STEPS);
    sandbox.outcrop(&["ps"]).ok();
    let from = format!("{}/team/cache:1", server.address);
    let builds = ["a", "b"].map(|tag| start(&sandbox, &["build", "-t", tag, "--cache-from", &from, "."]));
    let both_know = || {
        let asked = server.asked();
        let indexes = asked.iter().filter(|one| one.is_blob() && is_index(&one.path, &asked)).count();
        indexes == 2 && asked.iter().filter(|one| one.is_blob()).count() > 2
    };
    assert!(wait_until(LONG, both_know));
    held.store(false, Ordering::SeqCst);
    for mut build in builds {
        assert!(build.wait().unwrap().success());
    }
    let asked = server.asked();
    let mut layers: Vec<&str> = asked.iter().filter(|one| one.is_blob()).map(|one| &one.path[..]).collect();
    layers.retain(|path| !is_index(path, &asked));
    layers.sort_unstable();
    assert_eq!(layers.len(), 3, "{driver}: {layers:?}");
    layers.dedup();
    assert_eq!(layers.len(), 3, "{driver}");
    assert_eq!(trees_made(&sandbox), trees_made(&alone), "{driver}");
    sandbox.check();
}

#[test]
fn two_builds_that_take_the_same_layers_of_a_cache_move_and_unpack_each_once() {
    two_builds_from_one_cache("overlay2");
}

#[test]
fn two_builds_from_a_cache_make_each_whole_stack_once() {
    two_builds_from_one_cache("vfs");
}

#[test]
fn whoever_waits_for_a_process_that_was_stopped_says_so_and_can_be_interrupted() {
    let sandbox = Sandbox::new();
    let Stuck { image, stuck, server, name, _registry } = Stuck::at_one_megabyte(&sandbox);
    let layer = &image.manifest.layers[0];
    let mut first = watched(&sandbox, 1, &["pull", &name]);
    assert!(wait_until(LONG, || size(&ingest(&sandbox, layer)) == MB as u64));
    first.signal(Signal::STOP);
    let mut second = watched(&sandbox, 2, &["pull", &name]);
    assert!(wait_until(LONG, || second.says(&format!("{}: Waiting", layer.digest.short()))));
    second.signal(Signal::INT);
    assert!(!second.child.wait().unwrap().success());
    assert!(!is_stored(&sandbox, layer));
    let mut third = watched(&sandbox, 3, &["pull", &name]);
    assert!(wait_until(LONG, || third.says(&format!("{}: Waiting", layer.digest.short()))));
    stuck.store(false, Ordering::SeqCst);
    first.signal(Signal::CONT);
    assert!(first.child.wait().unwrap().success());
    assert!(third.child.wait().unwrap().success());
    assert!(third.says(&format!("{}: Already exists", layer.digest.short())));
    assert_eq!(ranges(&server, layer).len(), 2);
    sandbox.check();
}

#[test]
fn a_layer_whose_archive_says_nothing_of_the_root_has_that_of_the_stack_it_comes_to_first() {
    let sandbox = Sandbox::new().driver("overlay2");
    let registry = RealRegistry::start(&sandbox);
    let (dir, archive) = (sandbox.dir().join("empty"), sandbox.dir().join("root.tar"));
    fs::create_dir(&dir).unwrap();
    let (dir, archive) = (dir.to_str().unwrap(), archive.to_str().unwrap());
    tool(&sandbox, &["tar", "-cf", archive, "--mode=700", "-C", dir, "."]);
    tagged(&sandbox, &registry, "v1", &[&fs::read(archive).unwrap(), &tar_of(&[("b", MB)])]);
    sandbox.outcrop(&["pull", &format!("{}/app:v1", registry.address)]).ok();
    let trees = fs::read_dir(sandbox.root().join("overlay2")).unwrap().flatten();
    let modes: Vec<u32> = trees
        .filter_map(|tree| fs::metadata(tree.path().join("diff")).ok())
        .map(|root| root.permissions().mode() & 0o7777)
        .collect();
    assert_eq!(modes, [0o700, 0o700]);
    sandbox.check();
}

/// What a stage came to is an image without a name, that nothing needs but the build.
#[test]
fn a_build_that_pulls_keeps_its_stages_while_others_prune() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let image = image_of(&[tar_of(&[("first", 5000)])]);
    let registry = filled(&sandbox, &image);
    let held = Arc::new(AtomicBool::new(true));
    let server = Server::start(Some(registry.address), {
        let (held, layer) = (Arc::clone(&held), image.manifest.layers[0].clone());
        move |asked, _| match is_of(asked, &layer) {
            true => {
                let held = Arc::clone(&held);
                Reply::Change(Box::new(move |_| {
                    wait_until(LONG, || !held.load(Ordering::SeqCst));
                }))
            }
            false => Reply::Forward,
        }
    });
    sandbox.file("made", "made");
    sandbox.dockerfile(&format!(
        "FROM base AS made\nCOPY made /made\nFROM {}/app:v1\nCOPY --from=made /made /\n",
        server.address
    ));
    let mut build = start(&sandbox, &["build", "-t", "it", "."]);
    let index = sandbox.root().join("outcrop.db");
    let images = || tool(&sandbox, &["sqlite3", index.to_str().unwrap(), "select count(*) from image"]);
    let is_pulling = || server.asked().iter().any(|asked| is_of(asked, &image.manifest.layers[0]));
    assert!(wait_until(LONG, || is_pulling() && images().trim() == "2"));
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    held.store(false, Ordering::SeqCst);
    assert!(build.wait().unwrap().success());
    let id = sandbox.outcrop(&["create", "it", "x"]).ok().line();
    sandbox.outcrop(&["export", "-o", "it.tar", &id]).ok();
    assert!(tool(&sandbox, &["tar", "-tf", "it.tar"]).lines().any(|name| name == "made"));
    sandbox.check();
}
