//! What builds leave behind, judged by other tools.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, based, build_offline as build, tool};

/// Owners, modes, links, a device, a deleted file and a long name.
const RICH: &str = "FROM base
RUN mkdir -p /d/e && echo one > /d/one && ln /d/one /d/two && ln -s one /d/link && chown 12:34 /d/e && chmod 4711 /d/one
COPY file /f
RUN rm /f && mknod /d/null c 1 3 && mkfifo -m 600 /d/fifo && touch -d @1000000000 /d/old /d/e
RUN touch /d/a-name-that-is-so-long-that-it-does-not-fit-into-the-header-of-an-archive-member-and-has-to-stand-elsewhere
LABEL a=b
";

fn sandbox(dockerfile: &str) -> Sandbox {
    let sandbox = based(dockerfile);
    sandbox.file("file", "hello\n");
    sandbox
}

fn id(sandbox: &Sandbox, name: &str) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", name]).ok().line()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn sha256(sandbox: &Sandbox, file: &str) -> String {
    tool(sandbox, &["sha256sum", file])[..64].to_owned()
}

/// Every file below `dir` in words, the directory itself aside.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let content = if kind.is_file() {
                format!("{:x?}", md5(&fs::read(&path).unwrap()))
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().to_string_lossy().into_owned()
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("device {}", meta.rdev())
            } else {
                String::new()
            };
            // A directory's link count, and its size, are its filesystem's.
            let links = if kind.is_dir() { 0 } else { meta.nlink() };
            let said =
                format!("{:o} {}:{} {} {links} {content}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
            let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
            found.insert(name, said);
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

/// Some number of the content; two that differ are seen.
fn md5(bytes: &[u8]) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Unpacks a tar with all it says.
fn untar(sandbox: &Sandbox, archive: &str, name: &str) -> PathBuf {
    let dir = sandbox.dir().join(name);
    fs::create_dir(&dir).unwrap();
    let to = dir.to_str().unwrap();
    tool(sandbox, &["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", to, "-xpf", archive]);
    dir
}

#[test]
fn an_oci_archive_holds_the_image_as_it_is_in_the_store() {
    let sandbox = sandbox(RICH);
    build(&sandbox, &["-t", "it:1", "-o", "type=image", "-o", "type=oci,dest=it.tar"]).ok();
    let image = id(&sandbox, "it:1");
    let said = json(&tool(&sandbox, &["skopeo", "inspect", "oci-archive:it.tar:1"]));
    assert_eq!(said["Labels"]["a"], "b");
    let raw = tool(&sandbox, &["skopeo", "inspect", "--raw", "oci-archive:it.tar:1"]);
    let manifest = json(&raw);
    assert_eq!(manifest["config"]["digest"], image);
    // Other tools find every blob, and its digest right.
    tool(&sandbox, &["skopeo", "copy", "-q", "--insecure-policy", "oci-archive:it.tar:1", "dir:copied"]);
    let copied = fs::read_to_string(sandbox.context().join("copied/manifest.json")).unwrap();
    assert_eq!(copied, raw);
    let back = ["skopeo", "copy", "-q", "--insecure-policy", "dir:copied", "oci:back:1"];
    tool(&sandbox, &back);
    assert_eq!(tool(&sandbox, &["skopeo", "inspect", "--raw", "oci:back:1"]), raw);
}

#[test]
fn a_docker_archive_loads_elsewhere_with_the_same_id() {
    let sandbox = sandbox(RICH);
    build(&sandbox, &["-t", "it:1", "-t", "other", "--load", "-o", "type=docker,dest=it.tar"]).ok();
    let image = id(&sandbox, "other");
    let listed = json(&tool(&sandbox, &["tar", "-xOf", "it.tar", "manifest.json"]));
    assert_eq!(listed[0]["RepoTags"], serde_json::json!(["it:1", "other:latest"]));
    assert_eq!(listed[0]["Config"], format!("blobs/sha256/{}", &image["sha256:".len()..]));
    let said = tool(&sandbox, &["skopeo", "inspect", "--config", "--raw", "docker-archive:it.tar:it:1"]);
    assert_eq!(json(&said)["config"]["Labels"]["a"], "b");
    let (root, run) = (sandbox.dir().join("podman"), sandbox.dir().join("podman-run"));
    let podman = ["podman", "--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap()];
    let podman = [&podman[..], &["--storage-driver", "vfs"]].concat();
    tool(&sandbox, &[&podman[..], &["load", "-q", "-i", "it.tar"]].concat());
    let loaded = tool(&sandbox, &[&podman[..], &["images", "-q", "--no-trunc", "it"]].concat());
    assert_eq!(loaded.trim(), image);
}

#[test]
fn all_ways_out_show_the_same_files() {
    let sandbox = sandbox(RICH);
    let outputs = ["-o", "type=oci,dest=oci,tar=false", "-o", "local", "-o", "type=tar,dest=it.tar"];
    build(&sandbox, &[&["-t", "it", "--load"][..], &outputs].concat()).ok();
    sandbox.outcrop(&["create", "--name", "its", "it", "true"]).ok();
    sandbox.outcrop(&["export", "-o", "export.tar", "its"]).ok();
    let exported = tree(&untar(&sandbox, "export.tar", "exported"));
    assert!(exported["d/null"].ends_with("device 259"), "{exported:?}");
    assert!(exported["d/one"].starts_with("104711 0:0 "), "{exported:?}");
    assert_eq!(exported["d/one"], exported["d/two"]);
    assert_eq!(tree(&sandbox.context().join("local")), exported);
    assert_eq!(tree(&untar(&sandbox, "it.tar", "tar")), exported);
    tool(&sandbox, &["umoci", "unpack", "--image", "oci:latest", "bundle"]);
    assert_eq!(tree(&sandbox.context().join("bundle/rootfs")), exported);
}

#[test]
fn the_same_image_makes_the_same_bytes() {
    // The base image of the others has the time of its import.
    const TEXT: &str = "FROM scratch\nCOPY file /a/file\nCOPY file /b\nLABEL a=b\n";
    let archives = |sandbox: &Sandbox, n: &str| {
        let (oci, docker, tar) = (format!("{n}.oci"), format!("{n}.docker"), format!("{n}.tar"));
        let (oci, docker, tar) = (&oci[..], &docker[..], &tar[..]);
        let outputs = [format!("type=oci,dest={oci}"), format!("type=docker,dest={docker}")];
        let files = format!("type=tar,dest={tar}");
        build(sandbox, &["-t", "it", "-o", &outputs[0], "-o", &outputs[1], "-o", &files]).ok();
        [oci, docker, tar].map(|file| sha256(sandbox, file))
    };
    let one = sandbox(TEXT).variable("SOURCE_DATE_EPOCH", "1600000000");
    let first = archives(&one, "first");
    assert_eq!(archives(&one, "second"), first);
    let two = sandbox(TEXT).variable("SOURCE_DATE_EPOCH", "1600000000");
    assert_eq!(archives(&two, "first"), first, "in another store");
    let times = tool(&one, &["tar", "--full-time", "--utc", "-tvf", "first.tar"]);
    assert!(times.lines().all(|line| line.contains(" 2020-09-13 12:26:40 ")), "{times}");
}

#[test]
fn layers_are_compressed_as_asked() {
    let sandbox = sandbox(RICH);
    build(&sandbox, &["-t", "it"]).ok();
    let diff_ids = sandbox.outcrop(&["inspect", "--format", "{{json .RootFS.Layers}}", "it"]).ok().json();
    for (compression, suffix, magic) in
        [("uncompressed", "", ""), ("gzip", "+gzip", "1f8b"), ("zstd", "+zstd", "28b52ffd")]
    {
        let name = format!("{compression}-x");
        let output = format!("type=oci,dest={name},tar=false,compression={compression},compression-level=1");
        build(&sandbox, &["-o", &output]).ok();
        let reference = format!("oci:{name}");
        let manifest = json(&tool(&sandbox, &["skopeo", "inspect", "--raw", &reference]));
        let expected = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        for (layer, diff_id) in
            std::iter::zip(manifest["layers"].as_array().unwrap(), diff_ids.as_array().unwrap())
        {
            assert_eq!(layer["mediaType"], expected);
            let digest = layer["digest"].as_str().unwrap();
            assert_eq!(digest == diff_id.as_str().unwrap(), compression == "uncompressed");
            let blob = sandbox.context().join(&name).join("blobs").join(digest.replace(':', "/"));
            let bytes = fs::read(blob).unwrap();
            assert_eq!(bytes.len() as u64, layer["size"].as_u64().unwrap());
            let head: String = bytes.iter().take(magic.len() / 2).map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(head, magic);
        }
        let copied = format!("dir:{name}-copied");
        tool(&sandbox, &["skopeo", "copy", "-q", "--insecure-policy", &reference, &copied]);
    }
}

#[test]
fn only_an_image_output_gives_names_in_the_store() {
    let sandbox = sandbox("FROM base\nCOPY file /\n");
    build(&sandbox, &["-t", "it", "-o", "type=oci,dest=it.tar"]).ok().says_not("tagged");
    sandbox.outcrop(&["inspect", "it"]).fails(1);
    build(&sandbox, &["-t", "it", "-o", "\"type=image\",\"name=more,and:2\""])
        .ok()
        .says("Successfully tagged it:latest\nSuccessfully tagged more:latest\nSuccessfully tagged and:2\n");
    assert_eq!(id(&sandbox, "it"), id(&sandbox, "and:2"));
    build(&sandbox, &["-t", "loaded", "-o", "type=docker"]).ok();
    assert_eq!(id(&sandbox, "it"), id(&sandbox, "loaded"));
}

#[test]
fn a_directory_that_is_there_keeps_what_the_image_does_not_have() {
    let sandbox = sandbox("FROM scratch\nCOPY file /sub/file\nCOPY file /link/file\nCOPY file /was-dir\n");
    sandbox.file("out/mine", "mine");
    sandbox.file("out/sub/mine", "mine");
    sandbox.file("out/sub/file", "old");
    sandbox.file("out/was-dir/gone", "gone");
    let out = sandbox.context().join("out");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(sandbox.dir().join("elsewhere")).unwrap();
    symlink(sandbox.dir().join("elsewhere"), out.join("link")).unwrap();
    build(&sandbox, &["-o", "out"]).ok();
    let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
    assert_eq!([read("mine"), read("sub/mine")], ["mine", "mine"]);
    assert_eq!([read("sub/file"), read("was-dir"), read("link/file")], ["hello\n"; 3]);
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o700, "the directory itself is not the image's");
    assert_eq!(tree(&sandbox.dir().join("elsewhere")), BTreeMap::new(), "no link is followed");
    assert!(fs::symlink_metadata(out.join("link")).unwrap().is_dir());
    // Directories that are not there are made.
    build(&sandbox, &["-o", "a/b/c"]).ok();
    assert_eq!(fs::read_to_string(sandbox.context().join("a/b/c/sub/file")).unwrap(), "hello\n");
}

#[test]
fn standard_output_gets_the_archive_alone() {
    let sandbox = sandbox("FROM scratch\nCOPY file /\n");
    let tar = build(&sandbox, &["-o", "-"]).ok().complains("Step 2/2 : COPY file /");
    fs::write(sandbox.context().join("got.tar"), &tar.output.stdout).unwrap();
    assert_eq!(tool(&sandbox, &["tar", "-tf", "got.tar"]), "file\n");
    let oci = build(&sandbox, &["-q", "-t", "it", "-o", "type=oci"]).ok();
    build(&sandbox, &["-t", "it", "-o", "type=oci,dest=file.tar"]).ok();
    assert!(oci.output.stdout == fs::read(sandbox.context().join("file.tar")).unwrap());
    build(&sandbox, &["-o", "-", "-o", "type=oci"]).fails(1).complains("two outputs go to standard output");
}

#[test]
fn a_destination_that_cannot_be_written_is_said_before_anything_runs() {
    let sandbox = sandbox("FROM base\nRUN echo ran\n");
    fs::create_dir(sandbox.context().join("dir")).unwrap();
    for (output, complaint) in [
        ("type=oci,dest=dir", "`"),
        ("type=tar,dest=absent/it.tar", "hint: make the directory `absent` first"),
        ("type=docker,dest=/proc/it.tar", "writing `/proc/it.tar`"),
        ("type=local,dest=file", "`file` is no directory"),
        ("file/below", "`file` is no directory"),
        ("type=oci,dest=file,tar=false", "`file` is no directory"),
        ("type=registry", "an image is to be pushed and has no name"),
        ("type=image,push=true", "an image is to be pushed and has no name"),
        ("type=oic,dest=x", "hint: did you mean `oci`?"),
        ("type=oci,dset=x", "hint: did you mean `dest`?"),
    ] {
        build(&sandbox, &["-o", output]).fails(1).says_not("Step").complains(complaint);
    }
    build(&sandbox, &["-o", "type=oci,dest=dir"]).fails(1).complains("dir` is a directory");
    build(&sandbox, &["--push"]).fails(1).complains("an image is to be pushed and has no name");
    build(&sandbox, &["-o", "x", "-o", "x"]).fails(1).complains("two outputs go to the same place");
}

#[test]
fn an_output_that_fails_leaves_neither_file_nor_name() {
    let sandbox = sandbox("FROM scratch\nCOPY file /there\n");
    build(&sandbox, &["-t", "it"]).ok();
    let before = id(&sandbox, "it");
    sandbox.file("it.tar", "old");
    sandbox.dockerfile("FROM scratch\nCOPY file /there\nLABEL new=1\n");
    let listing = || fs::read_dir(sandbox.context()).unwrap().count();
    let files = listing();
    let damaged = tool(&sandbox, &["find", sandbox.root().to_str().unwrap(), "-name", "there"]);
    fs::write(damaged.trim(), "broken").unwrap();
    build(&sandbox, &["-t", "it", "--load", "-o", "type=oci,dest=it.tar"])
        .fails(1)
        .complains("writing `it.tar`")
        .complains("exporting layer");
    assert_eq!(fs::read_to_string(sandbox.context().join("it.tar")).unwrap(), "old");
    assert_eq!(listing(), files, "nothing half made is left");
    assert_eq!(id(&sandbox, "it"), before);
    fs::write(damaged.trim(), "hello\n").unwrap();
    // A device is written to, and not replaced; and a full one is an error.
    build(&sandbox, &["-o", "type=tar,dest=/dev/null"]).ok();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    build(&sandbox, &["-o", "type=tar,dest=/dev/full"]).fails(1).complains("No space left on device");
    // A link is not replaced: its target is.
    symlink("it.tar", sandbox.context().join("link.tar")).unwrap();
    build(&sandbox, &["-o", "type=tar,dest=link.tar"]).ok();
    assert!(fs::symlink_metadata(sandbox.context().join("link.tar")).unwrap().is_symlink());
    assert_eq!(tool(&sandbox, &["tar", "-tf", "it.tar"]), "there\n");
}

#[test]
fn metadata_and_id_are_written_for_other_programs() {
    let sandbox = sandbox("FROM base\nCOPY file /\n");
    let files = ["--metadata-file", "meta.json", "--iidfile", "iid"];
    build(&sandbox, &[&["-t", "it", "-t", "b:2"][..], &files].concat()).ok();
    let meta = || json(&fs::read_to_string(sandbox.context().join("meta.json")).unwrap());
    let image = id(&sandbox, "it");
    assert_eq!(fs::read_to_string(sandbox.context().join("iid")).unwrap(), image);
    let names = "docker.io/library/it:latest,docker.io/library/b:2";
    let mut said = meta();
    let build_ref = said.as_object_mut().unwrap().remove("buildx.build.ref").unwrap();
    assert!(build_ref.as_str().unwrap().starts_with("outcrop/store/"), "{build_ref}");
    let expected = serde_json::json!({
        "containerimage.config.digest": image, "containerimage.digest": image, "image.name": names,
    });
    assert_eq!(said, expected);
    build(&sandbox, &[&["-t", "it:7", "-o", "type=oci,dest=x,tar=false"][..], &files].concat()).ok();
    let said = meta();
    let raw = tool(&sandbox, &["skopeo", "inspect", "--raw", "oci:x"]);
    fs::write(sandbox.context().join("raw"), &raw).unwrap();
    let digest = format!("sha256:{}", sha256(&sandbox, "raw"));
    assert_eq!(said["containerimage.digest"], digest);
    assert_eq!(said["containerimage.descriptor"]["digest"], digest);
    assert_eq!(said["containerimage.descriptor"]["size"], raw.len());
    assert_eq!(said["containerimage.config.digest"], image);
    assert_eq!(said["image.name"], "docker.io/library/it:7");
    build(&sandbox, &["-q", "-t", "it"]).ok().says(&format!("{image}\n"));
}

const PLATFORMS: &str = "FROM scratch
ARG TARGETARCH
COPY $TARGETARCH /for
COPY file /file
LABEL arch=$TARGETARCH
";

fn two_platforms() -> Sandbox {
    let sandbox = sandbox(PLATFORMS);
    sandbox.file("amd64", "amd64");
    sandbox.file("arm64", "arm64");
    sandbox
}

const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

#[test]
fn several_platforms_are_one_index() {
    let sandbox = two_platforms();
    let outputs = ["-o", "type=oci,dest=oci,tar=false", "--load", "--iidfile", "iid"];
    build(&sandbox, &[&["-t", "multi"][..], &BOTH, &outputs].concat())
        .ok()
        .says("Step 1/10 : FROM scratch")
        .says("linux/arm64");
    let index = json(&tool(&sandbox, &["skopeo", "inspect", "--raw", "oci:oci:latest"]));
    let platforms: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for arch in platforms {
        let of = ["skopeo", "inspect", "--override-arch", arch, "--config", "oci:oci:latest"];
        let config = json(&tool(&sandbox, &of));
        assert_eq!(config["config"]["Labels"]["arch"], arch);
        assert_eq!(config["architecture"], arch);
    }
    tool(&sandbox, &["skopeo", "copy", "-q", "--all", "--insecure-policy", "oci:oci:latest", "dir:all"]);
    // The name is the host's image, by way of an index that keeps the others.
    let label = ["inspect", "--format", "{{.Config.Labels.arch}}", "multi"];
    sandbox.outcrop(&label).ok().says("amd64");
    sandbox.outcrop(&["image", "prune", "-f"]).ok();
    sandbox.dockerfile("FROM multi\nCOPY file /more\n");
    build(&sandbox, &[&BOTH[..], &["-o", "out"]].concat()).ok();
    for arch in ["amd64", "arm64"] {
        let at = sandbox.context().join(format!("out/linux_{arch}/for"));
        assert_eq!(fs::read_to_string(at).unwrap(), arch, "from the variant of the base");
    }
    sandbox.check();
    sandbox.outcrop(&["rmi", "multi"]).ok();
    sandbox.outcrop(&["system", "prune", "-af"]).ok();
    sandbox.check();
}

#[test]
fn files_of_several_platforms_have_a_directory_each() {
    let sandbox = two_platforms();
    build(
        &sandbox,
        &[&BOTH[..], &["-o", "type=tar,dest=it.tar", "-o", "type=tar,dest=one.tar,platform-split=false"]]
            .concat(),
    )
    .ok();
    assert_eq!(
        tool(&sandbox, &["tar", "-tf", "it.tar"]),
        "linux_amd64/\nlinux_amd64/file\nlinux_amd64/for\nlinux_arm64/\nlinux_arm64/file\nlinux_arm64/for\n"
    );
    assert_eq!(tool(&sandbox, &["tar", "-tf", "one.tar"]), "file\nfor\nfile\nfor\n");
    build(&sandbox, &[&BOTH[..], &["-o", "type=docker,dest=x.tar"]].concat())
        .fails(1)
        .complains("a Docker archive holds the image of one platform");
    build(&sandbox, &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-o", "one"]).ok();
    assert_eq!(fs::read_to_string(sandbox.context().join("one/linux_amd64/for")).unwrap(), "amd64");
}

#[test]
fn annotations_stand_where_they_were_asked_for() {
    let sandbox = two_platforms();
    let asked =
        ["a=1", "manifest[linux/arm64]:a=2", "index:b=3", "manifest-descriptor:c=4", "index-descriptor:d=5"];
    let flags: Vec<&str> = asked.iter().flat_map(|text| ["--annotation", text]).collect();
    let output = ["-t", "it", "--load", "-o", "type=oci,dest=oci,tar=false,annotation.e=6"];
    build(&sandbox, &[&BOTH[..], &flags, &output].concat()).ok();
    let read = |digest: &str| {
        let path = sandbox.context().join("oci/blobs").join(digest.replace(':', "/"));
        json(&fs::read_to_string(path).unwrap())
    };
    let digest = |entry: &serde_json::Value| entry["digest"].as_str().unwrap().to_owned();
    let list = json(&fs::read_to_string(sandbox.context().join("oci/index.json")).unwrap());
    let top = &list["manifests"][0];
    assert_eq!(top["annotations"]["d"], "5");
    let index = read(&digest(top));
    assert_eq!(index["annotations"], serde_json::json!({ "b": "3" }));
    for (entry, a) in std::iter::zip(index["manifests"].as_array().unwrap(), ["1", "2"]) {
        assert_eq!(entry["annotations"], serde_json::json!({ "c": "4" }));
        assert_eq!(read(&digest(entry))["annotations"], serde_json::json!({ "a": a, "e": "6" }));
    }
    sandbox.check();
    build(&sandbox, &["--annotation", "index:a=b"]).fails(1).complains("BUILDKIT_MULTI_PLATFORM=1");
    build(&sandbox, &["--annotation", "indx:a=b"]).fails(1).complains("hint: did you mean `index`?");
    build(&sandbox, &["--annotation", "manifest[linux/s390x]:a=b"]).fails(1).complains("which is not built");
}
