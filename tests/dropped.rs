//! Compressed layers that were dropped because a registry has them: what needs their bytes gets them from there.

use std::io::Read as _;
use std::process::Stdio;

use outcrop::image::{Descriptor, Digest, MediaType, Reference};
use outcrop::job::Job;
use outcrop::registry::{Options, Registry};
use outcrop::transfer::Source as _;

use crate::registry_kit::{Image, Layout, RealRegistry, Reply, Server, Told, tar_of_files as tar_of};
use crate::sandbox::{Sandbox, tool};
use crate::transfer_kit::{MB, filled, image_of, is_stored, ranges};
use crate::web_kit::{Page, Web};

/// A registry with an image in it that was pulled, and whose compressed layers were dropped.
fn dropped() -> (Sandbox, Image, String, RealRegistry) {
    let sandbox = Sandbox::new();
    let image = image_of(&[tar_of(&[("a", 5000)]), tar_of(&[("b", 6000)])]);
    let registry = filled(&sandbox, &image);
    let name = format!("{}/app:v1", registry.address);
    sandbox.outcrop(&["pull", &name]).ok();
    sandbox.outcrop(&["system", "df", "-v"]).ok().says("(`outcrop image prune --blobs`): 11");
    let outcome = sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    for layer in &image.manifest.layers {
        assert!(outcome.stdout().contains(&layer.digest.to_string()));
        assert!(!is_stored(&sandbox, layer));
    }
    sandbox.check();
    (sandbox, image, name, registry)
}

/// The digest of the manifest that a name has at a registry.
fn manifest_of(name: &str) -> String {
    let name: Reference = name.parse().unwrap();
    let source = Registry::of(&name, &Options::default()).unwrap();
    source.resolve(&Job::silent(), &name).unwrap().0.digest.to_string()
}

#[test]
fn dropped_layers_come_back_when_they_are_pushed_elsewhere() {
    let (sandbox, image, name, _registry) = dropped();
    let other = RealRegistry::start(&sandbox);
    let elsewhere = format!("{}/other:v2", other.address);
    sandbox.outcrop(&["tag", &name, &elsewhere]).ok();
    sandbox.outcrop(&["push", &elsewhere]).ok();
    assert_eq!(manifest_of(&elsewhere), image.descriptor().digest.to_string());
    assert!(image.manifest.layers.iter().all(|layer| is_stored(&sandbox, layer)));
    sandbox.check();
}

#[test]
fn dropped_layers_come_back_when_they_are_saved_or_copied() {
    let (sandbox, image, name, registry) = dropped();
    sandbox.outcrop(&["save", "-o", "saved.tar", &name]).ok();
    let fresh = Sandbox::new();
    let archive = sandbox.context().join("saved.tar");
    fresh.outcrop(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert!(image.manifest.layers.iter().all(|layer| is_stored(&fresh, layer)));

    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    sandbox.outcrop(&["copy", "-q", &name, "oci:copied"]).ok();
    let copied = |layer: &Descriptor| sandbox.context().join("copied/blobs/sha256").join(layer.digest.hex());
    assert!(image.manifest.layers.iter().all(|layer| copied(layer).exists()));

    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    drop(registry);
    sandbox.outcrop(&["save", "-o", "again.tar", &name]).fails(1).complains("cannot be reached");
    sandbox.check();
}

#[test]
fn dropped_layers_stay_away_from_pulls_and_pushes_that_do_not_need_them() {
    let (sandbox, image, name, registry) = dropped();
    let server = Server::before(&registry);
    // Another image on the same layers, from the same place.
    let more = image_of(&[tar_of(&[("a", 5000)]), tar_of(&[("b", 6000)]), tar_of(&[("c", 10)])]);
    registry.push(&Layout::single(&sandbox.dir().join("more"), &more), "app:v2");
    let second = format!("{}/app:v2", server.address);
    sandbox.outcrop(&["pull", &second]).ok();
    for layer in &image.manifest.layers {
        assert_eq!(ranges(&server, layer), Vec::<String>::new());
        assert!(!is_stored(&sandbox, layer));
    }
    // At the same registry they are mounted.
    let beside = format!("{}/beside:v1", registry.address);
    sandbox.outcrop(&["tag", &name, &beside]).ok();
    sandbox.outcrop(&["push", &beside]).ok();
    assert_eq!(manifest_of(&beside), image.descriptor().digest.to_string());
    assert!(image.manifest.layers.iter().all(|layer| !is_stored(&sandbox, layer)));
    sandbox.outcrop(&["layers", &second]).ok();
    sandbox.check();
}

#[test]
fn what_was_built_and_pushed_is_dropped_and_has_the_same_manifest_again() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let registry = RealRegistry::start(&sandbox);
    let name = format!("{}/app:v1", registry.address);
    sandbox.outcrop(&["tag", "base", &name]).ok();
    sandbox.outcrop(&["push", &name]).ok();
    let manifest = manifest_of(&name);
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok().says("sha256:");
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok().says_not("sha256:");
    let other = RealRegistry::start(&sandbox);
    let elsewhere = format!("{}/app:v1", other.address);
    sandbox.outcrop(&["tag", "base", &elsewhere]).ok();
    // Also where the registry that had them is gone: they are compressed again.
    drop(registry);
    sandbox.outcrop(&["push", &elsewhere]).ok();
    assert_eq!(manifest_of(&elsewhere), manifest);
    sandbox.check();
}

