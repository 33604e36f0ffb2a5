//! Blobs as forms of layers: what unpacks to something else is none, and a manifest that comes later brings those it names.

use std::fs;

use outcrop::image::{Compression, Descriptor, Manifest, Reference};
use outcrop::job::Job;
use outcrop::registry::{Options, Registry};
use outcrop::transfer::Source as _;

use crate::registry_kit::{Image, Layout, RealRegistry, Server, config_for, tar_of};
use crate::sandbox::{Outcome, Sandbox, tool};
use crate::transfer_kit::{filled, image_of, is_stored, ranges};

/// An image whose config has the layers of these archives, and whose manifest names the first blob of each of these images.
fn with_blobs(tars: &[&Vec<u8>], blobs: &[&Image]) -> Image {
    let mut config = config_for(&"linux/amd64".parse().unwrap());
    config.author = Some("somebody else".into());
    let tars: Vec<Vec<u8>> = tars.iter().map(|tar| (*tar).clone()).collect();
    let mut image = Image::made(&tars, config);
    image.layers = blobs.iter().map(|other| other.layers[0].clone()).collect();
    image.manifest.layers = blobs.iter().map(|other| other.manifest.layers[0].clone()).collect();
    image.manifest_raw = image.manifest.to_bytes();
    image
}

fn load(sandbox: &Sandbox, name: &str, image: &Image) -> Outcome {
    let dir = sandbox.dir().join(name);
    Layout::single(&dir, image);
    sandbox.outcrop(&["load", "-q", "-i", dir.to_str().unwrap()])
}

/// Else what is built on that layer would be pushed with the other one's files.
#[test]
fn a_blob_is_not_taken_for_a_layer_that_it_does_not_unpack_to() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        let (a, b) = (tar_of("a"), tar_of("b"));
        let [of_a, of_b] = [&a, &b].map(|tar| image_of(std::slice::from_ref(tar)));
        load(&sandbox, "a", &of_a).ok();
        let refused = |name: &str, image: &Image| {
            load(&sandbox, name, image).fails(1).complains("the image's config promises");
        };
        // The layer is here, and the blob is not.
        refused("a-by-b", &with_blobs(&[&a], &[&of_b]));
        load(&sandbox, "b", &of_b).ok();
        // Both are here.
        refused("a-by-b", &with_blobs(&[&a], &[&of_b]));
        refused("b-by-a", &with_blobs(&[&a, &b], &[&of_a, &of_a]));
        let mut longer = with_blobs(&[&a], &[&of_a]);
        longer.manifest.layers[0].size += 1;
        longer.manifest_raw = longer.manifest.to_bytes();
        load(&sandbox, "longer", &longer).fails(1).complains("its descriptor says");
        sandbox.outcrop(&["image", "prune", "-f"]).ok();
        sandbox.check();
    }
}

/// An image that came from an archive of Docker's, with plain layers and without a manifest; and the registry that has it
/// compressed, as `app:v1`.
fn loaded_plain(sandbox: &Sandbox) -> (Image, RealRegistry) {
    let image = image_of(&[tar_of("a"), tar_of("b")]);
    let registry = filled(sandbox, &image);
    made(sandbox, "docker-archive");
    sandbox.outcrop(&["load", "-q", "-i", "docker-archive"]).ok();
    assert!(!image.manifest.layers.iter().any(|layer| is_stored(sandbox, layer)));
    (image, registry)
}

/// By skopeo, of the layout that the registry was filled from; a file of the context by the name of its kind.
fn made(sandbox: &Sandbox, kind: &str) {
    let from = format!("oci:{}:image", sandbox.dir().join("layout").display());
    let to = format!("{kind}:{}:reg.test/app:v1", sandbox.context().join(kind).display());
    tool(sandbox, &["skopeo", "copy", "--insecure-policy", "--quiet", &from, &to]);
}

