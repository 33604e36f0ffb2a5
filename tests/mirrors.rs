//! Mirrors of registries: who is asked, in which order, for what.

use std::fs;

use outcrop::image::Digest;

use crate::registry_kit::{Layout, RealRegistry, Server};
use crate::sandbox::Sandbox;

/// A sandbox whose registries.conf has this.
fn sandbox(conf: impl FnOnce(&Sandbox) -> String) -> Sandbox {
    let sandbox = Sandbox::new();
    let file = sandbox.dir().join("registries.conf");
    fs::write(&file, conf(&sandbox)).unwrap();
    let name = file.display().to_string();
    sandbox.variable("CONTAINERS_REGISTRIES_CONF", &name)
}

#[test]
fn the_first_mirror_that_has_it_gives_it() {
    let other = Sandbox::new();
    let registry = RealRegistry::start(&other);
    let empty = RealRegistry::start(&other);
    let image = crate::registry_kit::tarred("linux/amd64", &["a", "b"]);
    registry.push(&Layout::single(&other.dir().join("layout"), &image), "cache/app:1");
    let seen = Server::before(&registry);
    let by_digest = Server::before(&registry);
    let mirrors = [
        "127.0.0.1:1/dead".to_owned(),
        format!("{}/cache\"\npull-from-mirror = \"digest-only", by_digest.address),
        format!("{}/cache", empty.address),
        format!("{}/cache", seen.address),
    ];
    let mirrors: String =
        mirrors.iter().map(|mirror| format!("[[registry.mirror]]\nlocation = \"{mirror}\"\n")).collect();
    let sandbox = sandbox(|_| format!("[[registry]]\nprefix = \"reg.invalid\"\n{mirrors}"));
    sandbox.outcrop(&["pull", "-q", "reg.invalid/app:1"]).ok().says("reg.invalid/app:1");
    let id = sandbox.outcrop(&["images", "-q", "--no-trunc", "reg.invalid/app:1"]).ok().line();
    assert_eq!(id, Digest::of(&image.config).to_string());
    // For the tag the one was not asked; for what has a digest it was the first.
    assert!(by_digest.asked().iter().all(|asked| !asked.path.ends_with("/manifests/1")));
    assert!(by_digest.asked().iter().any(|asked| asked.is_blob()));
    assert!(seen.asked().iter().any(|asked| asked.path.ends_with("/manifests/1")));
    let by_name = format!("reg.invalid/app@{}", image.descriptor().digest);
    sandbox.outcrop(&["pull", "-q", &by_name]).ok();
    sandbox.check();
}

#[test]
fn hosts_toml_and_blocked_registries_are_heeded() {
    let other = Sandbox::new();
    let registry = RealRegistry::start(&other);
    let image = crate::registry_kit::tarred("linux/amd64", &["a"]);
    registry.push(&Layout::single(&other.dir().join("layout"), &image), "app:1");
    let sandbox = sandbox(|sandbox| {
        let dir = sandbox.dir().join(".config/containers/certs.d/reg.invalid");
        fs::create_dir_all(&dir).unwrap();
        let hosts = format!(
            "server = \"https://reg.invalid\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            registry.address
        );
        fs::write(dir.join("hosts.toml"), hosts).unwrap();
        "[[registry]]\nprefix = \"bad.invalid\"\nblocked = true\n".into()
    });
    sandbox.outcrop(&["pull", "-q", "reg.invalid/app:1"]).ok();
    sandbox
        .outcrop(&["pull", "-q", "bad.invalid/app:1"])
        .fails(1)
        .complains("`bad.invalid/app` is blocked here");
}