/// Names of the blobs in an archive.
fn blobs_in(sandbox: &Sandbox, archive: &str) -> Vec<String> {
    let listing = tool(sandbox, &["tar", "-tf", archive]);
    listing.lines().filter_map(|line| line.strip_prefix("blobs/sha256/")).map(str::to_owned).collect()
}

#[test]
fn dropped_layers_come_back_for_an_archive_of_what_is_built_on_them() {
    let (sandbox, image, name, registry) = dropped();
    sandbox.file("own", "own\n");
    sandbox.dockerfile(&format!("FROM {name}\nCOPY own /own\n"));
    for (kind, archive) in [("oci", "first.tar"), ("docker", "second.tar")] {
        let output = format!("type={kind},dest={archive}");
        sandbox.outcrop(&["build", "-o", &output, "."]).ok();
        let blobs = blobs_in(&sandbox, archive);
        assert!(image.manifest.layers.iter().all(|layer| blobs.contains(&layer.digest.hex())), "{blobs:?}");
        sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    }
    // So they do for one that is pushed to another registry.
    let other = RealRegistry::start(&sandbox);
    let elsewhere = format!("{}/other:v1", other.address);
    sandbox.outcrop(&["build", "-o", &format!("type=registry,name={elsewhere}"), "."]).ok();
    let said = tool(&sandbox, &["skopeo", "inspect", "--tls-verify=false", &format!("docker://{elsewhere}")]);
    let there: serde_json::Value = serde_json::from_str(&said).unwrap();
    for (n, layer) in image.manifest.layers.iter().enumerate() {
        assert_eq!(there["Layers"][n], layer.digest.to_string());
    }
    drop(other);
    // Where nobody gives them any more they are compressed anew, and that is said.
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    drop(registry);
    let output = "type=oci,dest=third.tar";
    let built = sandbox.outcrop(&["build", "-o", output, "."]).ok();
    // Ours, which was pushed and dropped as well, comes out the same.
    let said = built.stdout();
    assert_eq!(said.matches("cannot be fetched again; compressed anew it has another digest").count(), 2);
    let blobs = blobs_in(&sandbox, "third.tar");
    assert!(!image.manifest.layers.iter().any(|layer| blobs.contains(&layer.digest.hex())), "{blobs:?}");
    tool(&sandbox, &["skopeo", "copy", "--insecure-policy", "-q", "oci-archive:third.tar", "dir:judged"]);
    sandbox.check();
}

