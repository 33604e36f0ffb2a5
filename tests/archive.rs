//! Images in files, as others write them.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use outcrop::archive::{Layout, LayoutDir, named};
use outcrop::error::{Context as _, Error, Kind, Result};
use outcrop::image::{Descriptor, Digest, Index, Manifest, MediaType, PlatformEntry, Reference};
use outcrop::job::Job;
use outcrop::transfer::{Found, Sink as _, Source as _, find};

use crate::registry_kit::{self as kit, Image};
use crate::sandbox::{Sandbox, find_on_path};

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn look(dir: &Path, text: &str) -> Result<Found> {
    find(&Job::silent(), &Layout::open(dir)?, &name(text), &"linux/amd64".parse().unwrap())
}

/// The layers' bytes, bottom first.
fn layers(dir: &Path, found: &Found) -> Result<Vec<Vec<u8>>> {
    let layers = Mutex::new(vec![Vec::new(); found.layers().count()]);
    found.fetch(
        &Job::silent(),
        &Layout::open(dir)?,
        |_| Ok(true),
        |layer, stream| {
            let bytes = &mut layers.lock().unwrap()[layer.position];
            stream.read_to_end(bytes).context(|| "reading a layer").map(drop)
        },
    )?;
    Ok(layers.into_inner().unwrap())
}

/// Rewrites the annotations of `index.json`'s only entry.
fn annotate(dir: &Path, annotations: &[(&str, &str)]) {
    let path = dir.join("index.json");
    let mut index = Index::parse(&fs::read(&path).unwrap()).unwrap();
    index.manifests[0].annotations =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    fs::write(path, index.to_bytes()).unwrap();
}

#[test]
fn a_layout_that_skopeo_wrote_gives_the_image_back() {
    let sandbox = Sandbox::new();
    let image = Image::of("linux/amd64", &[100_000, 10, 0]);
    let (ours, theirs) = (sandbox.dir().join("ours"), sandbox.dir().join("theirs"));
    kit::Layout::single(&ours, &image);
    let output = Command::new(find_on_path("skopeo"))
        .args(["copy", "--insecure-policy", "--quiet"])
        .args([format!("oci:{}:image", ours.display()), format!("oci:{}:v1", theirs.display())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = look(&theirs, "example.com/app:v1").unwrap();
    assert_eq!(found.config_raw, image.config);
    assert_eq!(layers(&theirs, &found).unwrap(), image.layers);
}

#[test]
fn names_are_found_by_tag_by_full_name_and_alone() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    let image = Image::of("linux/amd64", &[10]);
    kit::Layout::single(&dir, &image);
    let digest = Digest::of(&image.manifest_raw);
    const FULL: &str = "io.containerd.image.name";
    const SHORT: &str = "org.opencontainers.image.ref.name";
    for (annotations, text, there) in [
        (&[(SHORT, "v1")][..], "app:v1", true),
        (&[(SHORT, "v1")], "other/app:v1", true),
        (&[(SHORT, "v1")], "app", false),
        (&[(SHORT, "docker.io/library/app:v1")], "app:v1", true),
        (&[(SHORT, "docker.io/library/app:v1")], "other:v1", false),
        (&[(FULL, "docker.io/library/app:v1"), (SHORT, "v1")], "app:v1", true),
        (&[], "whatever:x", true),
        (&[(SHORT, "v1")], &format!("app@{digest}"), true),
        (&[(SHORT, "v1")], &format!("app@{}", Digest::of(b"no")), false),
    ] {
        annotate(&dir, annotations);
        let result = look(&dir, text);
        assert_eq!(result.is_ok(), there, "{annotations:?} {text}");
        if let Err(error) = result {
            assert_eq!(error.kind(), Kind::NotFound, "{annotations:?} {text}");
        }
    }
    annotate(&dir, &[(SHORT, "v1")]);
    assert_eq!(look(&dir, "app").unwrap_err().hint_text(), Some("it has v1"));
}

#[test]
fn a_manifest_within_an_index_is_found_by_its_digest() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    let (amd, arm) = (Image::of("linux/amd64", &[64]), Image::of("linux/arm64", &[65]));
    let layout = kit::Layout::index(&dir, &[&arm, &amd]);
    let found = look(&dir, "app:image").unwrap();
    assert_eq!(found.manifest_raw, amd.manifest_raw);
    assert_eq!(found.index.unwrap().1, layout.index_raw.unwrap());
    let digest = Digest::of(&arm.manifest_raw);
    let found = look(&dir, &format!("app@{digest}")).unwrap();
    assert_eq!((found.digest, found.config_raw), (digest, arm.config));
}

