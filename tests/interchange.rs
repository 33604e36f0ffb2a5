//! Images and archives that other tools made, and what they make of ours: Docker 20.10, Podman, Buildah, Skopeo, umoci.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use outcrop::image::{Descriptor, DiffId, Digest, Manifest, MediaType};
use serde_json::Value;

use crate::judge_kit::Court;
use crate::registry_kit::{Image, Layout, RealRegistry, config_for};
use crate::sandbox::{Outcome, Sandbox, find_on_path};

fn skopeo(args: &[&str]) -> Vec<u8> {
    Outcome::of(Command::new(find_on_path("skopeo")).args(args)).ok().output.stdout
}

fn raw(name: &str) -> Vec<u8> {
    skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")])
}

fn id(sandbox: &Sandbox, name: &str) -> String {
    sandbox.outcrop(&["images", "-q", "--no-trunc", name]).ok().line()
}

fn built(sandbox: &Sandbox, name: &str) {
    sandbox.base_image("base");
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM base\nCOPY one /\nRUN echo two > /two\nENV A=b\n");
    sandbox.outcrop(&["build", "-q", "--network", "none", "-t", name, "."]).ok();
}

/// With a storage of its own in the sandbox.
fn podman(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let dir = sandbox.dir();
    let mut command = Command::new(find_on_path("podman"));
    command.args(["--storage-driver", "vfs", "--root"]).arg(dir.join("podman"));
    command.arg("--runroot").arg(dir.join("podman-run")).arg("--tmpdir").arg(dir.join("podman-tmp"));
    Outcome::of(command.args(args).env("HOME", dir).env("TMPDIR", dir).current_dir(sandbox.context()))
}

#[test]
fn an_image_is_saved_in_each_format_and_others_read_it() {
    let sandbox = Sandbox::new();
    built(&sandbox, "app:1");
    for args in [
        &["-o", "docker.tar", "app:1"][..],
        &["--format", "docker-archive", "-o", "docker.tar.gz", "app:1"],
        &["--format", "oci-archive", "-o", "oci.tar", "app:1"],
        &["--format", "oci-archive", "-o", "oci.tzst", "app:1"],
        &["--format", "oci-archive", "--compression", "gzip", "-o", "oci.what", "app:1"],
        &["--format", "oci-dir", "-o", "layout", "app:1"],
        // Added to what is there.
        &["--format", "oci-dir", "-o", "layout", "base"],
    ] {
        sandbox.outcrop(&[&["save"], args].concat()).ok();
    }
    let context = sandbox.context();
    let head = |name: &str| fs::read(context.join(name)).unwrap()[..4].to_vec();
    assert_eq!(head("docker.tar.gz")[..2], [0x1f, 0x8b]);
    assert_eq!(head("oci.what")[..2], [0x1f, 0x8b]);
    assert_eq!(head("oci.tzst"), [0x28, 0xb5, 0x2f, 0xfd]);
    let tar = |name: &str| {
        let list = Command::new("tar").arg("-tf").arg(context.join(name)).output().unwrap().stdout;
        String::from_utf8(list).unwrap()
    };
    assert!(tar("docker.tar").contains("manifest.json"));
    assert!(!tar("oci.tar").contains("manifest.json"));
    for name in ["docker.tar", "docker.tar.gz", "oci.tar", "oci.tzst", "oci.what", "layout"] {
        let other = Sandbox::new();
        other.outcrop(&["load", "-i", context.join(name).to_str().unwrap()]).ok().says("Loaded image: app:1");
        assert_eq!(id(&other, "app:1"), id(&sandbox, "app:1"), "{name}");
        other.check();
    }
    let places = [("docker-archive:docker.tar", "app:1"), ("oci-archive:oci.tar", "1"), ("oci:layout", "1")];
    for (n, (place, name)) in places.iter().enumerate() {
        let (kind, path) = place.split_once(':').unwrap();
        let place = format!("{kind}:{}:{name}", context.join(path).display());
        let to = sandbox.dir().join(format!("judged{n}"));
        skopeo(&["copy", "--insecure-policy", "--quiet", &place, &format!("dir:{}", to.display())]);
    }
    let bundle = sandbox.dir().join("bundle");
    let image = format!("{}:1", context.join("layout").display());
    let umoci = Command::new(find_on_path("umoci")).args(["unpack", "--image", &image]).arg(&bundle).output();
    assert!(umoci.unwrap().status.success());
    assert_eq!(fs::read_to_string(bundle.join("rootfs/two")).unwrap(), "two\n");
    podman(&sandbox, &["load", "-q", "-i", "docker.tar"]).ok().says("app:1");
    let said = podman(&sandbox, &["images", "-q", "--no-trunc", "app:1"]).ok().line();
    assert_eq!(said, id(&sandbox, "app:1"));
    let other = Sandbox::new();
    for (format, path) in
        [("docker-archive", "p.tar"), ("oci-archive", "po.tar"), ("oci-dir", "pdir"), ("docker-dir", "pflat")]
    {
        podman(&sandbox, &["save", "-q", "--format", format, "-o", path, "app:1"]).ok();
        let path = context.join(path);
        other.outcrop(&["load", "-i", path.to_str().unwrap()]).ok();
    }
    let ids = other.outcrop(&["images", "-q", "--no-trunc"]).ok().lines();
    assert!(ids.contains(&id(&sandbox, "app:1")), "{ids:?}");
    other.check();
    sandbox.outcrop(&["save", "--format", "oci-dir", "app:1"]).fails(1).complains("--output DIR");
    podman(&sandbox, &["rmi", "-af"]).ok();
}

