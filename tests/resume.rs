//! Transfers that go on where they were: after a kill, over lines that break, from registries that know no ranges.

use std::fs;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outcrop::error::Context as _;
use outcrop::image::{Descriptor, Digest, Reference};
use outcrop::job::Job;
use outcrop::registry::{Options, Registry};
use outcrop::transfer::{Layer, Source as _, Stream, find};

use crate::registry_kit::{
    Asked, Image, Layout, RealRegistry, Reply, Server, Told, noise, tar_of_files as tar_of,
};
use crate::sandbox::{Sandbox, find_on_path, tool, wait_until};
use crate::transfer_kit::{
    LONG, Later, MB, filled, image_of, ingest, is_of, is_stored, kill, ranges, size, start, stuck_after,
};

/// A pull killed when all but the last layer had come, and of that one so many bytes; what it was pulled by.
struct Killed {
    server: Server,
    _registry: RealRegistry,
    image: Image,
    name: String,
    sandbox: Sandbox,
}

fn killed_after(bytes: usize) -> Killed {
    killed(bytes, |_| Reply::Forward)
}

/// And what the server does with requests for that layer afterwards.
fn killed(bytes: usize, later: Later) -> Killed {
    let sandbox = Sandbox::new();
    let image = image_of(&[tar_of(&[("small", 5000)]), tar_of(&[("first", 2 * MB), ("second", 2 * MB)])]);
    let registry = filled(&sandbox, &image);
    let stuck = Arc::new(AtomicBool::new(true));
    let [small, large] = &image.manifest.layers[..] else { panic!("two layers") };
    let server = stuck_after(&registry, large, bytes, &stuck, later);
    let name = format!("{}/app:v1", server.address);
    let child = start(&sandbox, &["pull", &name]);
    let come = || is_stored(&sandbox, small) && size(&ingest(&sandbox, large)) == bytes as u64;
    assert!(wait_until(LONG, come));
    kill(child);
    stuck.store(false, Ordering::SeqCst);
    Killed { sandbox, _registry: registry, server, image, name }
}

impl Killed {
    fn large(&self) -> &Descriptor {
        &self.image.manifest.layers[1]
    }

    #[track_caller]
    fn is_whole(&self) {
        let id = self.sandbox.outcrop(&["inspect", "-f", "{{.Id}}", &self.name]).ok().line();
        assert_eq!(id, Digest::of(&self.image.config).to_string());
        self.sandbox.outcrop(&["layers", &self.name]).ok();
        self.sandbox.check();
        assert_eq!(fs::read_dir(self.sandbox.root().join("ingest")).unwrap().count(), 0);
    }
}

#[test]
fn a_killed_pull_goes_on_at_the_byte_where_it_was() {
    let killed = killed_after(MB);
    let Killed { sandbox, server, image, name, .. } = &killed;
    // What others do meanwhile takes nothing of it away, and it is no damage.
    sandbox.outcrop(&["ps"]).ok();
    sandbox.check();
    sandbox
        .outcrop(&["system", "df", "-v"])
        .ok()
        .says("Interrupted downloads, with which the next pull goes on: 1MB in 1 files");
    sandbox.outcrop(&["pull", name]).ok();
    assert_eq!(ranges(server, killed.large()), ["all", "bytes=1000000-"]);
    assert_eq!(ranges(server, &image.manifest.layers[0]), ["all"]);
    killed.is_whole();
}

#[test]
fn a_beginning_that_is_wrong_is_fetched_anew() {
    let killed = killed_after(MB);
    let path = ingest(&killed.sandbox, killed.large());
    let mut bytes = fs::read(&path).unwrap();
    bytes[MB / 2] ^= 1;
    fs::write(&path, bytes).unwrap();
    killed.sandbox.outcrop(&["pull", &killed.name]).ok();
    assert_eq!(ranges(&killed.server, killed.large()), ["all", "bytes=1000000-", "all"]);
    killed.is_whole();
}

#[test]
fn a_beginning_that_is_all_there_is_only_proved() {
    let killed = killed_after(MB);
    fs::write(ingest(&killed.sandbox, killed.large()), &killed.image.layers[1]).unwrap();
    killed.sandbox.outcrop(&["pull", &killed.name]).ok();
    assert_eq!(ranges(&killed.server, killed.large()), ["all"]);
    killed.is_whole();
}

