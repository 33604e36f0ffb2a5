//! Pushing to a real registry, and to one that misbehaves.

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outcrop::error::{Kind, Result};
use outcrop::image::{Descriptor, Digest, Index, Manifest, MediaType, Reference};
use outcrop::job::Job;
use outcrop::registry::{Options, Outgoing, Patience, Placed, Registry};
use outcrop::transfer::Source as _;

use crate::registry_kit::{Asked, Image, Layout, RealRegistry, Reply, Server, Told, noise, tarred};
use crate::sandbox::{Outcome, Sandbox, find_on_path, wait_until};

/// Short waits.
pub(crate) fn quick() -> Options {
    let patience = Patience {
        tries: 4,
        first: Duration::from_millis(4),
        most: Duration::from_millis(20),
        asked: Duration::from_secs(2),
    };
    Options { patience, ..Options::default() }
}

pub(crate) fn at(address: SocketAddr, rest: &str) -> Reference {
    format!("{address}/{rest}").parse().unwrap()
}

fn push_bytes(registry: &Registry, name: &Reference, bytes: &[u8], seen_in: &[&str]) -> Result<Placed> {
    let blob = Descriptor::of(MediaType::from("application/octet-stream"), bytes);
    let seen_in: Vec<String> = seen_in.iter().map(|one| (*one).to_owned()).collect();
    let open = |offset: u64| {
        let rest = bytes[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Box::new(std::io::Cursor::new(rest)) as Box<dyn Read + Send>)
    };
    let outgoing = Outgoing::new(&blob, &seen_in, &open);
    registry.push_blob(&Job::silent(), name, &outgoing)
}

#[test]
fn a_blob_is_uploaded_once_and_mounted_where_it_is_known_from() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let name = at(real.address, "app:1");
    let registry = Registry::of(&name, &Options::default()).unwrap();
    for size in [0, 1, 1000, 5_000_000] {
        let bytes = noise(&size.to_string(), size);
        assert_eq!(push_bytes(&registry, &name, &bytes, &[]).unwrap(), Placed::Uploaded, "{size}");
        assert_eq!(push_bytes(&registry, &name, &bytes, &[]).unwrap(), Placed::Exists, "{size}");
        let other = at(real.address, "deep/er:1");
        let placed = push_bytes(&registry, &other, &bytes, &["not/there", "app"]).unwrap();
        assert_eq!(placed, Placed::Mounted("app".into()), "{size}");
    }
}

#[test]
fn a_manifest_comes_after_its_blobs_under_tag_and_digest() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let name = at(real.address, "app:1");
    let registry = Registry::of(&name, &Options::default()).unwrap();
    let image = Image::of("linux/amd64", &[10, 70_000]);
    let manifest = image.descriptor();
    let early =
        registry.push_manifest(&Job::silent(), &name, "1", &manifest, &image.manifest_raw).unwrap_err();
    assert!(early.message().contains("did not take the manifest `1`"), "{early}");
    for blob in image.layers.iter().chain([&image.config]) {
        push_bytes(&registry, &name, blob, &[]).unwrap();
    }
    for selector in ["1", &manifest.digest.to_string()] {
        registry.push_manifest(&Job::silent(), &name, selector, &manifest, &image.manifest_raw).unwrap();
    }
}

/// Standard output without the lines of layers, which come in any order, and those sorted.
fn said(outcome: &Outcome) -> (Vec<String>, Vec<String>) {
    let is_layer = |line: &String| line.split_once(": ").is_some_and(|(id, _)| id.len() == 12);
    let (mut layers, rest): (Vec<_>, Vec<_>) = outcome.lines().into_iter().partition(is_layer);
    layers.retain(|line| !line.ends_with(": Preparing"));
    let mut layers: Vec<String> =
        layers.iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect();
    layers.sort();
    (rest, layers)
}