#[test]
fn docker_loads_what_was_saved_and_what_it_saves_is_loaded() {
    let court = Court::sits();
    let sandbox = Sandbox::new();
    built(&sandbox, "interchange-saved:1");
    let expected = id(&sandbox, "interchange-saved:1");
    let docker = |args: &[&str]| {
        let mut command = court.docker(args);
        Outcome::of(command.current_dir(sandbox.context())).ok()
    };
    for (format, archive) in [("docker-archive", "a.tar"), ("docker-archive", "a.tar.gz")] {
        sandbox.outcrop(&["save", "--format", format, "-o", archive, "interchange-saved:1"]).ok();
        docker(&["load", "-i", archive]).says("Loaded image: interchange-saved:1");
        assert_eq!(docker(&["images", "-q", "--no-trunc", "interchange-saved:1"]).line(), expected);
        let said =
            docker(&["run", "--rm", "--network", "none", "interchange-saved:1", "cat", "/one", "/two"]);
        assert_eq!(said.line(), "onetwo");
        docker(&["save", "-o", "back.tar", "interchange-saved:1"]);
        docker(&["rmi", "-f", "interchange-saved:1"]);
        let other = Sandbox::new();
        let back = sandbox.context().join("back.tar");
        other.outcrop(&["load", "-i", back.to_str().unwrap()]).ok().says("Loaded image: interchange-saved:1");
        assert_eq!(id(&other, "interchange-saved:1"), expected);
        other.check();
    }
}

/// What Docker 20.10 writes holds what Docker wrote before 1.10; the rest is taken out.
fn without_manifest(archive: &Path, dir: &Path, names: bool) -> PathBuf {
    fs::create_dir(dir).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(dir));
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".json") || (name == "repositories" && !names) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let old = dir.with_extension("tar");
    run(Command::new("tar").arg("-cf").arg(&old).arg("-C").arg(dir).arg("."));
    old
}