/// Elsewhere it has the layers as they were.
fn is_saved(sandbox: &Sandbox, name: &str, image: &Image) {
    sandbox.outcrop(&["save", "-o", "saved.tar", name]).ok();
    let other = Sandbox::new();
    let archive = sandbox.context().join("saved.tar");
    other.outcrop(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    let absent = |layer: &&Descriptor| !is_stored(&other, layer);
    assert_eq!(image.manifest.layers.iter().find(absent), None);
    sandbox.check();
}

#[test]
fn an_image_that_was_loaded_plain_is_saved_as_it_was_pulled() {
    let sandbox = Sandbox::new();
    let (image, registry) = loaded_plain(&sandbox);
    let name = format!("{}/app:v1", registry.address);
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    is_saved(&sandbox, &name, &image);
}

#[test]
fn an_image_that_was_loaded_plain_is_saved_as_it_was_loaded_again() {
    let sandbox = Sandbox::new();
    let (image, _registry) = loaded_plain(&sandbox);
    made(&sandbox, "oci-archive");
    sandbox.outcrop(&["load", "-q", "-i", "oci-archive"]).ok();
    is_saved(&sandbox, "reg.test/app:v1", &image);
}

/// As a registry has them.
fn layers_of(name: &str) -> Vec<Descriptor> {
    let name: Reference = name.parse().unwrap();
    let source = Registry::of(&name, &Options::default()).unwrap();
    Manifest::parse(&source.resolve(&Job::silent(), &name).unwrap().1).unwrap().layers
}

/// A registry with an image in it as `base:1`, compressed with zstd.
fn with_zstd(maker: &Sandbox) -> (RealRegistry, Vec<Descriptor>) {
    let image = image_of(&[tar_of("a"), tar_of("b")]);
    let registry = RealRegistry::start(maker);
    load(maker, "base", &image).ok();
    let name = format!("{}/base:1", registry.address);
    maker.outcrop(&["tag", &image.manifest.config.digest.to_string(), &name]).ok();
    maker.outcrop(&["push", "--compression", "zstd", &name]).ok();
    let layers = layers_of(&name);
    assert!(layers.iter().all(|layer| layer.media_type.compression() == Some(Compression::Zstd)));
    (registry, layers)
}

#[test]
fn the_forms_of_a_base_go_with_what_is_built_on_it_and_come_back_when_they_were_dropped() {
    let (maker, sandbox) = (Sandbox::new(), Sandbox::new());
    let (registry, base) = with_zstd(&maker);
    let server = Server::before(&registry);
    sandbox.file("own", "own\n");
    sandbox.dockerfile(&format!("FROM {}/base:1\nCOPY own /own\n", server.address));
    let other = RealRegistry::start(&sandbox);
    let (kept, plain) = (format!("{}/kept:1", other.address), format!("{}/plain:1", other.address));
    // One with a manifest in the store, one without.
    sandbox.outcrop(&["build", "-o", &format!("type=image,name={kept},annotation.a=b"), "."]).ok();
    sandbox.outcrop(&["build", "-t", &plain, "."]).ok();
    for name in [&kept, &plain] {
        sandbox.outcrop(&["push", name]).ok();
        assert_eq!(layers_of(name)[..2], base, "{name}");
    }
    sandbox.outcrop(&["save", "--format", "oci-archive", "-o", "saved.tar", &plain]).ok();
    let saved = tool(&sandbox, &["tar", "-tf", "saved.tar"]);
    assert!(base.iter().all(|layer| saved.contains(&layer.digest.hex())), "{saved}");
    sandbox.outcrop(&["image", "prune", "--blobs", "-f"]).ok();
    assert!(!base.iter().any(|layer| is_stored(&sandbox, layer)));
    drop(other);
    let third = RealRegistry::start(&sandbox);
    for (n, name) in [&kept, &plain].into_iter().enumerate() {
        let there = format!("{}/app:{n}", third.address);
        sandbox.outcrop(&["tag", name, &there]).ok();
        sandbox.outcrop(&["push", &there]).ok();
        assert_eq!(layers_of(&there)[..2], base, "{name}");
    }
    for layer in &base {
        assert_eq!(ranges(&server, layer), ["all", "all"]);
    }
    sandbox.check();
}

#[test]
fn a_pull_of_what_is_up_to_date_writes_nothing_to_the_index() {
    let sandbox = Sandbox::new();
    let image = image_of(&[tar_of("a"), tar_of("b")]);
    let registry = filled(&sandbox, &image);
    let name = format!("{}/app:v1", registry.address);
    sandbox.outcrop(&["pull", &name]).ok();
    let index = || {
        let bytes = |file: &str| fs::read(sandbox.root().join(file)).unwrap_or_default();
        ["outcrop.db", "outcrop.db-wal", "files.db", "files.db-wal", "tags.log"].map(bytes)
    };
    let before = index();
    assert!(before[0].len() > 1000);
    sandbox.outcrop(&["pull", &name]).ok().says("up to date");
    let changed = std::iter::zip(before, index()).filter(|(before, after)| before != after);
    assert_eq!(changed.count(), 0);
    sandbox.check();
}
