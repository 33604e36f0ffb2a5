//! `copy` between registries, layouts, archives, the store, a Docker daemon and containers-storage.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outcrop::image::{Descriptor, Digest, Index, Manifest, MediaType};
use serde_json::Value;

use crate::judge_kit::Court;
use crate::registry_kit::{Image, Layout, RealRegistry, Reply, Server, Told, tarred};
use crate::sandbox::{Outcome, Sandbox, find_on_path, wait_until};

fn skopeo(args: &[&str]) -> Vec<u8> {
    let output = Command::new(find_on_path("skopeo")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The manifest's bytes, as skopeo reads them.
fn raw(place: &str) -> Vec<u8> {
    skopeo(&["inspect", "--tls-verify=false", "--raw", place])
}

/// Reads every byte, as skopeo does; the bytes of each blob by its digest.
fn judged(sandbox: &Sandbox, place: &str) -> BTreeMap<String, Vec<u8>> {
    let number = (0..).find(|n| !sandbox.dir().join(format!("judged{n}")).exists()).unwrap();
    let dir = sandbox.dir().join(format!("judged{number}"));
    let to = format!("dir:{}", dir.display());
    skopeo(&["copy", "--insecure-policy", "--src-tls-verify=false", "--quiet", "--all", place, &to]);
    let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .filter(|(name, _)| name != "version")
        .collect()
}

#[track_caller]
fn copy(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    sandbox.outcrop(&[&["copy"], more].concat())
}

/// A registry with `app:1`, an index of two images, and the bytes of that.
fn indexed(sandbox: &Sandbox) -> (RealRegistry, [Image; 2], Vec<u8>) {
    let registry = RealRegistry::start(sandbox);
    let images = [tarred("linux/amd64", &["a", "b"]), tarred("linux/arm64", &["a", "c"])];
    let layout = Layout::index(&sandbox.dir().join("layout"), &[&images[0], &images[1]]);
    registry.push(&layout, "app:1");
    let raw = layout.index_raw.unwrap();
    (registry, images, raw)
}

#[test]
fn an_index_goes_whole_between_all_places_and_keeps_its_digest() {
    let sandbox = Sandbox::new();
    let (registry, _, index) = indexed(&sandbox);
    let other = RealRegistry::start(&sandbox);
    let dir = sandbox.context();
    let at = |name: &str| dir.join(name).display().to_string();
    let places = [
        format!("docker://{}/app:1", registry.address),
        format!("docker://{}/deep/app:2", other.address),
        format!("oci:{}:v1", at("layout")),
        format!("oci-archive:{}:reg.test/app:v1", at("archive.tar")),
        format!("dir:{}", at("flat")),
        "reg.test/app:v1".to_owned(),
        format!("docker://{}/again:3", registry.address),
    ];
    let expected = judged(&sandbox, &places[0]);
    assert_eq!(expected["manifest.json"], index);
    for pair in places.windows(2) {
        let outcome = copy(&sandbox, &["-q", "--all-platforms", &pair[0], &pair[1]]).ok();
        assert_eq!(outcome.line(), Digest::of(&index).to_string(), "{pair:?}");
        if pair[1] != "reg.test/app:v1" {
            assert_eq!(
                judged(&sandbox, &pair[1]).keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>()
            );
        }
    }
    assert_eq!(judged(&sandbox, &places[6]), expected);
    sandbox.check();
    let archs = sandbox.outcrop(&["images", "-a", "-q"]).ok().lines();
    assert_eq!(archs.len(), 2, "both images of the index are in the store");
}

#[test]
fn one_image_of_an_index_is_copied_unless_all_are_asked_for() {
    let sandbox = Sandbox::new();
    let (registry, [amd, arm], _) = indexed(&sandbox);
    let from = format!("docker://{}/app:1", registry.address);
    let to = |name: &str| format!("docker://{}/{name}", registry.address);
    copy(&sandbox, &["-q", "--platform", "linux/amd64", &from, &to("one:amd")]).ok();
    assert_eq!(raw(&to("one:amd")), amd.manifest_raw);
    copy(&sandbox, &["-q", "--platform", "linux/arm64", &from, &to("one:arm")]).ok();
    assert_eq!(raw(&to("one:arm")), arm.manifest_raw);
    copy(&sandbox, &["--platform", "linux/s390x", &from, &to("one:none")])
        .fails(1)
        .complains("choose with --platform; there is linux/amd64, linux/arm64");
    copy(&sandbox, &["-a", "--platform", "linux/arm64", &from, &to("one:none")]).fails(125);
}

#[test]
fn within_a_registry_layers_are_mounted_and_nothing_is_sent_twice() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let layout = Layout::single(&sandbox.dir().join("layout"), &tarred("linux/amd64", &["a", "b"]));
    registry.push(&layout, "app:1");
    let server = Server::before(&registry);
    let from = format!("docker://{}/app:1", server.address);
    let to = format!("docker://{}/other:2", server.address);
    let said = copy(&sandbox, &[&from, &to]).ok();
    assert_eq!(said.stdout().matches(": Mounted from app").count(), 2, "{}", said.stdout());
    let manifest = raw(&from);
    let last = format!("{to}: digest: {} size: {}", Digest::of(&manifest), manifest.len());
    assert_eq!(said.lines().last(), Some(&last));
    assert_eq!(said.lines().first(), Some(&format!("Copying {from} to {to}")));
    assert!(server.asked().iter().all(|asked| !(asked.method == "GET" && asked.is_blob())));
    let again = copy(&sandbox, &[&from, &to]).ok();
    assert_eq!(again.stdout().matches(": Layer already exists").count(), 2);
    let uploads = server.asked().iter().filter(|asked| asked.is_upload()).count();
    assert_eq!(uploads, 3, "one for each layer and the config, all of them the first time");
    assert!(!sandbox.root().exists(), "no store is made");
}

#[test]
fn a_layout_is_added_to_and_what_it_holds_is_not_fetched_again() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    for (n, files) in [(1, &["a", "b"]), (2, &["a", "c"])] {
        let layout = Layout::single(&sandbox.dir().join(format!("l{n}")), &tarred("linux/amd64", files));
        registry.push(&layout, &format!("app:{n}"));
    }
    let from = |n: u8| format!("docker://{}/app:{n}", registry.address);
    let dir = sandbox.context().join("layout");
    let to = |name: &str| format!("oci:{}:{name}", dir.display());
    copy(&sandbox, &[&from(1), &to("one")]).ok();
    let said = copy(&sandbox, &[&from(2), &to("two")]).ok();
    assert_eq!(said.stdout().matches(": Already exists").count(), 1, "{}", said.stdout());
    assert_eq!(said.stdout().matches(": Copied").count(), 1);
    for n in [1, 2] {
        assert_eq!(raw(&to(["one", "two"][n - 1])), raw(&from(u8::try_from(n).unwrap())));
    }
    // Another image takes the name of the first, and damage is made good.
    let blob = |file: &str| dir.join("blobs/sha256").join(file);
    let manifest = Manifest::parse(&raw(&from(2))).unwrap();
    let layer = blob(&manifest.layers[1].digest.hex());
    let mut bytes = fs::read(&layer).unwrap();
    bytes[30] ^= 1;
    fs::write(&layer, &bytes).unwrap();
    copy(&sandbox, &[&from(2), &to("one")]).ok();
    assert_eq!(raw(&to("one")), raw(&from(2)));
    assert_eq!(Digest::of(&fs::read(&layer).unwrap()), manifest.layers[1].digest);
    let umoci = Command::new(find_on_path("umoci")).args(["ls", "--layout"]).arg(&dir).output().unwrap();
    let mut names: Vec<String> =
        String::from_utf8(umoci.stdout).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    copy(&sandbox, &[&format!("oci:{}", dir.display()), "dir:x"]).ok();
    copy(&sandbox, &[&to("three"), "dir:y"]).fails(1).complains("it has");
    // A tag that came with a full name goes to what is copied under it; the name stays.
    sandbox.base_image("reg.test/app:one");
    sandbox.outcrop(&["save", "--format", "oci-dir", "-o", dir.to_str().unwrap(), "reg.test/app:one"]).ok();
    copy(&sandbox, &["-q", &from(1), &to("one")]).ok();
    assert_eq!(raw(&to("one")), raw(&from(1)));
    copy(&sandbox, &["-q", &to("reg.test/app:one"), "dir:z"]).ok();
}

