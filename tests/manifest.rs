//! `manifest`: lists put together by hand, and what registries have under a name.

use std::process::Command;

use outcrop::image::{Digest, Index, Manifest, MediaType};
use serde_json::{Value, json};

use crate::registry_kit::{Layout, RealRegistry, Server, tarred};
use crate::sandbox::{Outcome, Sandbox, find_on_path};

fn raw(name: &str) -> Vec<u8> {
    let mut command = Command::new(find_on_path("skopeo"));
    let args = ["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")];
    Outcome::of(command.args(args)).ok().output.stdout
}

/// Reads every byte, as a judge does.
fn judged(sandbox: &Sandbox, name: &str) {
    let number = (0..).find(|n| !sandbox.dir().join(format!("judged{n}")).exists()).unwrap();
    let to = format!("dir:{}", sandbox.dir().join(format!("judged{number}")).display());
    let mut command = Command::new(find_on_path("skopeo"));
    command.args(["copy", "--insecure-policy", "--src-tls-verify=false", "--quiet", "--all"]);
    Outcome::of(command.args([&format!("docker://{name}"), &to])).ok();
}

#[track_caller]
fn manifest(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.outcrop(&[&["manifest"], args].concat())
}

/// `NAME:1-ARCH` in the store, for each.
fn built(sandbox: &Sandbox, name: &str, archs: &[&str]) {
    sandbox.file("one", "one".repeat(1000));
    sandbox.dockerfile("FROM scratch\nCOPY one /\nARG TARGETARCH\nENV ARCH=$TARGETARCH\n");
    for arch in archs {
        let (platform, tag) = (format!("linux/{arch}"), format!("{name}:1-{arch}"));
        sandbox.outcrop(&["build", "-q", "--platform", &platform, "-t", &tag, "."]).ok();
    }
}

#[test]
fn a_list_of_images_of_the_store_is_pushed_with_all_it_names() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let name = format!("{}/app", registry.address);
    built(&sandbox, &name, &["amd64", "arm64"]);
    let (list, amd, arm) = (format!("{name}:1"), format!("{name}:1-amd64"), format!("{name}:1-arm64"));
    let made = manifest(&sandbox, &["create", &list, &amd, &arm]).ok();
    assert_eq!(made.line(), format!("Created manifest list {list}"));
    let shown = manifest(&sandbox, &["inspect", &list]).ok();
    let before: Index = serde_json::from_slice(&shown.output.stdout).unwrap();
    let said = manifest(&sandbox, &["push", &list]).ok();
    let pushed = raw(&list);
    let index = Index::parse(&pushed).unwrap();
    assert_eq!(before, index);
    let of = |n: usize| index.manifests[n].digest;
    assert_eq!(
        said.lines(),
        [
            format!("Pushed ref {name}:1@{} with digest: {}", of(0), of(0)),
            format!("Pushed ref {name}:1@{} with digest: {}", of(1), of(1)),
            Digest::of(&pushed).to_string(),
        ]
    );
    let platforms: Vec<String> =
        index.manifests.iter().map(|entry| entry.platform.as_ref().unwrap().platform().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    judged(&sandbox, &list);
    // Each is the image as a push by its own name sends it.
    for (n, name) in [&amd, &arm].into_iter().enumerate() {
        sandbox.outcrop(&["push", "-q", name]).ok();
        assert_eq!(Digest::of(&raw(name)), of(n));
    }
    // Each platform gets its own.
    let other = Sandbox::new();
    for arch in ["amd64", "arm64"] {
        other.outcrop(&["pull", "-q", "--platform", &format!("linux/{arch}"), &list]).ok();
        let env = other.outcrop(&["inspect", "-f", "{{json .Config.Env}}", &list]).ok().line();
        assert!(env.contains(&format!("ARCH={arch}")), "{env}");
    }
    sandbox.check();
}

#[test]
fn a_list_is_amended_annotated_and_removed() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let name = format!("{}/app", registry.address);
    built(&sandbox, &name, &["amd64", "arm"]);
    let (list, amd, arm) = (format!("{name}:1"), format!("{name}:1-amd64"), format!("{name}:1-arm"));
    manifest(&sandbox, &["create", &list, &amd]).ok();
    manifest(&sandbox, &["create", &list, &arm]).fails(1).complains("--amend");
    manifest(&sandbox, &["create", "--amend", &list, &arm, &amd]).ok();
    let said = ["--arch", "arm", "--variant", "v6", "--os", "linux", "--os-version", "1.2"];
    let more = ["--os-features", "a,b", "--annotation", "k=v"];
    manifest(&sandbox, &[&["annotate"], &said[..], &more[..], &[&list[..], &arm]].concat()).ok();
    manifest(&sandbox, &["annotate", "--arch", "x", &list, "absent"]).fails(1).complains("does not exist in");
    let shown: Value = manifest(&sandbox, &["inspect", &list]).ok().json();
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 2);
    let entry = &shown["manifests"][1];
    let platform = json!({
        "architecture": "arm", "os": "linux", "os.version": "1.2", "os.features": ["a", "b"], "variant": "v6"
    });
    assert_eq!((&entry["platform"], &entry["annotations"]), (&platform, &json!({ "k": "v" })));
    let verbose = manifest(&sandbox, &["inspect", "-v", &list, &arm]).ok().json();
    assert_eq!(verbose["Ref"], arm);
    assert_eq!(verbose["Descriptor"]["digest"], entry["digest"]);
    assert_eq!(verbose["OCIManifest"]["schemaVersion"], 2);
    let all = manifest(&sandbox, &["inspect", "-v", &list]).ok().json();
    assert_eq!(all[1], verbose);
    manifest(&sandbox, &["push", "--purge", &list]).ok();
    assert_eq!(Index::parse(&raw(&list)).unwrap().manifests[1].annotations["k"], "v");
    manifest(&sandbox, &["rm", &list]).fails(1).complains("No such manifest");
    manifest(&sandbox, &["push", &list]).fails(1).complains("No such manifest");
    manifest(&sandbox, &["create", &list, &amd]).ok();
    manifest(&sandbox, &["rm", &list]).ok();
    // It is the registry's that shows then.
    let shown: Value = manifest(&sandbox, &["inspect", &list]).ok().json();
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 2);
    sandbox.check();
}