#[test]
fn prune_lets_what_was_to_come_go() {
    let killed = killed_after(MB);
    let Killed { sandbox, image, .. } = &killed;
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    assert_eq!(fs::read_dir(sandbox.root().join("ingest")).unwrap().count(), 0);
    assert!(!is_stored(sandbox, &image.manifest.layers[0]));
    sandbox.outcrop(&["pull", &killed.name]).ok();
    assert_eq!(ranges(&killed.server, killed.large()), ["all", "all"]);
    killed.is_whole();
}

/// A blob that has come and that nothing refers to yet is the pull's, not one that somebody left.
#[test]
fn prune_takes_nothing_of_a_pull_that_goes_on() {
    let sandbox = Sandbox::new();
    // The second one leans on what lies below it, and waits for that.
    let tars = [tar_of(&[("small", 5000)]), tar_of(&[("deep/inner", 5000)]), tar_of(&[("large", 2 * MB)])];
    let image = image_of(&tars);
    let registry = filled(&sandbox, &image);
    let waits = Arc::new(AtomicBool::new(true));
    let (large, waiting) = (image.manifest.layers[2].clone(), Arc::clone(&waits));
    let server = Server::start(Some(registry.address), move |asked, _| {
        while is_of(asked, &large) && waiting.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Reply::Forward
    });
    let name = format!("{}/app:v1", server.address);
    let mut child = start(&sandbox, &["pull", &name]);
    let layers = &image.manifest.layers;
    assert!(wait_until(LONG, || layers[..2].iter().all(|layer| is_stored(&sandbox, layer))));
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    waits.store(false, Ordering::SeqCst);
    assert!(child.wait().unwrap().success());
    // Nor afterwards.
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    assert!(layers.iter().all(|layer| is_stored(&sandbox, layer)));
    let index = sandbox.root().join("outcrop.db");
    let forms = tool(&sandbox, &["sqlite3", index.to_str().unwrap(), "select count(*) from blob_layer"]);
    assert_eq!(forms, "3\n");
    sandbox.check();
}

#[test]
fn what_nobody_took_up_for_a_week_is_let_go_by_whoever_sweeps() {
    let killed = killed_after(MB);
    let sandbox = &killed.sandbox;
    let age = |by: &str| {
        let sql = format!("update intent set at = at - {by} * 86400 * 1000000000 where what = 'incoming'");
        let output = std::process::Command::new(find_on_path("sqlite3"))
            .arg(sandbox.root().join("outcrop.db"))
            .arg(sql)
            .output()
            .unwrap();
        assert!(output.status.success());
    };
    age("6");
    sandbox.outcrop(&["ps"]).ok();
    assert_eq!(size(&ingest(sandbox, killed.large())), MB as u64);
    age("2");
    sandbox.outcrop(&["ps"]).ok();
    assert_eq!(size(&ingest(sandbox, killed.large())), 0);
    sandbox.check();
}

#[test]
fn bytes_that_are_wrong_are_not_kept() {
    let sandbox = Sandbox::new();
    let image = image_of(&[tar_of(&[("first", MB)])]);
    let registry = filled(&sandbox, &image);
    let layer = image.manifest.layers[0].clone();
    let once = AtomicBool::new(true);
    let server = Server::start(Some(registry.address), move |asked, _| {
        match is_of(asked, &layer) && once.swap(false, Ordering::SeqCst) {
            true => Reply::Change(Box::new(|told| told.body[MB / 2] ^= 1)),
            false => Reply::Forward,
        }
    });
    let name = format!("{}/app:v1", server.address);
    sandbox.outcrop(&["pull", &name]).fails(1).complains("came with the digest");
    assert_eq!(fs::read_dir(sandbox.root().join("ingest")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(sandbox.root().join("layers")).unwrap().count(), 0);
    sandbox.outcrop(&["pull", &name]).ok();
    sandbox.check();
}

#[test]
fn a_layer_is_unpacked_while_it_comes_and_seen_when_it_is_proved() {
    let sandbox = Sandbox::new().driver("overlay2");
    let image = image_of(&[tar_of(&[("first", 2 * MB), ("second", 2 * MB)])]);
    let registry = filled(&sandbox, &image);
    let stuck = Arc::new(AtomicBool::new(true));
    let server = stuck_after(&registry, &image.manifest.layers[0], 3 * MB, &stuck, |_| Reply::Forward);
    let name = format!("{}/app:v1", server.address);
    let child = start(&sandbox, &["pull", &name]);
    let unpacked = || {
        let trees = fs::read_dir(sandbox.root().join("overlay2")).into_iter().flatten().flatten();
        trees.into_iter().any(|tree| size(&tree.path().join("diff/first")) == 2 * MB as u64)
    };
    assert!(wait_until(LONG, unpacked));
    assert!(!is_stored(&sandbox, &image.manifest.layers[0]));
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().stdout(), "");
    kill(child);
    sandbox.outcrop(&["ps"]).ok();
    assert!(!unpacked());
    stuck.store(false, Ordering::SeqCst);
    sandbox.outcrop(&["pull", &name]).ok();
    assert!(unpacked());
    sandbox.check();
}