#[test]
fn a_damaged_source_is_found_out_and_leaves_no_name() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a", "b"]);
    let layout = Layout::single(&sandbox.dir().join("layout"), &image);
    registry.push(&layout, "app:1");
    let wrong = image.manifest.layers[1].digest.to_string();
    let server = Server::start(Some(registry.address), move |asked, _| {
        match asked.method == "GET" && asked.path.ends_with(&wrong) {
            true => Reply::Change(Box::new(|told| told.body[100] ^= 1)),
            false => Reply::Forward,
        }
    });
    let other = RealRegistry::start(&sandbox);
    let from = format!("docker://{}/app:1", server.address);
    let dir = sandbox.context();
    for to in [
        format!("docker://{}/app:1", other.address),
        format!("oci:{}:x", dir.join("layout").display()),
        format!("oci-archive:{}", dir.join("x.tar").display()),
        format!("docker-archive:{}", dir.join("y.tar").display()),
        format!("dir:{}", dir.join("flat").display()),
        "reg.test/app:1".into(),
    ] {
        copy(&sandbox, &[&from, &to]).fails(1).complains("came with the digest");
    }
    for absent in ["x.tar", "y.tar", "flat/manifest.json", "layout/index.json"] {
        assert!(!dir.join(absent).exists(), "{absent}");
    }
    let blobs = fs::read_dir(dir.join("layout/blobs/sha256")).unwrap();
    for file in blobs.map(|file| file.unwrap()) {
        let name = file.file_name().into_string().unwrap();
        assert_eq!(Digest::of(&fs::read(file.path()).unwrap()).hex(), name);
    }
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().stdout(), "");
    let tag = format!("docker://{}/app:1", other.address);
    let inspected =
        Command::new(find_on_path("skopeo")).args(["inspect", "--tls-verify=false", &tag]).output();
    assert!(!inspected.unwrap().status.success());
    sandbox.check();
}