#[test]
fn one_name_for_two_images_is_refused() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    kit::Layout::single(&dir, &Image::of("linux/amd64", &[10]));
    let first = fs::read(dir.join("index.json")).unwrap();
    kit::Layout::single(&dir, &Image::of("linux/amd64", &[11]));
    let mut both = Index::parse(&first).unwrap();
    both.manifests.extend(Layout::open(&dir).unwrap().entries().unwrap());
    fs::write(dir.join("index.json"), both.to_bytes()).unwrap();
    assert_eq!(look(&dir, "app:image").unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn damage_is_found() {
    let sandbox = Sandbox::new();
    let image = Image::of("linux/amd64", &[10_000]);
    let damaged = |number: u8, blob: &[u8], change: fn(&mut Vec<u8>)| -> Error {
        let dir = sandbox.dir().join(number.to_string());
        kit::Layout::single(&dir, &image);
        let path = dir.join("blobs/sha256").join(Digest::of(blob).hex());
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        look(&dir, "app:image").and_then(|found| layers(&dir, &found)).unwrap_err()
    };
    let flip: fn(&mut Vec<u8>) = |bytes| bytes[20] ^= 1;
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() - 1);
    for (number, blob) in [&image.manifest_raw, &image.config, &image.layers[0]].into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        assert_eq!(damaged(number * 2, blob, flip).kind(), Kind::Corrupt, "{number} flipped");
        assert_eq!(damaged(number * 2 + 1, blob, cut).kind(), Kind::Corrupt, "{number} cut");
    }
}

#[test]
fn what_is_no_layout_is_said() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    assert_eq!(Layout::open(&dir).err().unwrap().kind(), Kind::NotFound);
    fs::create_dir(&dir).unwrap();
    let error = Layout::open(&dir).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().unwrap().contains("index.json"));
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(Layout::open(&dir).err().unwrap().kind(), Kind::Unsupported);
    // A fifo in place of a file does not hang.
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let fifo = Command::new("mkfifo").arg(dir.join("index.json")).status().unwrap();
    assert!(fifo.success());
    assert_eq!(look(&dir, "app").unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_blob_is_read_from_an_offset() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    let image = Image::of("linux/amd64", &[1_000]);
    kit::Layout::single(&dir, &image);
    let (layout, job) = (Layout::open(&dir).unwrap(), Job::silent());
    let wanted = &image.manifest.layers[0];
    let mut bytes = Vec::new();
    layout.blob(&job, &name("app"), wanted, 700).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, image.layers[0][700..]);
}

/// As BuildKit puts provenance and SBOMs beside an image.
#[test]
fn an_attestation_beside_an_image_goes_out_with_it_and_is_passed_over_on_the_way_in() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    let image = Image::of("linux/amd64", &[10]);
    let mut layout = LayoutDir::open(&dir).unwrap();
    let mut put = |media_type: MediaType, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        let mut fill = |out: &mut dyn std::io::Write| out.write_all(bytes).context(|| "writing");
        layout.blob(&descriptor, &mut fill).unwrap();
        descriptor
    };
    let config = Descriptor::of(MediaType::OciConfig, &image.config);
    put(MediaType::OciConfig, &image.config);
    for layer in &image.layers {
        put(MediaType::Other("layer".into()), layer);
    }
    let manifest_of = put(MediaType::OciManifest, &image.manifest_raw);
    let statement = put(MediaType::Other("application/vnd.in-toto+json".into()), b"{}");
    let attestation = Manifest::new(config, vec![statement]).to_bytes();
    let mut attestation = put(MediaType::OciManifest, &attestation);
    attestation.platform = Some(PlatformEntry {
        os: "unknown".into(),
        architecture: "unknown".into(),
        ..PlatformEntry::default()
    });
    for (key, value) in [
        ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
        ("vnd.docker.reference.digest", manifest_of.digest.to_string()),
    ] {
        attestation.annotations.insert(key.into(), value);
    }
    // First in the index: nothing but what it is tells it apart.
    let index = put(MediaType::OciIndex, &Index::new(vec![attestation, manifest_of]).to_bytes());
    layout.finish(vec![named(index, &name("app:v1"))]).unwrap();
    let found = look(&dir, "app:v1").unwrap();
    assert_eq!(found.config_raw, image.config);
    assert_eq!(layers(&dir, &found).unwrap(), image.layers);
}

/// As containerd exports what was pulled by its digest.
#[test]
fn a_name_with_a_digest_in_an_archive_is_no_tag() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("layout");
    let image = kit::tarred("linux/amd64", &["a"]);
    kit::Layout::single(&dir, &image);
    let name = format!("reg.test/app@{}", image.descriptor().digest);
    annotate(&dir, &[("io.containerd.image.name", &name)]);
    sandbox.outcrop(&["load", "-i", dir.to_str().unwrap()]).ok().says(&format!("Loaded image: {name}"));
    let told = sandbox.outcrop(&["inspect", "-f", "{{len .RepoTags}} {{.RepoDigests}}", &name]).ok();
    assert_eq!(told.line(), format!("0 [{name}]"));
    sandbox.outcrop(&["rmi", &name]).ok().says(&format!("Untagged: {name}"));
    assert_eq!(sandbox.outcrop(&["images", "-aq"]).ok().line(), "");
    // Nor is it one for what has no digest of its own yet.
    let tree = sandbox.busybox_archive();
    sandbox.outcrop(&["import", tree.to_str().unwrap(), &name]).fails(1).complains("holds a digest");
    sandbox.check();
}