#[test]
fn an_archive_of_docker_before_1_10_gives_the_ids_that_docker_gives() {
    let court = Court::sits();
    let sandbox = Sandbox::new();
    let docker = |args: &[&str]| Outcome::of(court.docker(args).current_dir(sandbox.context())).ok();
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM base\nCOPY one /\nRUN echo '<two> & more' > /two\nENV A=<b>\nLABEL c=d\n");
    docker(&["build", "-q", "--network", "none", "-t", "interchange-old:1", "."]);
    docker(&["save", "-o", "new.tar", "interchange-old:1"]);
    docker(&["rmi", "-f", "interchange-old:1"]);
    let old = without_manifest(&sandbox.context().join("new.tar"), &sandbox.dir().join("old"), true);
    docker(&["load", "-i", old.to_str().unwrap()]);
    let expected = docker(&["images", "-q", "--no-trunc", "interchange-old:1"]).line();
    sandbox.outcrop(&["load", "-i", old.to_str().unwrap()]).ok().says("Loaded image: interchange-old:1");
    assert_eq!(id(&sandbox, "interchange-old:1"), expected);
    let said =
        sandbox.outcrop(&["run", "--rm", "--network", "none", "interchange-old:1", "cat", "/one", "/two"]);
    assert_eq!(said.ok().line(), "one<two> & more");
    // Without `repositories` it is the image that no other stands on.
    let bare = without_manifest(&sandbox.context().join("new.tar"), &sandbox.dir().join("bare"), false);
    let other = Sandbox::new();
    let outcome = other.outcrop(&["load", "-i", bare.to_str().unwrap()]).ok();
    assert_eq!(outcome.line(), format!("Loaded image ID: {expected}"));
    // Copied to a registry it is compressed.
    let registry = RealRegistry::start(&sandbox);
    let to = format!("{}/old:1", registry.address);
    let from = format!("docker-archive:{}:interchange-old:1", old.display());
    sandbox.outcrop(&["copy", "-q", &from, &format!("docker://{to}")]).ok();
    assert_eq!(Manifest::parse(&raw(&to)).unwrap().config.digest.to_string(), expected);
    docker(&["rmi", "-f", "interchange-old:1"]);
    sandbox.check();
    other.check();
    // A part of it is missing.
    let dir = sandbox.dir().join("old");
    let layer = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    fs::remove_file(layer.unwrap().join("layer.tar")).unwrap();
    let cut = sandbox.dir().join("cut.tar");
    let tar = Command::new("tar").arg("-cf").arg(&cut).arg("-C").arg(&dir).arg(".").status();
    assert!(tar.unwrap().success());
    other.outcrop(&["load", "-i", cut.to_str().unwrap()]).fails(1).complains("does not hold it");
}