#[test]
fn a_broken_line_is_taken_up_again_in_the_middle_of_a_copy() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = Image::of("linux/amd64", &[3_000_000]);
    let layout = Layout::single(&sandbox.dir().join("layout"), &image);
    registry.push(&layout, "app:1");
    let cut = Server::start(Some(registry.address), |asked, before| {
        match asked.method == "GET" && asked.is_blob() && before == 0 {
            true => Reply::Change(Box::new(|told| told.cut = Some(told.body.len() / 2))),
            false => Reply::Forward,
        }
    });
    let other = RealRegistry::start(&sandbox);
    let first = AtomicBool::new(true);
    let breaks = Server::start(Some(other.address), move |asked, _| match asked.method.as_str() {
        "PATCH" if first.swap(false, Ordering::SeqCst) => Reply::Break(1_000_000),
        _ => Reply::Forward,
    });
    let to = format!("docker://{}/app:1", other.address);
    let way = format!("docker://{}/app:1", breaks.address);
    copy(&sandbox, &["-q", &format!("docker://{}/app:1", cut.address), &way]).ok();
    assert_eq!(raw(&to), image.manifest_raw);
    judged(&sandbox, &to);
}

/// A signature of `subject`, and where it stands.
fn sign(sandbox: &Sandbox, subject: &Descriptor, what: &str) -> Manifest {
    let payload = sandbox.dir().join(format!("payload-{what}"));
    fs::write(&payload, what).unwrap();
    let blob = Descriptor::of(MediaType::Other("application/vnd.test.payload".into()), what.as_bytes());
    let config = Descriptor::of(MediaType::OciEmpty, b"{}");
    let mut manifest = Manifest::new(config, vec![blob]);
    manifest.artifact_type = Some("application/vnd.test.signature".into());
    manifest.subject =
        Some(Box::new(Descriptor::new(subject.media_type.clone(), subject.digest, subject.size)));
    manifest.annotations.insert("what".into(), what.into());
    manifest
}

/// By plain requests, as other clients push; under the tag for referrers as well.
fn push_signature(
    registry: &RealRegistry,
    repository: &str,
    manifest: &Manifest,
    payload: &str,
) -> Descriptor {
    let base = format!("http://{}/v2/{repository}", registry.address);
    for bytes in [payload.as_bytes(), b"{}"] {
        let begun = curl(&["-X", "POST", "-i", &format!("{base}/blobs/uploads/")], None);
        let location =
            begun.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
        let end = format!("{location}&digest={}", Digest::of(bytes));
        curl(&["-X", "PUT", "-H", "Content-Type: application/octet-stream", &end], Some(bytes));
    }
    let raw = manifest.to_bytes();
    let kind = |kind: &str| format!("Content-Type: application/vnd.oci.image.{kind}.v1+json");
    let mut entry = Descriptor::of(MediaType::OciManifest, &raw);
    let at = format!("{base}/manifests/{}", entry.digest);
    curl(&["-X", "PUT", "-H", &kind("manifest"), &at], Some(&raw));
    entry.artifact_type = manifest.artifact_type.clone();
    entry.annotations = manifest.annotations.clone();
    let subject = manifest.subject.as_ref().unwrap().digest;
    let list = Index::new(vec![entry.clone()]).to_bytes();
    let at = format!("{base}/manifests/sha256-{}", subject.hex());
    curl(&["-X", "PUT", "-H", &kind("index"), &at], Some(&list));
    entry
}

fn curl(args: &[&str], body: Option<&[u8]>) -> String {
    let mut command = Command::new(find_on_path("curl"));
    command.args(["-sS", "--fail"]).args(args);
    let outcome = match body {
        Some(body) => Outcome::with_input(command.args(["--data-binary", "@-"]), body),
        None => Outcome::of(&mut command),
    };
    outcome.ok().stdout()
}