#[test]
fn what_is_at_a_registry_already_is_mounted_into_the_list_s_repository() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let other = RealRegistry::start(&sandbox);
    for (n, arch) in ["amd64", "arm64"].iter().enumerate() {
        let image = tarred(&format!("linux/{arch}"), &[["a", "b"][n]]);
        let layout = Layout::single(&sandbox.dir().join(arch), &image);
        let registry = [&real, &other][n];
        registry.push_with(&layout, &format!("one/app:{arch}"), &["--format", "v2s2"]);
    }
    let server = Server::before(&real);
    let list = format!("{}/list:1", server.address);
    let (amd, arm) =
        (format!("{}/one/app:amd64", server.address), format!("{}/one/app:arm64", other.address));
    manifest(&sandbox, &["create", "--insecure", &list, &amd, &arm]).ok();
    manifest(&sandbox, &["push", "--insecure", &list]).ok();
    let index = Index::parse(&raw(&list)).unwrap();
    assert_eq!(index.media_type(), MediaType::DockerManifestList, "all of its manifests are Docker's");
    assert_eq!(index.manifests[0].digest, Digest::of(&raw(&amd)));
    assert_eq!(index.manifests[1].digest, Digest::of(&raw(&arm)));
    // Debian's client needs no daemon for it.
    let mut docker = Command::new("/usr/bin/docker");
    let behind = format!("{}/list:1", real.address);
    docker.args(["manifest", "inspect", "--insecure", &behind]).env("HOME", sandbox.dir());
    docker.env("DOCKER_CONFIG", sandbox.dir().join("docker-config"));
    assert_eq!(Outcome::of(&mut docker).ok().json(), manifest(&sandbox, &["inspect", &list]).ok().json());
    let layer = Manifest::parse(&raw(&amd)).unwrap().layers[0].digest.to_string();
    let fetched = |asked: &crate::registry_kit::Asked| asked.method == "GET" && asked.path.ends_with(&layer);
    assert!(!server.asked().iter().any(fetched), "the layer was mounted");
    judged(&sandbox, &list);
    let before = server.asked().iter().filter(|asked| asked.is_upload()).count();
    manifest(&sandbox, &["push", &list]).ok();
    assert_eq!(
        server.asked().iter().filter(|asked| asked.is_upload()).count(),
        before,
        "nothing moves twice"
    );
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().stdout(), "");
}

#[test]
fn what_a_registry_has_is_shown_without_being_pulled() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let (amd, arm) = (tarred("linux/amd64", &["a"]), tarred("linux/arm64", &["b"]));
    registry.push(&Layout::single(&sandbox.dir().join("one"), &amd), "app:one");
    registry.push(&Layout::index(&sandbox.dir().join("all"), &[&amd, &arm]), "app:all");
    let name = |tag: &str| format!("{}/app:{tag}", registry.address);
    for tag in ["one", "all"] {
        let shown: Value = manifest(&sandbox, &["inspect", &name(tag)]).ok().json();
        assert_eq!(shown, serde_json::from_slice::<Value>(&raw(&name(tag))).unwrap());
    }
    let verbose = manifest(&sandbox, &["inspect", "-v", &name("one")]).ok().json();
    assert_eq!(verbose["Descriptor"]["digest"], amd.descriptor().digest.to_string());
    assert_eq!(verbose["Descriptor"]["platform"], json!({ "architecture": "amd64", "os": "linux" }));
    let all = manifest(&sandbox, &["inspect", "-v", &name("all")]).ok().json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(all[1]["Ref"], format!("{}@{}", name("all"), arm.descriptor().digest));
    manifest(&sandbox, &["inspect", &name("absent")]).fails(1).complains("No such manifest");
    // An index lists images; one of an index is named by its digest.
    let digest = arm.descriptor().digest.to_string();
    manifest(&sandbox, &["create", &name("list"), &name("all")]).fails(1).complains(&digest);
    let by_digest = format!("{}@{digest}", name("all"));
    manifest(&sandbox, &["create", &name("list"), &by_digest]).ok();
    manifest(&sandbox, &["push", &name("list")]).ok();
    assert_eq!(Index::parse(&raw(&name("list"))).unwrap().manifests[0].digest.to_string(), digest);
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().stdout(), "");
}

#[test]
fn a_list_outlives_its_images_names_and_says_when_one_is_gone() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let name = format!("{}/app", registry.address);
    built(&sandbox, &name, &["amd64"]);
    let (list, amd) = (format!("{name}:1"), format!("{name}:1-amd64"));
    manifest(&sandbox, &["create", &list, &amd]).ok();
    sandbox.outcrop(&["tag", &amd, "kept"]).ok();
    sandbox.outcrop(&["rmi", &amd]).ok();
    sandbox.outcrop(&["system", "check", "--rebuild-index"]).ok();
    manifest(&sandbox, &["push", &list]).ok();
    judged(&sandbox, &list);
    let other = format!("{name}/other:1");
    manifest(&sandbox, &["create", &other, "kept"]).ok();
    sandbox.outcrop(&["rmi", "kept"]).ok();
    manifest(&sandbox, &["push", &other]).fails(1).complains("is no longer here").complains("--amend");
    sandbox.check();
}
