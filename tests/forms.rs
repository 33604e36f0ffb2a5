//! Blobs as forms of layers: what unpacks to something else is none, and a manifest that comes later brings those it names.

use outcrop::image::Descriptor;

use crate::registry_kit::{Image, Layout, RealRegistry, config_for, tar_of};
use crate::sandbox::{Outcome, Sandbox, tool};
use crate::transfer_kit::{filled, image_of, is_stored};

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