#[test]
fn what_refers_to_an_image_goes_along_by_tag_where_the_registry_keeps_no_lists() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let other = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a"]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let first = sign(&sandbox, &image.descriptor(), "first");
    let entry = push_signature(&registry, "app", &first, "first");
    // What refers to the signature in turn.
    let second = sign(&sandbox, &entry, "second");
    push_signature(&registry, "app", &second, "second");

    let from = format!("docker://{}/app:1", registry.address);
    let to = |name: &str| format!("docker://{}/{name}", other.address);
    copy(&sandbox, &["-q", "--no-referrers", &from, &to("bare:1")]).ok();
    let tag = format!("sha256-{}", image.descriptor().digest.hex());
    let tags = |repository: &str| -> Value {
        let text = curl(&[&format!("http://{}/v2/{repository}/tags/list", other.address)], None);
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(tags("bare")["tags"], serde_json::json!(["1"]));

    let dir = sandbox.context().join("signed");
    let layout = format!("oci:{}", dir.display());
    copy(&sandbox, &["-q", &from, &to("direct:1")]).ok();
    copy(&sandbox, &["-q", &from, &format!("{layout}:1")]).ok();
    copy(&sandbox, &["-q", &layout, "oci-archive:signed.tar"]).ok();
    copy(&sandbox, &["-q", "oci-archive:signed.tar", &to("around:1")]).ok();
    for repository in ["direct", "around"] {
        let list = Index::parse(&raw(&to(&format!("{repository}:{tag}")))).unwrap();
        assert_eq!(list.manifests, std::slice::from_ref(&entry), "{repository}");
        let mut all = judged(&sandbox, &to(&format!("{repository}:{tag}")));
        assert!(all.remove(&Digest::of(b"first").hex()).is_some_and(|bytes| bytes == b"first"));
        let tag = format!("sha256-{}", entry.digest.hex());
        let list = Index::parse(&raw(&to(&format!("{repository}:{tag}")))).unwrap();
        assert_eq!(list.manifests.len(), 1);
        assert_eq!(list.manifests[0].annotations["what"], "second");
    }
    // Beside a signature an image is still the only image of a layout.
    sandbox.outcrop(&["load", "-q", "-i", dir.to_str().unwrap()]).ok();
    sandbox.outcrop(&["load", "-q", "-i", "signed.tar"]).ok();
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().lines().len(), 1);
    // A list that is there is added to.
    copy(&sandbox, &["-q", &from, &to("direct:2")]).ok();
    let list = Index::parse(&raw(&to(&format!("direct:{tag}")))).unwrap();
    assert_eq!(list.manifests.len(), 1, "once");
}

/// Where a signature or an SBOM lies beside the image under a tag made of its digest.
#[test]
fn what_cosign_keeps_under_tags_goes_along_too() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let other = RealRegistry::start(&sandbox);
    let (image, signature, sbom) =
        (tarred("linux/amd64", &["a"]), tarred("linux/amd64", &["s"]), tarred("linux/amd64", &["b"]));
    let tag = |image: &Image, kind: &str| format!("app:sha256-{}.{kind}", image.descriptor().digest.hex());
    // The SBOM is signed in turn.
    let of_sbom = tarred("linux/amd64", &["t"]);
    for (n, (image, name)) in [
        (&image, "app:1".to_owned()),
        (&signature, tag(&image, "sig")),
        (&sbom, tag(&image, "sbom")),
        (&of_sbom, tag(&sbom, "sig")),
    ]
    .into_iter()
    .enumerate()
    {
        registry.push(&Layout::single(&sandbox.dir().join(format!("l{n}")), image), &name);
    }
    let at = |registry: &RealRegistry, name: &str| format!("docker://{}/{name}", registry.address);
    let dir = sandbox.context().join("layout");
    let layout = format!("oci:{}", dir.display());
    copy(&sandbox, &["-q", &at(&registry, "app:1"), &format!("{layout}:1")]).ok();
    copy(&sandbox, &["-q", &layout, "oci-archive:x.tar:1"]).ok();
    copy(&sandbox, &["-q", "oci-archive:x.tar:1", &at(&other, "app:1")]).ok();
    for (image, name) in
        [(&signature, tag(&image, "sig")), (&sbom, tag(&image, "sbom")), (&of_sbom, tag(&sbom, "sig"))]
    {
        assert_eq!(raw(&at(&other, &name)), image.manifest_raw, "{name}");
        judged(&sandbox, &at(&other, &name));
    }
    sandbox.outcrop(&["load", "-q", "-i", dir.to_str().unwrap()]).ok();
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().lines().len(), 1);
}