/// What skopeo says of an image; `--raw` gives the manifest's bytes.
fn inspect(name: &str, options: &[&str]) -> Vec<u8> {
    let output = Command::new(find_on_path("skopeo"))
        .args(["inspect", "--tls-verify=false"])
        .args(options)
        .arg(format!("docker://{name}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Every byte of it arrives somewhere else, as a judge reads them.
fn copy_elsewhere(sandbox: &Sandbox, name: &str) -> PathBuf {
    let number = (0..).find(|n| !sandbox.dir().join(format!("copy{n}")).exists()).unwrap();
    let dir = sandbox.dir().join(format!("copy{number}"));
    let output = Command::new(find_on_path("skopeo"))
        .args(["copy", "--insecure-policy", "--src-tls-verify=false", "--quiet", "--all"])
        .args([format!("docker://{name}"), format!("oci:{}:x", dir.display())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dir
}

/// `name`, of two layers on a base of one.
fn build(sandbox: &Sandbox, name: &str) {
    sandbox.base_image("base");
    sandbox.file("one", "one");
    sandbox.file("two", noise("two", 3_000_000));
    sandbox.dockerfile("FROM base\nCOPY one /\nCOPY two /\n");
    sandbox.outcrop(&["build", "-q", "-t", name, "."]).ok();
}

#[test]
fn a_built_image_is_pushed_once_and_found_there_the_second_time() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let name = format!("{}/deep/app", registry.address);
    build(&sandbox, &name);
    let first = sandbox.outcrop(&["push", &name]).ok();
    let raw = inspect(&format!("{name}:latest"), &["--raw"]);
    let digest = Digest::of(&raw);
    let head = ["Using default tag: latest".to_owned(), format!("The push refers to repository [{name}]")];
    let rest = [&head[..], &[format!("latest: digest: {digest} size: {}", raw.len())]].concat();
    assert_eq!(said(&first), (rest.clone(), vec!["Pushed".to_owned(); 3]));
    let second = sandbox.outcrop(&["push", &name]).ok();
    assert_eq!(said(&second), (rest, vec!["Layer already exists".to_owned(); 3]));
    assert_eq!(inspect(&format!("{name}:latest"), &["--raw"]), raw);
    // The config there is the image here, and the layers unpack to what was built.
    let id = sandbox.outcrop(&["images", "-q", "--no-trunc", &name]).ok().line();
    let manifest = Manifest::parse(&raw).unwrap();
    assert_eq!(manifest.config.digest.to_string(), id);
    let copy = copy_elsewhere(&sandbox, &format!("{name}:latest"));
    let other = Sandbox::new();
    other.dockerfile("FROM app\nRUN [ \"$(cat /one)\" = one ] && [ $(wc -c < /two) = 3000000 ]\n");
    let layout = format!("app=oci-layout://{}:x", copy.display());
    other.outcrop(&["build", "-q", "--build-context", &layout, "."]).ok();
    let digests = sandbox.outcrop(&["images", "--digests", "--format", "{{.Digest}}", &name]).ok().line();
    assert_eq!(digests, digest.to_string());
    sandbox.check();
}

#[test]
fn a_pulled_image_goes_on_unchanged_and_its_layers_are_mounted() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let other = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a", "b"]);
    for (format, n) in [("oci", 1), ("v2s2", 2)] {
        let layout = Layout::single(&sandbox.dir().join(format!("layout{n}")), &image);
        registry.push_with(&layout, &format!("app:{n}"), &["--format", format]);
        let name = format!("{}/app:{n}", registry.address);
        let raw = inspect(&name, &["--raw"]);
        sandbox.outcrop(&["pull", "-q", &name]).ok();
        for (registry, how) in [(&registry, "Mounted from app"), (&other, "Pushed")] {
            let how = if n == 2 { "Layer already exists" } else { how };
            let to = format!("{}/other/name:{n}", registry.address);
            sandbox.outcrop(&["tag", &name, &to]).ok();
            let outcome = sandbox.outcrop(&["push", &to]).ok();
            assert_eq!(said(&outcome).1, vec![how.to_owned(); 2], "{to}");
            assert_eq!(inspect(&to, &["--raw"]), raw, "{to}");
        }
    }
    sandbox.check();
}

#[test]
fn an_index_goes_whole_where_its_images_are_and_alone_where_not() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let other = RealRegistry::start(&sandbox);
    let (amd, arm) = (tarred("linux/amd64", &["a"]), tarred("linux/arm64", &["b"]));
    let layout = Layout::index(&sandbox.dir().join("layout"), &[&amd, &arm]);
    registry.push(&layout, "app:1");
    let name = format!("{}/app", registry.address);
    sandbox.outcrop(&["pull", "-q", "--platform", "linux/amd64", &format!("{name}:1")]).ok();
    sandbox.outcrop(&["tag", &format!("{name}:1"), &format!("{name}:2")]).ok();
    // A tag by hand knows the image alone: the manifest is the one it came with all the same.
    sandbox.outcrop(&["push", &format!("{name}:1")]).ok();
    assert_eq!(inspect(&format!("{name}:1"), &["--raw"]), layout.index_raw.clone().unwrap());
    let to = format!("{}/app:1", other.address);
    sandbox.outcrop(&["tag", &format!("{name}:1"), &to]).ok();
    sandbox.outcrop(&["push", &to]).ok();
    assert_eq!(inspect(&to, &["--raw"]), amd.manifest_raw);
}

#[test]
fn layers_are_compressed_as_asked_for() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let name = format!("{}/app", registry.address);
    build(&sandbox, &name);
    for (how, suffix) in [("zstd", "+zstd"), ("none", ""), ("gzip", "+gzip")] {
        for _ in 0..2 {
            sandbox
                .outcrop(&["push", "-q", "--compression", how, &name])
                .ok()
                .says(&format!("{name}:latest"));
        }
        let manifest = Manifest::parse(&inspect(&format!("{name}:latest"), &["--raw"])).unwrap();
        let expected = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        for layer in &manifest.layers {
            assert_eq!(layer.media_type.to_string(), expected);
        }
        copy_elsewhere(&sandbox, &format!("{name}:latest"));
    }
    let gzip = inspect(&format!("{name}:latest"), &["--raw"]);
    sandbox.outcrop(&["push", "-q", "--compression", "gzip", "--compression-level", "1", &name]).ok();
    assert!(inspect(&format!("{name}:latest"), &["--raw"]) != gzip);
    sandbox.check();
}

#[test]
fn the_same_image_has_the_same_manifest_wherever_it_is_built_and_pushed() {
    let raws: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let sandbox = Sandbox::new().variable("SOURCE_DATE_EPOCH", "1700000000");
            let registry = RealRegistry::start(&sandbox);
            sandbox.file("two", "two".repeat(1000));
            sandbox.dockerfile("FROM scratch\nCOPY two /\n");
            let name = format!("{}/app", registry.address);
            sandbox.outcrop(&["build", "-q", "-t", &name, "."]).ok();
            sandbox.outcrop(&["push", "-q", &name]).ok();
            inspect(&format!("{name}:latest"), &["--raw"])
        })
        .collect();
    assert_eq!(raws[0], raws[1]);
}