#[test]
fn where_dropped_layers_are_is_known_after_the_index_was_made_again() {
    let sandbox = Sandbox::new();
    let image = image_of(&[tar_of(&[("a", 5000)]), tar_of(&[("b", 6000)])]);
    let registry = filled(&sandbox, &image);
    // Pulled by its digest and named otherwise, no tag tells of the repository.
    let digest = image.descriptor().digest;
    sandbox.outcrop(&["pull", &format!("{}/app@{digest}", registry.address)]).ok();
    let id = Digest::of(&image.config).to_string();
    let other = RealRegistry::start(&sandbox);
    let elsewhere = format!("{}/other:v1", other.address);
    sandbox.outcrop(&["tag", &id, &elsewhere]).ok();
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok().says("sha256:");
    assert!(image.manifest.layers.iter().all(|layer| !is_stored(&sandbox, layer)));
    sandbox.outcrop(&["system", "check", "--rebuild-index"]).ok();
    sandbox.outcrop(&["push", &elsewhere]).ok();
    assert_eq!(manifest_of(&elsewhere), digest.to_string());
    // A second time they are dropped, and asked for where they were seen last.
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok().says("sha256:");
    drop(registry);
    sandbox.outcrop(&["system", "check", "--rebuild-index"]).ok();
    let third = RealRegistry::start(&sandbox);
    let further = format!("{}/third:v1", third.address);
    sandbox.outcrop(&["tag", &id, &further]).ok();
    sandbox.outcrop(&["push", &further]).ok();
    assert_eq!(manifest_of(&further), digest.to_string());
    sandbox.check();
    // With its layers goes what was written of them.
    sandbox.outcrop(&["rmi", "-f", &id]).ok();
    assert_eq!(std::fs::read_dir(sandbox.root().join("layers")).unwrap().count(), 0);
}

#[test]
fn what_is_dropped_while_it_is_saved_is_saved() {
    let sandbox = Sandbox::new();
    // More than fits into a pipe, and a layer that comes after that.
    let image = image_of(&[tar_of(&[("a", MB)]), tar_of(&[("b", 6000)])]);
    let registry = filled(&sandbox, &image);
    let name = format!("{}/app:v1", registry.address);
    sandbox.outcrop(&["pull", &name]).ok();
    let mut save = sandbox.command(&["save", &name]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut archive, mut out) = (vec![0; 512], save.stdout.take().unwrap());
    out.read_exact(&mut archive).unwrap();
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    out.read_to_end(&mut archive).unwrap();
    assert!(save.wait().unwrap().success());
    let other = Sandbox::new();
    other.outcrop_with_input(&["load", "-q"], &archive).ok();
    assert!(image.manifest.layers.iter().all(|layer| is_stored(&other, layer)));
    sandbox.check();
}

/// Where a licence keeps a layer from being pushed, registries name it and do not have it.
#[test]
fn a_layer_that_no_registry_has_is_not_dropped() {
    let (sandbox, web) = (Sandbox::new(), Web::start());
    let mut image = image_of(&[tar_of(&[("a", 5000)])]);
    let layer = &mut image.manifest.layers[0];
    layer.media_type = MediaType::from("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    layer.urls = vec![web.url("/layer")];
    web.page("/layer", Page::of(image.layers[0].clone()));
    let (manifest, config) = (image.manifest.to_bytes(), image.config.clone());
    let config_path = format!("/v2/app/blobs/{}", image.manifest.config.digest);
    let server = Server::start(None, move |asked, _| {
        let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        Reply::Answer(match &asked.path[..] {
            "/v2/" => Told::new(200, &[], ""),
            "/v2/app/manifests/v1" => Told::new(200, &kind, manifest.clone()),
            path if path == config_path => Told::new(200, &[], config.clone()),
            _ => Told::new(404, &[], ""),
        })
    });
    let name = format!("{}/app:v1", server.address);
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok().says_not("sha256:");
    sandbox.outcrop(&["save", "-o", "saved.tar", &name]).ok();
    sandbox.check();
}