#[test]
fn a_registry_that_lists_referrers_is_asked_and_told_by_the_subject_alone() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a"]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let signature = sign(&sandbox, &image.descriptor(), "only");
    let entry = push_signature(&registry, "app", &signature, "only");
    let subject = image.descriptor().digest;
    let list = Index::new(vec![entry.clone()]).to_bytes();
    let listing = Server::start(Some(registry.address), move |asked, _| {
        let media_type = ("Content-Type", "application/vnd.oci.image.index.v1+json");
        let of = asked.path.rsplit_once("/referrers/").map(|(_, rest)| rest.to_owned());
        match of.as_deref() {
            Some("next") => Reply::Answer(Told::new(200, &[media_type], list.clone())),
            // The list begins with a page that holds nothing.
            Some(of) if of == subject.to_string() => {
                let next = ("Link", "</v2/app/referrers/next>; rel=\"next\"");
                Reply::Answer(Told::new(200, &[media_type, next], Index::new(Vec::new()).to_bytes()))
            }
            Some(_) => Reply::Answer(Told::new(200, &[media_type], Index::new(Vec::new()).to_bytes())),
            None if asked.path.contains("/manifests/sha256-") => Reply::Answer(Told::new(404, &[], "")),
            None => Reply::Forward,
        }
    });
    let other = RealRegistry::start(&sandbox);
    let refusing =
        Server::start(Some(registry.address), |asked, _| match asked.path.contains("/referrers/") {
            true => Reply::Answer(Told::new(403, &[], "")),
            false => Reply::Forward,
        });
    let from = format!("docker://{}/app:1", refusing.address);
    copy(&sandbox, &["-q", &from, "oci:refused"]).fails(1).complains("--no-referrers");
    copy(&sandbox, &["-q", "--no-referrers", &from, "oci:taken"]).ok();
    let noting = Server::start(Some(other.address), move |asked, _| {
        let put = asked.method == "PUT" && asked.path.contains("/manifests/sha256:");
        match put && asked.path.ends_with(&entry.digest.to_string()) {
            true => Reply::Change(Box::new(move |told| {
                told.headers.push(("OCI-Subject".into(), subject.to_string()));
            })),
            false => Reply::Forward,
        }
    });
    let (from, to) =
        (format!("docker://{}/app:1", listing.address), format!("docker://{}/app:1", noting.address));
    copy(&sandbox, &["-q", &from, &to]).ok();
    let puts: Vec<String> = noting
        .asked()
        .iter()
        .filter(|asked| asked.method == "PUT" && asked.is_manifest())
        .map(|asked| asked.path.clone())
        .collect();
    // The image before its signature, the name last.
    let expected = [
        format!("/v2/app/manifests/{subject}"),
        format!("/v2/app/manifests/{}", Digest::of(&signature.to_bytes())),
        "/v2/app/manifests/1".into(),
    ];
    assert_eq!(puts, expected);
}

#[test]
fn an_image_of_the_store_goes_out_as_a_push_would_send_it() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    sandbox.base_image("base");
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM base\nCOPY one /\n");
    let name = format!("{}/app", registry.address);
    sandbox.outcrop(&["build", "-q", "-t", &name, "."]).ok();
    let copied = format!("docker://{}/copied:1", registry.address);
    copy(&sandbox, &["-q", &name, &copied]).ok();
    sandbox.outcrop(&["push", "-q", &name]).ok();
    let pushed = raw(&format!("docker://{name}"));
    assert_eq!(raw(&copied), pushed);
    for to in ["oci:layout:1", "oci-archive:x.tar:1", "docker-archive:y.tar:app:1", "dir:flat"] {
        let said = copy(&sandbox, &["-q", &format!("store:{name}"), to]).ok();
        assert_eq!(said.line(), Digest::of(&pushed).to_string(), "{to}");
        let place = to.replacen(':', &format!(":{}/", sandbox.context().display()), 1);
        let mut judged = judged(&sandbox, &place);
        // A Docker archive's manifest is whatever its reader makes of it.
        if !to.starts_with("docker-archive") {
            assert_eq!(judged.remove("manifest.json").unwrap(), pushed, "{to}");
        }
    }
    let other = Sandbox::new();
    for (n, from) in
        ["oci:layout:1", "oci-archive:x.tar", "docker-archive:y.tar", "dir:flat"].iter().enumerate()
    {
        let (kind, rest) = from.split_once(':').unwrap();
        let from = format!("{kind}:{}/{rest}", sandbox.context().display());
        let name = format!("app:{n}");
        copy(&other, &["-q", &from, &name]).ok();
        other.outcrop(&["run", "--rm", "--network", "none", &name, "cat", "/one"]).ok().says("one");
        let to = format!("{}/back:{n}", registry.address);
        other.outcrop(&["tag", &name, &to]).ok();
        other.outcrop(&["push", "-q", &to]).ok();
        assert_eq!(raw(&format!("docker://{to}")), pushed, "{from}");
    }
    sandbox.check();
    other.check();
}