#[test]
fn all_tags_of_a_repository_go_at_once() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    sandbox.base_image("base");
    let name = format!("{}/app", registry.address);
    for tag in ["1", "2", "x.y"] {
        sandbox.outcrop(&["tag", "base", &format!("{name}:{tag}")]).ok();
    }
    let outcome = sandbox.outcrop(&["push", "--all-tags", "-q", &name]).ok();
    assert_eq!(outcome.lines(), ["1", "2", "x.y"].map(|tag| format!("{name}:{tag}")));
    for tag in ["1", "2", "x.y"] {
        inspect(&format!("{name}:{tag}"), &[]);
    }
    sandbox
        .outcrop(&["push", "-a", &format!("{name}:1")])
        .fails(1)
        .complains("tag can't be used with --all-tags");
}

#[test]
fn what_cannot_be_pushed_is_said_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    sandbox
        .outcrop(&["push", "127.0.0.1:1/absent"])
        .fails(1)
        .complains("An image does not exist locally with the tag: 127.0.0.1:1/absent:latest");
    sandbox.outcrop(&["push", "-a", "127.0.0.1:1/absent"]).fails(1).complains("127.0.0.1:1/absent");
    let digest = Digest::of(b"");
    sandbox.outcrop(&["push", &format!("127.0.0.1:1/x@{digest}")]).fails(1).complains("holds a digest");
    sandbox.base_image("base");
    sandbox.outcrop(&["tag", "base", "127.0.0.1:1/base"]).ok();
    sandbox.outcrop(&["push", "127.0.0.1:1/base"]).fails(1).complains("127.0.0.1:1 cannot be reached");
}

/// Pushes these bytes by way of a server that misbehaves; the requests that it got. `reply` gets each request and how
/// many of the same method came before it.
pub(crate) fn push_through(
    bytes: &[u8],
    reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
) -> (Result<Placed>, Vec<Asked>) {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let counts: Mutex<HashMap<String, usize>> = Mutex::default();
    let server = Server::start(Some(real.address), move |asked, _| {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(asked.method.clone()).or_default();
        *count += 1;
        reply(asked, *count - 1)
    });
    let name = at(server.address, "app:1");
    let registry = Registry::of(&name, &quick()).unwrap();
    let placed = push_bytes(&registry, &name, bytes, &[]);
    if placed.is_ok() {
        let found = registry.has_blob(&Job::silent(), &name, &Digest::of(bytes)).unwrap();
        assert!(found);
        // Behind it are the very bytes.
        let behind = at(real.address, "app:1");
        let direct = Registry::of(&behind, &quick()).unwrap();
        let blob = Descriptor::of(MediaType::from("application/octet-stream"), bytes);
        let mut back = Vec::new();
        direct.blob(&Job::silent(), &behind, &blob, 0).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == bytes);
    }
    (placed, server.asked())
}

