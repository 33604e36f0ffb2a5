//! Saving images to archives and loading them: what was saved here, and what others wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use outcrop::image::Digest;

use crate::registry_kit::noise;
use crate::registry_kit::{Image, Layout, RealRegistry, config_for, tar_of_files};
use crate::sandbox::{Sandbox, find_on_path, tool};

fn skopeo(args: &[&str]) -> Vec<u8> {
    let output = Command::new(find_on_path("skopeo")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn raw(name: &str) -> Vec<u8> {
    skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")])
}

fn built(sandbox: &Sandbox, name: &str) {
    sandbox.base_image("base");
    sandbox.file("one", "one");
    sandbox.dockerfile("FROM base\nCOPY one /\nENV A=b\n");
    sandbox.outcrop(&["build", "-q", "-t", name, "."]).ok();
}

fn id(sandbox: &Sandbox, name: &str) -> String {
    sandbox.outcrop(&["images", "-q", "--no-trunc", name]).ok().line()
}

#[test]
fn images_that_were_saved_are_loaded_elsewhere_under_their_names() {
    let sandbox = Sandbox::new();
    built(&sandbox, "app:1");
    sandbox.outcrop(&["tag", "app:1", "reg.test:5000/x/app:2"]).ok();
    sandbox.outcrop(&["save", "-o", "all.tar", "app:1", "reg.test:5000/x/app:2", "base"]).ok();
    let archive = sandbox.context().join("all.tar");
    let other = Sandbox::new();
    let outcome = other.outcrop(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(
        outcome.lines(),
        ["Loaded image: app:1", "Loaded image: reg.test:5000/x/app:2", "Loaded image: base:latest"]
    );
    for name in ["app:1", "reg.test:5000/x/app:2", "base"] {
        assert_eq!(id(&other, name), id(&sandbox, name), "{name}");
    }
    other
        .outcrop(&["run", "--rm", "--network", "none", "app:1", "/bin/sh", "-c", "cat /one; echo $A"])
        .ok()
        .says("oneb");
    other.check();
    // The same from a stream, compressed.
    for compressor in ["gzip", "zstd", "xz"] {
        let packed = Command::new(find_on_path(compressor)).arg("-c").arg(&archive).output().unwrap().stdout;
        let third = Sandbox::new();
        third.outcrop_with_input(&["load", "-q"], &packed).ok().says("Loaded image: app:1");
        assert_eq!(id(&third, "app:1"), id(&sandbox, "app:1"), "{compressor}");
    }
}

#[test]
fn others_read_what_was_saved() {
    let sandbox = Sandbox::new();
    built(&sandbox, "app:1");
    let archive = sandbox.context().join("app.tar");
    let bytes = sandbox.outcrop(&["save", "-o", archive.to_str().unwrap(), "app:1"]).ok();
    assert_eq!(bytes.stdout(), "");
    for kind in ["docker-archive", "oci-archive"] {
        let to = format!("dir:{}", sandbox.dir().join(kind).display());
        skopeo(&["copy", "--insecure-policy", "--quiet", &format!("{kind}:{}", archive.display()), &to]);
    }
}

/// Into what `to` names, for skopeo.
fn made_by_others(layout: &Path, to: &str) {
    skopeo(&["copy", "--insecure-policy", "--quiet", &format!("oci:{}:image", layout.display()), to]);
}

#[test]
fn archives_and_layouts_that_others_wrote_are_loaded() {
    let sandbox = Sandbox::new();
    let layout = sandbox.dir().join("layout");
    let image = crate::registry_kit::tarred("linux/amd64", &["a", "b"]);
    Layout::single(&layout, &image);
    let expected = Digest::of(&image.config).to_string();
    for (n, (kind, suffix)) in [
        ("docker-archive", ":reg.test/app:v"),
        ("oci-archive", ":reg.test/app:v"),
        ("oci", ":reg.test/app:v"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = sandbox.dir().join(format!("made{n}"));
        made_by_others(&layout, &format!("{kind}:{}{suffix}", path.display()));
        let other = Sandbox::new();
        let outcome = other.outcrop(&["load", "-i", path.to_str().unwrap()]).ok();
        assert_eq!(outcome.lines(), ["Loaded image: reg.test/app:v"], "{kind}");
        assert_eq!(id(&other, "reg.test/app:v"), expected, "{kind}");
        other.check();
    }
}

#[test]
fn a_manifest_survives_being_pulled_saved_loaded_and_pushed() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = crate::registry_kit::tarred("linux/amd64", &["a", "b"]);
    let layout = Layout::single(&sandbox.dir().join("layout"), &image);
    registry.push_with(&layout, "app:1", &["--format", "v2s2"]);
    let name = format!("{}/app:1", registry.address);
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    let archive = sandbox.context().join("app.tar");
    sandbox.outcrop(&["save", "-o", archive.to_str().unwrap(), &name]).ok();
    let other = Sandbox::new();
    other.outcrop(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    let to = format!("{}/elsewhere:1", registry.address);
    other.outcrop(&["tag", &name, &to]).ok();
    other.outcrop(&["push", "-q", &to]).ok();
    assert_eq!(raw(&to), raw(&name));
    other.check();
}

#[test]
fn what_is_no_archive_of_images_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let tree = sandbox.busybox_archive();
    sandbox.outcrop(&["load", "-i", tree.to_str().unwrap()]).fails(1).complains("`outcrop import`");
    sandbox.outcrop_with_input(&["load"], b"nonsense").fails(1);
    built(&sandbox, "app:1");
    sandbox.outcrop(&["save", "-o", "app.tar", "app:1"]).ok();
    let mut bytes = fs::read(sandbox.context().join("app.tar")).unwrap();
    let cut = sandbox.file("cut.tar", &bytes[..bytes.len() / 2]);
    let other = Sandbox::new();
    other.outcrop(&["load", "-i", cut.to_str().unwrap()]).fails(1);
    // A byte in the middle of the largest layer.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let bad = sandbox.file("bad.tar", &bytes);
    other.outcrop(&["load", "-i", bad.to_str().unwrap()]).fails(1);
    assert_eq!(other.outcrop(&["images", "-q"]).ok().stdout(), "");
    other.check();
    sandbox.outcrop(&["save", "-o", "x.tar", "absent"]).fails(1).complains("No such image: absent");
    assert!(!sandbox.context().join("x.tar").exists());
}

#[test]
fn what_was_loaded_before_another_image_failed_is_told() {
    let sandbox = Sandbox::new();
    built(&sandbox, "first:1");
    sandbox.file("noise", noise("it", 100_000));
    sandbox.dockerfile("FROM scratch\nCOPY noise /\n");
    sandbox.outcrop(&["build", "-q", "-t", "second:1", "."]).ok();
    sandbox.outcrop(&["save", "-o", "both.tar", "first:1", "second:1"]).ok();
    let mut bytes = fs::read(sandbox.context().join("both.tar")).unwrap();
    let own = noise("it", 100_000);
    let at = bytes.windows(64).position(|part| *part == own[50_000..50_064]).unwrap();
    bytes[at] ^= 1;
    let bad = sandbox.file("bad.tar", &bytes);
    let other = Sandbox::new();
    let failed = other.outcrop(&["load", "-i", bad.to_str().unwrap()]).fails(1);
    assert_eq!(failed.stdout(), "Loaded image: first:1\n");
    assert_eq!(other.outcrop(&["images", "--format", "{{.Repository}}"]).ok().stdout(), "first\n");
    other.check();
}

#[test]
fn a_layer_without_its_directories_is_another_one_where_nothing_lies_below() {
    for driver in ["overlay2", "vfs"] {
        for first in ["alone", "above"] {
            let sandbox = Sandbox::new().driver(driver);
            fs::create_dir_all(sandbox.context().join("tree/tmp")).unwrap();
            let tar =
                ["tar", "-cf", "tree.tar", "--owner=0", "--group=0", "--mode=1777", "-C", "tree", "tmp"];
            tool(&sandbox, &tar);
            let below = fs::read(sandbox.context().join("tree.tar")).unwrap();
            let leaning = tar_of_files(&[("tmp/x", 10)]);
            let platform = "linux/amd64".parse().unwrap();
            let made = |name: &str, tars: &[Vec<u8>]| {
                let image = Image::made(tars, config_for(&platform));
                let dir = sandbox.dir().join(name);
                Layout::single(&dir, &image);
                (dir, Digest::of(&image.config).to_string())
            };
            let alone = made("alone", std::slice::from_ref(&leaning));
            let above = made("above", &[below, leaning]);
            let order = if first == "alone" { [&alone, &above] } else { [&above, &alone] };
            for (dir, _) in order {
                sandbox.outcrop(&["load", "-q", "-i", dir.to_str().unwrap()]).ok();
            }
            let mode = |image: &str| {
                let id = sandbox.outcrop(&["create", image, "x"]).ok().line();
                sandbox.outcrop(&["export", "-o", "out.tar", &id]).ok();
                let listing = tool(&sandbox, &["tar", "-tvf", "out.tar"]);
                let tmp = listing.lines().find(|line| line.ends_with(" tmp/")).unwrap();
                tmp.split(' ').next().unwrap().to_owned()
            };
            assert_eq!(
                [mode(&alone.1), mode(&above.1)],
                ["drwxr-xr-x", "drwxrwxrwt"],
                "{driver}, {first} first"
            );
            sandbox.check();
        }
    }
}