#[test]
fn what_the_store_has_dropped_is_fetched_again_only_where_it_is_needed() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a", "b"]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let server = Server::before(&registry);
    let name = format!("{}/app:1", server.address);
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok().says("sha256:");
    let fetched = || {
        let layers: Vec<String> =
            image.manifest.layers.iter().map(|layer| layer.digest.to_string()).collect();
        let asked = server.asked().into_iter().filter(|asked| asked.method == "GET");
        asked.filter(|asked| layers.iter().any(|layer| asked.path.ends_with(layer))).count()
    };
    let before = fetched();
    let mounted = format!("docker://{}/other:1", server.address);
    copy(&sandbox, &["-q", &name, &mounted]).ok();
    assert_eq!(fetched(), before, "they are mounted");
    let list = format!("{}/list:1", server.address);
    sandbox.outcrop(&["manifest", "create", &list, &name]).ok();
    sandbox.outcrop(&["manifest", "push", &list]).ok();
    assert_eq!(fetched(), before, "they are mounted");
    let said = copy(&sandbox, &["-q", &name, "oci:copied:1"]).ok();
    assert_eq!(said.line(), image.descriptor().digest.to_string());
    assert_eq!(fetched(), before + 2);
    judged(&sandbox, &format!("oci:{}:1", sandbox.context().join("copied").display()));
    sandbox.check();
}

#[test]
fn places_that_cannot_be_are_said_before_anything_is_moved() {
    let sandbox = Sandbox::new();
    let digest = Digest::of(b"");
    for (args, complaint) in [
        (&["app", "other"][..], "`outcrop tag`"),
        (&["app", &format!("docker://127.0.0.1:1/x@{digest}")], "holds a digest"),
        (&["docker://127.0.0.1:1/x", "docker-daemon:"], "docker-daemon:NAME"),
        (&["-a", "docker://127.0.0.1:1/x", "docker-archive:x.tar"], "one platform"),
        (&["docker://127.0.0.1:1/x", "oci:y"], "127.0.0.1:1 cannot be reached"),
        (&["absent", "oci:y"], "No such image: absent"),
        (&["oci:absent", "oci:y"], "absent"),
        (&["oci-archive:.", "oci:y"], "oci:DIR"),
    ] {
        copy(&sandbox, args).fails(1).complains(complaint);
    }
    assert!(!sandbox.context().join("x.tar").exists());
    assert!(!sandbox.context().join("y").exists());
}

#[test]
fn zstd_is_undone_for_docker_archives_and_that_is_said() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    sandbox.file("one", "one".repeat(1000));
    sandbox.dockerfile("FROM scratch\nCOPY one /\n");
    let output = format!("type=registry,name={}/app:1,compression=zstd", registry.address);
    sandbox.outcrop(&["build", "-q", "-o", &output, "."]).ok();
    let from = format!("docker://{}/app:1", registry.address);
    copy(&sandbox, &["--preserve-digests", &from, "docker-archive:x.tar:app:1"])
        .fails(1)
        .complains("cannot be kept");
    let said = copy(&sandbox, &[&from, "docker-archive:x.tar:app:1"]).ok();
    said.says("cannot be kept there: its layers are compressed with zstd").says("Converted");
    let archive = sandbox.context().join("x.tar");
    let other = Sandbox::new();
    other.outcrop(&[OsStr::new("load"), OsStr::new("-i"), archive.as_os_str()]).ok().says("app:1");
    let id =
        |sandbox: &Sandbox, name: &str| sandbox.outcrop(&["images", "-q", "--no-trunc", name]).ok().line();
    assert_eq!(id(&other, "app:1"), Manifest::parse(&raw(&from)).unwrap().config.digest.to_string());
    judged(&sandbox, &format!("docker-archive:{}:app:1", archive.display()));
}

/// Podman's and skopeo's own storage, in a directory.
fn storage(dir: &Path) -> String {
    format!("[vfs@{}+{}]", dir.join("storage").display(), dir.join("storage-run").display())
}