/// What was sent: methods of uploads, with the first byte where one is said.
pub(crate) fn uploads(asked: &[Asked]) -> Vec<String> {
    let upload = asked.iter().filter(|asked| asked.is_upload());
    let first =
        |asked: &Asked| asked.header("content-range").map(|range| format!(" {range}")).unwrap_or_default();
    upload.map(|asked| format!("{}{}", asked.method, first(asked))).collect()
}

pub(crate) const LARGE: usize = 3_000_000;

/// Distribution's registry gives up an upload whose connection broke in the middle of a request: it keeps the bytes, and takes no
/// address any more, as these say how many it had before.
#[test]
fn a_dropped_upload_begins_anew_where_the_registry_gave_it_up() {
    let bytes = noise("dropped", LARGE);
    let (placed, asked) = push_through(&bytes, |asked, before| match asked.method.as_str() {
        "PATCH" if before == 0 => Reply::Break(1_000_000),
        _ => Reply::Forward,
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    let uploads: Vec<String> =
        uploads(&asked).iter().map(|asked| asked.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(uploads[..3], ["POST", "PATCH", "GET"]);
    assert_eq!(uploads[uploads.len() - 2..], ["PATCH", "PUT"], "{uploads:?}");
    // What comes between depends on when the registry notices: it may go on telling of the upload meanwhile, and even take
    // the rest into it, and refuse the whole.
    let begun = uploads.iter().filter(|method| *method == "POST").count();
    let sent = uploads.iter().filter(|method| *method == "PATCH").count();
    assert!((1..=3).contains(&begun) && (2..=5).contains(&sent), "{uploads:?}");
}

#[test]
fn an_upload_goes_on_where_the_registry_says() {
    let bytes = noise("goes on", 12_000_000);
    let (placed, asked) = push_through(&bytes, |asked, before| {
        let length: u64 = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        match asked.method.as_str() {
            _ if length > 6_000_000 => Reply::Answer(Told::new(413, &[], "")),
            "PATCH" if before == 2 => Reply::Hang,
            _ => Reply::Forward,
        }
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    let last = ["PATCH 5242880-10485759", "GET", "PATCH 5242880-10485759", "PATCH 10485760-11999999", "PUT"];
    let uploads = uploads(&asked);
    assert_eq!(uploads[uploads.len() - 5..], last);
    assert_eq!(uploads.iter().filter(|one| *one == "POST").count(), 1);
}

#[test]
fn small_blobs_are_sent_with_the_last_request_and_again_if_it_breaks() {
    let bytes = noise("small", 1000);
    let (placed, asked) = push_through(&bytes, |asked, before| match asked.method.as_str() {
        "PUT" if before == 0 => Reply::Break(100),
        _ => Reply::Forward,
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    assert_eq!(uploads(&asked)[..2], ["POST", "PUT"]);
}

#[test]
fn a_registry_that_is_busy_or_broken_is_asked_again() {
    for (method, status) in [("POST", 429), ("PATCH", 503), ("PATCH", 500), ("PUT", 502), ("HEAD", 500)] {
        let bytes = noise("busy", LARGE);
        let (placed, asked) = push_through(&bytes, move |asked, before| {
            let first = before == 0 && asked.method == method;
            if first { Reply::Answer(Told::new(status, &[("Retry-After", "0")], "")) } else { Reply::Forward }
        });
        assert_eq!(placed.unwrap(), Placed::Uploaded, "{method} {status}");
        assert!(asked.iter().filter(|asked| asked.method == method).count() >= 2, "{method} {status}");
    }
}

#[test]
fn an_answer_that_was_lost_is_found_out_and_nothing_is_sent_twice() {
    let bytes = noise("lost", LARGE);
    let (placed, asked) = push_through(&bytes, |asked, before| match asked.method.as_str() {
        "PUT" if before == 0 => Reply::Change(Box::new(|told| *told = Told::new(502, &[], ""))),
        _ => Reply::Forward,
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    assert_eq!(uploads(&asked), ["POST", "PATCH", "PUT"]);
}

#[test]
fn an_upload_that_the_registry_forgot_begins_anew() {
    let bytes = noise("forgot", LARGE);
    let (placed, asked) = push_through(&bytes, |asked, before| match asked.method.as_str() {
        "PATCH" if before == 0 => {
            let said = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"gone"}]}"#;
            Reply::Answer(Told::new(404, &[], said))
        }
        _ => Reply::Forward,
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    assert_eq!(uploads(&asked).iter().filter(|one| *one == "POST").count(), 2);
}

#[test]
fn a_registry_that_forgets_every_upload_in_its_middle_is_given_up() {
    let bytes = noise("forgets", 12_000_000);
    let (placed, asked) = push_through(&bytes, |asked, before| {
        let length: u64 = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        let range = asked.header("content-range").unwrap_or("0-");
        match asked.method.as_str() {
            // So that the pieces are small.
            _ if length > 6_000_000 => Reply::Answer(Told::new(413, &[], "")),
            // Nobody goes on for so long.
            "PATCH" if before < 15 && !range.starts_with("0-") => {
                let said = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"gone"}]}"#;
                Reply::Answer(Told::new(404, &[], said))
            }
            _ => Reply::Forward,
        }
    });
    assert_eq!(placed.unwrap_err().kind(), Kind::Unavailable);
    let firsts = uploads(&asked).into_iter().filter(|one| one == "PATCH 0-5242879");
    assert_eq!(firsts.count(), 4);
}

#[test]
fn a_wrong_range_never_leads_to_wrong_bytes() {
    for range in ["0-9", "0-2999999999", "nonsense", "5-7"] {
        let bytes = noise("range", LARGE);
        let (placed, _) = push_through(&bytes, move |asked, before| match asked.method.as_str() {
            "PATCH" if before == 0 => Reply::Change(Box::new(move |told| {
                told.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
                told.headers.push(("Range".into(), range.into()));
            })),
            _ => Reply::Forward,
        });
        // Either it came right in the end, or it is an error.
        if let Err(error) = placed {
            assert!(matches!(error.kind(), Kind::Corrupt | Kind::Unavailable), "{range}: {error}");
        }
    }
}

#[test]
fn what_limits_the_size_of_requests_gets_smaller_ones() {
    let bytes = noise("large", 12_000_000);
    let (placed, asked) = push_through(&bytes, |asked, _| {
        let length: u64 = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        if length > 6_000_000 { Reply::Answer(Told::new(413, &[], "")) } else { Reply::Forward }
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    let patches = uploads(&asked).into_iter().filter(|one| one.starts_with("PATCH"));
    assert_eq!(
        patches.collect::<Vec<_>>(),
        ["PATCH", "PATCH 0-5242879", "PATCH 5242880-10485759", "PATCH 10485760-11999999"]
    );
}

#[test]
fn a_registry_that_never_recovers_is_given_up() {
    let bytes = noise("never", LARGE);
    let (placed, asked) = push_through(&bytes, |asked, _| match asked.method.as_str() {
        "PATCH" => Reply::Hang,
        _ => Reply::Forward,
    });
    assert_eq!(placed.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(asked.iter().filter(|asked| asked.method == "PATCH").count(), 4);
}

#[test]
fn bytes_that_are_not_those_of_the_digest_are_an_error() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let name = at(real.address, "app:1");
    let registry = Registry::of(&name, &quick()).unwrap();
    let blob = Descriptor::of(MediaType::from("application/octet-stream"), b"right");
    let open = |_| Ok(Box::new(&b"wrong"[..]) as Box<dyn Read + Send>);
    let outgoing = Outgoing::new(&blob, &[], &open);
    let error = registry.push_blob(&Job::silent(), &name, &outgoing).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(!registry.has_blob(&Job::silent(), &name, &blob.digest).unwrap());
}

#[test]
fn a_killed_push_goes_on_and_does_nothing_twice() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    fn is_large(asked: &Asked) -> bool {
        asked.header("content-length").is_some_and(|length| length.parse::<u64>().unwrap() > 2_500_000)
    }
    // The large layer never gets through the first time.
    let stuck = Arc::new(AtomicBool::new(true));
    let server = Server::start(Some(real.address), {
        let stuck = stuck.clone();
        move |asked, _| match is_large(asked) && stuck.load(Ordering::SeqCst) {
            true => Reply::Silent(Duration::from_secs(20)),
            false => Reply::Forward,
        }
    });
    let name = format!("{}/app", server.address);
    build(&sandbox, &name);
    let mut child = sandbox.command(&["push", &name]).stdout(Stdio::null()).spawn().unwrap();
    let is_stuck = || {
        let asked = server.asked();
        asked.iter().any(is_large) && asked.iter().filter(|asked| asked.method == "PUT").count() == 2
    };
    assert!(wait_until(Duration::from_secs(60), is_stuck));
    child.kill().unwrap();
    child.wait().unwrap();
    stuck.store(false, Ordering::SeqCst);
    let before = server.asked().len();
    let outcome = sandbox.outcrop(&["push", &name]).ok();
    assert_eq!(said(&outcome).1, ["Layer already exists", "Layer already exists", "Pushed"]);
    // One blob and the config were left, then the manifest.
    let after = server.asked();
    let posts = after[before..].iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts, 2);
    copy_elsewhere(&sandbox, &format!("{}/app:latest", real.address));
    sandbox.check();
}

#[test]
fn a_build_pushes_what_it_made() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    sandbox.base_image("base");
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM base\nCOPY one /\n");
    let name = format!("{}/app", registry.address);
    // In the form that was asked for, with what was said of it.
    let output = format!("type=registry,name={name}:a,compression=zstd,annotation.k=v");
    sandbox.outcrop(&["build", "-o", &output, "."]).ok().says("a: digest: sha256:");
    let manifest = Manifest::parse(&inspect(&format!("{name}:a"), &["--raw"])).unwrap();
    assert_eq!(manifest.annotations["k"], "v");
    assert!(manifest.layers.iter().all(|layer| layer.media_type.to_string().ends_with("+zstd")));
    // Under each name; the second push of the same bytes sends no layer.
    let (b, c) = (format!("{name}:b"), format!("{}/other:c", registry.address));
    let outcome = sandbox.outcrop(&["build", "--push", "-t", &b, "-t", &c, "."]).ok();
    outcome.says("b: digest: sha256:").says("c: digest: sha256:").says("Mounted from app");
    assert_eq!(inspect(&b, &["--raw"]), inspect(&c, &["--raw"]));
    let id = sandbox.outcrop(&["images", "-q", "--no-trunc", &b]).ok().line();
    let manifest = Manifest::parse(&inspect(&b, &["--raw"])).unwrap();
    assert_eq!(manifest.config.digest.to_string(), id);
    // A push by name afterwards gives the same manifest.
    let raw = inspect(&b, &["--raw"]);
    sandbox.outcrop(&["push", "-q", &b]).ok();
    assert_eq!(inspect(&b, &["--raw"]), raw);
    sandbox.check();
}

#[test]
fn a_build_for_several_platforms_pushes_an_index_also_by_digest_alone() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM scratch\nCOPY one /\nARG TARGETARCH\nENV ARCH=$TARGETARCH\n");
    let name = format!("{}/app", registry.address);
    let platforms = ["build", "--platform", "linux/amd64,linux/arm64"];
    let output = format!("type=image,push=true,name={name}:1");
    sandbox.outcrop(&[&platforms[..], &["-o", &output, "."]].concat()).ok();
    let index = Index::parse(&inspect(&format!("{name}:1"), &["--raw"])).unwrap();
    assert_eq!(index.manifests.len(), 2);
    let copy = copy_elsewhere(&sandbox, &format!("{name}:1"));
    assert!(copy.join("index.json").exists());
    // The name there leads to the whole index, and a push by name sends all of it.
    let raw = inspect(&format!("{name}:1"), &["--raw"]);
    let to = format!("{}/elsewhere:1", registry.address);
    let output = format!("type=registry,name={to}");
    sandbox.outcrop(&[&platforms[..], &["-o", &output, "."]].concat()).ok();
    sandbox.outcrop(&["push", "-q", &to]).ok();
    assert_eq!(inspect(&to, &["--raw"]), raw);
    let output = format!("type=image,push=true,push-by-digest=true,name={}/bare", registry.address);
    sandbox.outcrop(&[&platforms[..], &["-o", &output, "--metadata-file", "meta", "."]].concat()).ok();
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sandbox.context().join("meta")).unwrap()).unwrap();
    let digest = meta["containerimage.digest"].as_str().unwrap();
    assert_eq!(inspect(&format!("{}/bare@{digest}", registry.address), &["--raw"]), raw);
}