/// Pulled, run, and pushed elsewhere: the manifest is the same, byte for byte.
fn comes_and_goes(registry: &RealRegistry, name: &str, command: &[&str], says: &str) {
    let sandbox = Sandbox::new();
    sandbox.outcrop(&["pull", "-q", name]).ok();
    let run = ["run", "--rm", "--network", "none", name];
    assert_eq!(sandbox.outcrop(&[&run[..], command].concat()).ok().line(), says, "{name}");
    let manifest = raw(name);
    for to in [format!("{}/elsewhere:1", registry.address), format!("{name}-again")] {
        sandbox.outcrop(&["tag", name, &to]).ok();
        sandbox.outcrop(&["push", "-q", &to]).ok();
        assert_eq!(raw(&to), manifest, "{to}");
    }
    // By way of an archive and another store as well.
    let archive = sandbox.context().join("x.tar");
    sandbox.outcrop(&["save", "--format", "oci-archive", "-o", archive.to_str().unwrap(), name]).ok();
    let third = Sandbox::new();
    third.outcrop(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    let to = format!("{}/around:1", registry.address);
    third.outcrop(&["tag", name, &to]).ok();
    third.outcrop(&["push", "-q", &to]).ok();
    assert_eq!(raw(&to), manifest, "{to}");
    sandbox.check();
    third.check();
}

#[test]
fn images_of_docker_and_buildah_come_and_go_unchanged() {
    let court = Court::sits();
    let sandbox = Sandbox::new();
    let (registry, other) = (RealRegistry::start(&sandbox), RealRegistry::start(&sandbox));
    let name = format!("{}/docker/app:1", registry.address);
    Outcome::of(&mut court.docker(&["tag", "base", &name])).ok();
    Outcome::of(&mut court.docker(&["push", &name])).ok();
    Outcome::of(&mut court.docker(&["rmi", &name])).ok();
    comes_and_goes(&other, &name, &["echo", "docker"], "docker");
    for format in ["oci", "v2s2"] {
        let name = format!("{}/buildah/app:{format}", registry.address);
        let to = format!("docker://{name}");
        let push = ["push", "--quiet", "--tls-verify=false", "--format", format, "base", &to];
        Outcome::of(&mut court.buildah(&push)).ok();
        comes_and_goes(&other, &name, &["echo", format], format);
    }
}

/// As skopeo's `zstd:chunked` needs it: it writes tars anew as Go does, and leaves the digests in the config as they were.
fn made_by_umoci(sandbox: &Sandbox) -> String {
    sandbox.busybox_archive();
    let (dir, bundle) = (sandbox.context().join("layout"), sandbox.dir().join("bundle"));
    let image = format!("{}:1", dir.display());
    let umoci = |args: &[&str]| Outcome::of(Command::new(find_on_path("umoci")).args(args)).ok();
    umoci(&["init", "--layout", dir.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let rootfs = bundle.join("rootfs");
    let tree = sandbox.dir().join("busybox/.");
    Outcome::of(Command::new("cp").arg("-a").arg(tree).arg(&rootfs)).ok();
    umoci(&["repack", "--image", &image, bundle.to_str().unwrap()]);
    fs::write(rootfs.join("one"), "one").unwrap();
    fs::write(rootfs.join("two"), "two\n").unwrap();
    umoci(&["repack", "--image", &image, bundle.to_str().unwrap()]);
    format!("oci:{image}")
}

#[test]
fn layers_of_all_compressions_that_skopeo_writes_come_and_go_unchanged() {
    let sandbox = Sandbox::new();
    let other = RealRegistry::start(&sandbox);
    let layout = made_by_umoci(&sandbox);
    for (format, suffix) in [("gzip", "+gzip"), ("zstd", "+zstd"), ("zstd:chunked", "+zstd")] {
        // Skopeo remembers what a registry has, and takes it in place of what it was asked for.
        let registry = RealRegistry::start(&sandbox);
        let name = format!("{}/app:{}", registry.address, format.replace(':', "-"));
        let to = format!("docker://{name}");
        let copy = ["copy", "--insecure-policy", "--quiet", "--dest-tls-verify=false"];
        skopeo(&[&copy[..], &["--dest-compress-format", format, &layout, &to]].concat());
        let text = String::from_utf8(raw(&name)).unwrap();
        assert_eq!(text.contains("zstd-chunked"), format == "zstd:chunked", "{text}");
        assert!(text.contains(&format!("v1.tar{suffix}\"")), "{text}");
        comes_and_goes(&other, &name, &["cat", "/one", "/two"], "onetwo");
    }
}

/// A gzip member by itself.
fn member(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = [&header[..], content].concat();
    tar.resize(tar.len().next_multiple_of(512), 0);
    tar
}

/// As containerd's stargz-snapshotter describes it (docs/estargz.md): a gzip member for each entry, one for the table of
/// contents, and a footer that is an empty member with an extra field.
fn estargz() -> (Vec<u8>, DiffId) {
    let parts = [
        file(".no.prefetch.landmark", b"\x0f"),
        file("here", b"lazily"),
        [file("stargz.index.json", br#"{"version":1,"entries":[]}"#), vec![0; 1024]].concat(),
    ];
    let toc = parts[..2].iter().map(|part| member(part).len()).sum::<usize>();
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    footer.extend(format!("{toc:016x}STARGZ").as_bytes());
    footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(footer.len(), 51);
    let mut blob: Vec<u8> = parts.iter().flat_map(|part| member(part)).collect();
    blob.extend(footer);
    (blob, DiffId(Digest::of(&parts.concat())))
}

#[test]
fn an_estargz_layer_is_a_layer_like_any_other() {
    let sandbox = Sandbox::new();
    let (registry, other) = (RealRegistry::start(&sandbox), RealRegistry::start(&sandbox));
    let tree = fs::read(sandbox.busybox_archive()).unwrap();
    let mut config = config_for(&"linux/amd64".parse().unwrap());
    let (layer, diff_id) = estargz();
    config.rootfs.diff_ids = vec![DiffId(Digest::of(&tree)), diff_id];
    let config = config.to_bytes();
    let layers = vec![member(&tree), layer];
    let kind = MediaType::from("application/vnd.oci.image.layer.v1.tar+gzip");
    let mut descriptors: Vec<Descriptor> =
        layers.iter().map(|layer| Descriptor::of(kind.clone(), layer)).collect();
    let digest = Digest::of(br#"{"version":1,"entries":[]}"#).to_string();
    descriptors[1].annotations.insert("containerd.io/snapshot/stargz/toc.digest".into(), digest);
    let manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, &config), descriptors);
    let image = Image { layers, config, manifest_raw: manifest.to_bytes(), manifest };
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let name = format!("{}/app:1", registry.address);
    comes_and_goes(&other, &name, &["cat", "/here"], "lazily");
}

#[test]
fn an_index_built_here_is_an_index_for_others() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM scratch\nCOPY one /\nARG TARGETARCH\nENV ARCH=$TARGETARCH\n");
    let name = format!("{}/app:1", registry.address);
    let build = ["build", "-q", "--platform", "linux/amd64,linux/arm64"];
    sandbox.outcrop(&[&build[..], &["-o", "type=oci,dest=x.tar", "."]].concat()).ok();
    sandbox.outcrop(&[&build[..], &["--push", "-t", &name, "."]].concat()).ok();
    let archive = format!("oci-archive:{}", sandbox.context().join("x.tar").display());
    let platforms = |raw: &[u8]| -> Vec<String> {
        let index: Value = serde_json::from_slice(raw).unwrap();
        assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
        let text = |entry: &Value| {
            format!(
                "{}/{}",
                entry["platform"]["os"].as_str().unwrap(),
                entry["platform"]["architecture"].as_str().unwrap()
            )
        };
        index["manifests"].as_array().unwrap().iter().map(text).collect()
    };
    let in_archive = skopeo(&["inspect", "--raw", &archive]);
    for raw in [&in_archive, &raw(&name)] {
        assert_eq!(platforms(raw), ["linux/amd64", "linux/arm64"]);
    }
    assert_eq!(in_archive, raw(&name), "it is the same index wherever it goes");
    for arch in ["amd64", "arm64"] {
        let place = format!("docker://{name}");
        let config = skopeo(&["inspect", "--tls-verify=false", "--override-arch", arch, "--config", &place]);
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&config["architecture"], &config["os"]), (&Value::from(arch), &Value::from("linux")));
    }
    // The store has it too, and gives it to others as a push does.
    sandbox.outcrop(&["copy", "-q", "-a", &name, "oci:layout:1"]).ok();
    let stored =
        skopeo(&["inspect", "--raw", &format!("oci:{}:1", sandbox.context().join("layout").display())]);
    assert_eq!(stored, in_archive);
    let one = format!("oci:{}:arm", sandbox.context().join("layout").display());
    sandbox.outcrop(&["copy", "-q", "--platform", "linux/arm64", &name, &one]).ok();
    let config: Value = serde_json::from_slice(&skopeo(&["inspect", "--config", &one])).unwrap();
    assert_eq!(config["architecture"], "arm64");
    sandbox
        .outcrop(&["copy", "-q", "--platform", "linux/s390x", &name, "oci:none"])
        .fails(1)
        .complains("here is linux/amd64, linux/arm64");
    let copied = format!("docker://{}/copied:1", registry.address);
    sandbox.outcrop(&["copy", "-q", "-a", &archive, &copied]).ok();
    assert_eq!(skopeo(&["inspect", "--tls-verify=false", "--raw", &copied]), in_archive);
}