#[test]
fn pulls_killed_at_any_moment_come_to_their_end_over_a_line_that_breaks() {
    let sandbox = Sandbox::new();
    let image = image_of(&[
        tar_of(&[("a", 3 * MB)]),
        tar_of(&[("b", 700_000), ("c", 2 * MB)]),
        tar_of(&[("d", 10)]),
        tar_of(&[("a", 2 * MB)]),
    ]);
    let registry = filled(&sandbox, &image);
    // Each connection breaks after a megabyte.
    let server = Server::start(Some(registry.address), |asked, _| match asked.is_blob() {
        true => Reply::Change(Box::new(|told| {
            told.length = Some(told.body.len());
            told.cut = Some(MB);
        })),
        false => Reply::Forward,
    });
    let name = format!("{}/app:v1", server.address);
    for round in 0..12_u64 {
        let child = start(&sandbox, &["pull", &name]);
        // Spread over what it takes, whatever that is.
        std::thread::sleep(Duration::from_millis(round * 37 % 450));
        kill(child);
        if round % 5 == 4 {
            sandbox.outcrop(&["ps"]).ok();
            sandbox.check();
        }
    }
    sandbox.outcrop(&["pull", &name]).ok();
    let id = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", &name]).ok().line();
    assert_eq!(id, Digest::of(&image.config).to_string());
    sandbox.outcrop(&["layers", &name]).ok();
    sandbox.check();
    assert_eq!(fs::read_dir(sandbox.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn a_layer_of_a_cache_goes_on_where_a_killed_build_was() {
    for driver in ["overlay2", "vfs"] {
        let machine = || {
            let sandbox = Sandbox::new().driver(driver);
            sandbox.file("large", noise("cached", 3 * MB));
            sandbox.file("small", "small");
            sandbox.dockerfile("FROM scratch\nCOPY small /\nCOPY large /\n");
            sandbox
        };
        let first = machine();
        let registry = RealRegistry::start(&first);
        let cache = format!("{}/cache:main", registry.address);
        let to = format!("type=registry,ref={cache},mode=max");
        first.outcrop(&["build", "--cache-to", &to, "."]).ok();
        let stuck = Arc::new(AtomicBool::new(true));
        let server = Server::start(Some(registry.address), {
            let stuck = Arc::clone(&stuck);
            move |_, _| {
                let stuck = stuck.load(Ordering::SeqCst);
                Reply::Change(Box::new(move |told| {
                    if stuck && told.body.len() > 2 * MB {
                        told.length = Some(told.body.len());
                        told.cut = Some(MB);
                        told.stall = Duration::from_secs(25);
                    }
                }))
            }
        });
        let second = machine();
        let build = ["build", "--cache-from", &format!("{}/cache:main", server.address), "-t", "it", "."];
        let child = start(&second, &build);
        let ingest = second.root().join("ingest");
        let half = || {
            let mut coming = fs::read_dir(&ingest).into_iter().flatten().flatten();
            coming.any(|blob| size(&blob.path()) == MB as u64)
        };
        assert!(wait_until(LONG, half));
        kill(child);
        stuck.store(false, Ordering::SeqCst);
        second.outcrop(&build).ok();
        assert_eq!(crate::cache_export::ran(&second), [""; 0], "{driver}");
        let asked = server.asked();
        let again: Vec<&Asked> = asked.iter().filter(|asked| asked.header("range").is_some()).collect();
        let [rest] = &again[..] else { panic!("{driver}: {again:?}") };
        assert_eq!(rest.header("range"), Some("bytes=1000000-"));
        assert_eq!(asked.iter().filter(|asked| asked.path == rest.path).count(), 2, "{driver}");
        // Nothing stays of what came: the layers are here as files.
        assert_eq!(fs::read_dir(&ingest).unwrap().count(), 0);
        second.check();
    }
}

#[test]
fn a_registry_that_gives_no_ranges_is_read_from_the_beginning() {
    let ignores: Later = |asked| match asked.header("range") {
        Some(_) => Reply::Forge("range", String::new()),
        None => Reply::Forward,
    };
    let refuses: Later = |asked| match asked.header("range") {
        Some(_) => Reply::Answer(Told::new(416, &[], "")),
        None => Reply::Forward,
    };
    for (later, asked) in
        [(ignores, &["all", "bytes=1000000-"][..]), (refuses, &["all", "bytes=1000000-", "all"])]
    {
        let killed = killed(MB, later);
        killed.sandbox.outcrop(&["pull", &killed.name]).ok();
        assert_eq!(ranges(&killed.server, killed.large()), asked);
        killed.is_whole();
    }
}

/// The layer of an image of one, by way of this server; the ranges that were asked for of it, sorted.
fn fetched(registry: &RealRegistry, image: &Image, later: Later) -> (Vec<u8>, Vec<String>) {
    let server = Server::start(Some(registry.address), move |asked, _| later(asked));
    let name: Reference = format!("{}/app:v1", server.address).parse().unwrap();
    let source = Registry::of(&name, &Options::default()).unwrap();
    let job = Job::silent();
    let found = find(&job, &source, &name, &"linux/amd64".parse().unwrap()).unwrap();
    let bytes = Mutex::default();
    let deliver = |_: &Layer<'_>, stream: &mut Stream<'_>| {
        stream.read_to_end(&mut bytes.lock().unwrap()).context(|| "reading a layer").map(drop)
    };
    found.fetch(&job, &source, |_| Ok(true), deliver).unwrap();
    let mut ranges = ranges(&server, &image.manifest.layers[0]);
    ranges.sort();
    (bytes.into_inner().unwrap(), ranges)
}

#[test]
fn a_large_layer_comes_in_parts_each_once() {
    let sandbox = Sandbox::new();
    let image = Image::of("linux/amd64", &[70 << 20]);
    let registry = filled(&sandbox, &image);
    let size = image.layers[0].len();

    let (bytes, parts) = fetched(&registry, &image, |_| Reply::Forward);
    assert!(bytes == image.layers[0]);
    let mut expected: Vec<String> = (0..size.div_ceil(8 << 20))
        .map(|n| match ((n + 1) << 23).min(size) {
            end if end == size => format!("bytes={}-", n << 23),
            end => format!("bytes={}-{}", n << 23, end - 1),
        })
        .collect();
    expected.sort();
    assert_eq!(parts, expected);

    // One that does not care for ranges gives all of it to the first request.
    let ignores: Later = |asked| match asked.header("range") {
        Some(_) => Reply::Forge("range", String::new()),
        None => Reply::Forward,
    };
    let (bytes, parts) = fetched(&registry, &image, ignores);
    assert!(bytes == image.layers[0]);
    assert_eq!(parts, ["bytes=0-8388607"]);

    // One that refuses them is asked for all of it.
    let refuses: Later = |asked| match asked.header("range") {
        Some(_) => Reply::Answer(Told::new(403, &[], "")),
        None => Reply::Forward,
    };
    let (bytes, parts) = fetched(&registry, &image, refuses);
    assert!(bytes == image.layers[0]);
    assert_eq!(parts, ["all", "bytes=0-8388607"]);

    // Where only later ones are refused, one connection goes on alone.
    let tires: Later = |asked| match asked.header("range") {
        Some("bytes=0-8388607") | None => Reply::Forward,
        Some(_) => Reply::Answer(Told::new(403, &[], "")),
    };
    let (bytes, _) = fetched(&registry, &image, tires);
    assert!(bytes == image.layers[0]);
}

/// A push of an image with a layer of 70 MB, killed when its second piece was on its way.
fn killed_push() -> (Sandbox, Image, String, RealRegistry, Server) {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = image_of(&[tar_of(&[("large", 70 * MB)])]);
    let layout = Layout::single(&sandbox.dir().join("layout"), &image);
    let archive = sandbox.dir().join("image.tar");
    let tar = std::process::Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout.dir)
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    let stuck = AtomicBool::new(true);
    let server = Server::start(Some(registry.address), move |asked, _| {
        match asked.method == "PATCH"
            && range_of(asked) != "0-33554431"
            && stuck.swap(false, Ordering::SeqCst)
        {
            true => Reply::Silent(Duration::from_secs(25)),
            false => Reply::Forward,
        }
    });
    let name = format!("{}/app:v1", server.address);
    let loaded = sandbox.outcrop(&["load", "-q", "-i", archive.to_str().unwrap()]).ok().line();
    let id = loaded.rsplit(' ').next().unwrap();
    sandbox.outcrop(&["tag", id, &name]).ok();
    let child = start(&sandbox, &["push", &name]);
    let is_stuck = || server.asked().iter().filter(|asked| asked.method == "PATCH").count() == 2;
    assert!(wait_until(LONG, is_stuck));
    kill(child);
    (sandbox, image, name, registry, server)
}

fn range_of(asked: &Asked) -> &str {
    asked.header("content-range").unwrap_or("all")
}

/// Of pieces that were sent.
fn pieces(server: &Server) -> Vec<String> {
    let asked = server.asked();
    let patches = asked.iter().filter(|asked| asked.method == "PATCH");
    patches.map(|asked| range_of(asked).to_owned()).collect()
}

/// The layer as another tool finds it there.
fn is_there(registry: &RealRegistry, image: &Image) {
    let name: Reference = format!("{}/app:v1", registry.address).parse().unwrap();
    let source = Registry::of(&name, &Options::default()).unwrap();
    let mut bytes = Vec::new();
    source
        .blob(&Job::silent(), &name, &image.manifest.layers[0], 0)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(bytes == image.layers[0]);
}

#[test]
fn a_killed_push_goes_on_in_the_middle_of_a_layer() {
    let (sandbox, image, name, registry, server) = killed_push();
    let end = image.layers[0].len() - 1;
    let sent = ["0-33554431", "33554432-67108863"];
    assert_eq!(pieces(&server), sent);
    sandbox.outcrop(&["ps"]).ok();
    sandbox.outcrop(&["push", &name]).ok();
    assert_eq!(pieces(&server)[2..], ["33554432-67108863".to_owned(), format!("67108864-{end}")]);
    is_there(&registry, &image);
    // It is over: nothing is left to go on with.
    let before = pieces(&server).len();
    sandbox.outcrop(&["push", &name]).ok();
    assert_eq!(pieces(&server).len(), before);
    sandbox.check();
}

#[test]
fn an_upload_that_the_registry_no_longer_knows_begins_anew() {
    let (sandbox, image, name, registry, server) = killed_push();
    let storage = sandbox.dir().join("registry0/data/docker/registry/v2/repositories/app/_uploads");
    fs::remove_dir_all(storage).unwrap();
    sandbox.outcrop(&["push", &name]).ok();
    assert_eq!(pieces(&server)[2..4], ["0-33554431", "33554432-67108863"]);
    is_there(&registry, &image);
    sandbox.check();
}

#[test]
fn a_registry_that_takes_no_pieces_gets_the_whole() {
    let (sandbox, image, _, registry, _) = killed_push();
    let server = Server::start(Some(registry.address), |asked, _| {
        match asked.method == "PATCH" && asked.header("content-range").is_some() {
            true => Reply::Answer(Told::new(416, &[], "")),
            false => Reply::Forward,
        }
    });
    let (old, name) = (sandbox.outcrop(&["images", "-q"]).ok().line(), format!("{}/app:v1", server.address));
    sandbox.outcrop(&["tag", &old, &name]).ok();
    sandbox.outcrop(&["push", &name]).ok();
    assert_eq!(pieces(&server), ["0-33554431", "all"]);
    is_there(&registry, &image);
}