#[test]
fn containers_storage_is_reached_by_way_of_skopeo() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a", "b"]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let from = format!("docker://{}/app:1", registry.address);
    let stored = format!("containers-storage:{}reg.test/app:1", storage(sandbox.dir()));
    let said = copy(&sandbox, &["-q", &from, &stored]).ok();
    assert_eq!(said.line(), image.descriptor().digest.to_string());
    let config = skopeo(&["inspect", "--config", "--raw", &stored]);
    assert_eq!(config, image.config);
    let back = format!("docker://{}/back:1", registry.address);
    copy(&sandbox, &["-q", &stored, &back]).ok();
    let manifest = Manifest::parse(&raw(&back)).unwrap();
    assert_eq!(manifest.config.digest, image.manifest.config.digest, "the image is the same");
    assert!(manifest.layers.iter().all(|layer| layer.media_type.to_string().ends_with("+gzip")));
    judged(&sandbox, &back);
    copy(&sandbox, &["-q", &stored, "app:2"]).ok();
    let id = sandbox.outcrop(&["images", "-q", "--no-trunc", "app:2"]).ok().line();
    assert_eq!(id, image.manifest.config.digest.to_string());
    copy(&sandbox, &["-q", "app:2", &stored.replace("app:1", "app:3")]).ok();
    sandbox.check();
    copy(&sandbox, &[&stored.replace("app:1", "absent:1"), "oci:x"]).fails(1).complains("skopeo: ");
    let mut without = sandbox.command(&["copy", &stored, "oci:x"]);
    Outcome::of(without.env("PATH", "/nowhere")).fails(1).complains("install skopeo");
    let left: Vec<_> = fs::read_dir("/var/tmp").unwrap().flatten().map(|entry| entry.file_name()).collect();
    let ours = |name: &OsStr| name.to_string_lossy().starts_with("outcrop-copy.");
    assert!(!left.iter().any(|name| ours(name)), "{left:?}");
    let _gone = fs::remove_dir_all(sandbox.dir().join("storage"));
}

#[test]
fn a_docker_daemon_gives_and_takes_images() {
    let court = Court::sits();
    let sandbox = Sandbox::new().variable("DOCKER_HOST", &format!("unix://{}", court.socket().display()));
    let registry = RealRegistry::start(&sandbox);
    let docker = |args: &[&str]| Outcome::of(&mut court.docker(args)).ok().line();
    let id = docker(&["images", "-q", "--no-trunc", "base"]);
    // What the daemon has: its layers are compressed on their way to a registry, not for the store.
    let pushed = format!("docker://{}/base:1", registry.address);
    copy(&sandbox, &["-q", "docker-daemon:base", &pushed]).ok();
    let manifest = Manifest::parse(&raw(&pushed)).unwrap();
    assert_eq!(manifest.config.digest.to_string(), id);
    assert!(manifest.layers.iter().all(|layer| layer.media_type.to_string().ends_with("+gzip")));
    judged(&sandbox, &pushed);
    copy(&sandbox, &["-q", "docker-daemon:base:latest", "base"]).ok();
    assert_eq!(sandbox.outcrop(&["images", "-q", "--no-trunc", "base"]).ok().line(), id);
    sandbox.check();
    // What the daemon gets: from a registry, from the store.
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM base\nCOPY one /\n");
    let name = format!("{}/app:1", registry.address);
    sandbox.outcrop(&["build", "-q", "-t", &name, "."]).ok();
    let expected = sandbox.outcrop(&["images", "-q", "--no-trunc", &name]).ok().line();
    copy(&sandbox, &["-q", &name, "docker-daemon:copied-from-store:1"]).ok();
    sandbox.outcrop(&["push", "-q", &name]).ok();
    let said = copy(&sandbox, &[&format!("docker://{name}"), "docker-daemon:copied-from-registry:1"]).ok();
    said.says(": Copied");
    for name in ["copied-from-store:1", "copied-from-registry:1"] {
        assert_eq!(docker(&["images", "-q", "--no-trunc", name]), expected);
    }
    let said = docker(&["run", "--rm", "--network", "none", "copied-from-registry:1", "cat", "/one"]);
    assert_eq!(said, "one");
    copy(&sandbox, &["docker-daemon:absent:1", "oci:x"])
        .fails(1)
        .complains("the Docker daemon answers 404 Not Found for absent:1");
    docker(&["rmi", "-f", "copied-from-store:1", "copied-from-registry:1"]);
    for (host, complaint) in [("unix:///nowhere.sock", "/nowhere.sock"), ("tcp://127.0.0.1:1", "unix://")] {
        let mut command = sandbox.command(&["copy", "docker-daemon:base", "oci:x"]);
        Outcome::of(command.env("DOCKER_HOST", host)).fails(1).complains(complaint);
    }
}

