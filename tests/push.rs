//! Pushing to a real registry, and to one that misbehaves.

use std::io::Read;
use std::net::SocketAddr;

use outcrop::error::Result;
use outcrop::image::{Descriptor, MediaType, Reference};
use outcrop::job::Job;
use outcrop::registry::{Options, Outgoing, Placed, Registry};

use crate::registry_kit::{Image, RealRegistry, noise};
use crate::sandbox::Sandbox;

fn at(address: SocketAddr, rest: &str) -> Reference {
    format!("{address}/{rest}").parse().unwrap()
}

fn push_bytes(registry: &Registry, name: &Reference, bytes: &[u8], seen_in: &[&str]) -> Result<Placed> {
    let blob = Descriptor::of(MediaType::from("application/octet-stream"), bytes);
    let seen_in: Vec<String> = seen_in.iter().map(|one| (*one).to_owned()).collect();
    let open = |offset: u64| {
        let rest = bytes[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Box::new(std::io::Cursor::new(rest)) as Box<dyn Read + Send>)
    };
    let outgoing = Outgoing { blob: &blob, seen_in: &seen_in, open: &open, progress: &|_| {} };
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