#[test]
fn a_copy_to_a_daemon_that_fails_in_the_middle_leaves_no_image_there() {
    let court = Court::sits();
    let sandbox = Sandbox::new().variable("DOCKER_HOST", &format!("unix://{}", court.socket().display()));
    let registry = RealRegistry::start(&sandbox);
    let image = tarred("linux/amd64", &["a", "b"]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let wrong = image.manifest.layers[1].digest.to_string();
    let server = Server::start(Some(registry.address), move |asked, _| {
        match asked.method == "GET" && asked.path.ends_with(&wrong) {
            true => Reply::Change(Box::new(|told| told.body[100] ^= 1)),
            false => Reply::Forward,
        }
    });
    let from = format!("docker://{}/app:1", server.address);
    copy(&sandbox, &[&from, "docker-daemon:half:1"]).fails(1).complains("came with the digest");
    let images = Outcome::of(&mut court.docker(&["images", "-q", "half"])).ok().line();
    assert_eq!(images, "");
}

/// A registry that gives the first half of a large layer and then nothing.
fn stuck(registry: &RealRegistry) -> Server {
    Server::start(Some(registry.address), |asked, _| match asked.method == "GET" && asked.is_blob() {
        true => Reply::Change(Box::new(|told| {
            if told.body.len() > 1_000_000 {
                told.cut = Some(told.body.len() / 2);
                told.stall = Duration::from_secs(20);
            }
        })),
        false => Reply::Forward,
    })
}

#[test]
fn a_copy_that_is_killed_leaves_no_name_and_the_next_one_goes_on() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = Image::of("linux/amd64", &[2_000_000, 100]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let good = format!("docker://{}/app:1", registry.address);
    let other = RealRegistry::start(&sandbox);
    let dir = sandbox.context();
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap());
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for (n, to) in [
        format!("oci:{}:1", dir.join("layout").display()),
        format!("oci-archive:{}:1", dir.join("x.tar").display()),
        format!("docker-archive:{}", dir.join("y.tar").display()),
        format!("dir:{}", dir.join("flat").display()),
        format!("docker://{}/app:1", other.address),
    ]
    .into_iter()
    .enumerate()
    {
        let server = stuck(&registry);
        let from = format!("docker://{}/app:1", server.address);
        let mut child = sandbox.command(&["copy", "-q", &from, &to]).spawn().unwrap();
        let is_stuck = || {
            let layers = image.manifest.layers.iter().map(|layer| layer.digest.to_string());
            let asked = server.asked();
            layers
                .clone()
                .any(|layer| asked.iter().any(|asked| asked.method == "GET" && asked.path.ends_with(&layer)))
        };
        assert!(wait_until(Duration::from_secs(60), is_stuck));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!dir.join("layout/index.json").exists() && !dir.join("flat/manifest.json").exists());
        assert!(!names(&dir).iter().any(|name| name.ends_with(".tar") && n < 3 && to.contains(name)));
        copy(&sandbox, &["-q", &good, &to]).ok();
        judged(&sandbox, &to);
        match n {
            0 | 3 => fs::remove_dir_all(dir.join(["layout", "", "", "flat"][n])).unwrap(),
            1 | 2 => fs::remove_file(dir.join(["", "x.tar", "y.tar"][n])).unwrap(),
            _ => {}
        }
        assert_eq!(names(&dir), Vec::<String>::new(), "nothing else is left");
    }
}

#[test]
fn copies_into_one_layout_at_once_all_get_their_names() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    for n in 0..4 {
        let file = format!("f{n}");
        let image = tarred("linux/amd64", &["a", &file]);
        registry.push(&Layout::single(&sandbox.dir().join(format!("l{n}")), &image), &format!("app:{n}"));
    }
    let dir = sandbox.context().join("layout");
    let children: Vec<_> = (0..4)
        .map(|n| {
            let from = format!("docker://{}/app:{n}", registry.address);
            let to = format!("oci:{}:{n}", dir.display());
            sandbox.command(&["copy", "-q", &from, &to]).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(children.into_iter().all(|mut child| child.wait().unwrap().success()));
    for n in 0..4 {
        judged(&sandbox, &format!("oci:{}:{n}", dir.display()));
    }
}

#[test]
fn a_name_of_an_image_that_an_index_keeps_can_be_taken_away() {
    let sandbox = Sandbox::new();
    let images = [tarred("linux/amd64", &["a", "b"]), tarred("linux/arm64", &["a", "c"])];
    let dir = sandbox.dir().join("layout");
    Layout::index(&dir, &[&images[0], &images[1]]);
    copy(&sandbox, &["-q", "--all-platforms", &format!("oci:{}:image", dir.display()), "both:1"]).ok();
    for image in &images {
        let id = image.manifest.config.digest.to_string();
        sandbox.outcrop(&["tag", &id, "one:1"]).ok();
        assert_eq!(sandbox.outcrop(&["rmi", "one:1"]).ok().lines(), ["Untagged: one:1"]);
        sandbox.outcrop(&["inspect", &id]).ok();
    }
    sandbox.check();
}

#[test]
fn a_copy_into_a_directory_goes_on_where_one_was_killed_before_its_end() {
    let sandbox = Sandbox::new();
    let (registry, _, _) = indexed(&sandbox);
    let from = format!("docker://{}/app:1", registry.address);
    let dir = sandbox.context().join("flat");
    let names = || {
        let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let again = || copy(&sandbox, &["-q", "--all-platforms", &from, "dir:flat"]);
    again().ok();
    let whole = names();
    // What names it comes last.
    fs::remove_file(dir.join("manifest.json")).unwrap();
    again().ok();
    assert_eq!(names(), whole);
    again().fails(1).complains("is not empty");
}
