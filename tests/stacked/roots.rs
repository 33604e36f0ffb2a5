//! `/` of a stack is what the nearest layer says that says anything of it, whatever other stacks its layers stand in.

use std::fs;
use std::path::{Path, PathBuf};

use outcrop::image::Digest;

use crate::registry_kit::{Image, Layout, config_for, tar_of_files};
use crate::sandbox::{Sandbox, build_offline, tool};

const NAMES: [&str; 4] = ["narrow", "wide", "twice", "owned"];

fn build(sandbox: &Sandbox, name: &str, dockerfile: &str) {
    sandbox.dockerfile(dockerfile);
    build_offline(sandbox, &["-t", name]).ok();
}

/// Mode and owner of `/` of each image: in a container, and in a stack that is only read.
fn roots(sandbox: &Sandbox) -> Vec<String> {
    let of = |name: &&str| {
        let stat = ["stat", "-c", "%a %u %g", "/"];
        let run = [&["run", "--rm", "--network", "none", name], &stat[..]].concat();
        let lived = sandbox.outcrop(&run).ok().line();
        let mount = format!("--mount=type=bind,from={name},target=/seen");
        sandbox.dockerfile(&format!("FROM base\nRUN {mount} stat -c 'it is %a %u %g' /seen\n"));
        let read = build_offline(sandbox, &["--no-cache"]).ok();
        let read = format!("{}{}", read.stdout(), read.stderr());
        let read = read.rsplit("it is ").next().and_then(|rest| rest.lines().next()).unwrap_or_default();
        assert_eq!(read, lived, "{name}");
        lived
    };
    NAMES.iter().map(of).collect()
}

/// DiffIDs of the layers that were built, and an archive of the images.
fn built(driver: &str) -> (Vec<Vec<String>>, PathBuf, Sandbox) {
    // Layers are the same whenever they are made.
    let sandbox = Sandbox::new().driver(driver).variable("SOURCE_DATE_EPOCH", "1");
    sandbox.base_image("base");
    fs::set_permissions(sandbox.file("a", "a"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    build(&sandbox, "narrow", "FROM base\nRUN chmod 711 /\nCOPY a /a\n");
    // The layer of this COPY is there; it stood on another root.
    build(&sandbox, "wide", "FROM base\nCOPY a /a\nRUN touch -d @0 /b\n");
    build(
        &sandbox,
        "twice",
        "FROM base\nRUN chmod 711 /\nCOPY a /a\nRUN chmod 701 /\nCOPY a /a\nRUN touch -d @0 /b\n",
    );
    build(&sandbox, "owned", "FROM base\nRUN chown 12:34 / && chmod 1777 /\nCOPY a /a\n");
    assert_eq!(roots(&sandbox), ["711 0 0", "755 0 0", "701 0 0", "1777 12 34"], "{driver}");
    let layers = |name: &&str| {
        let said = sandbox.outcrop(&["inspect", "--format", "{{json .RootFS.Layers}}", name]).ok().json();
        said.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let layers = NAMES.iter().map(layers).collect();
    let archive = sandbox.dir().join("roots.tar");
    sandbox.outcrop(&[&["save", "-o", archive.to_str().unwrap()], &NAMES[..]].concat()).ok();
    sandbox.check();
    (layers, archive, sandbox)
}

fn loaded(archive: &Path, driver: &str) {
    let sandbox = Sandbox::new().driver(driver);
    sandbox.base_image("base");
    sandbox.outcrop(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(roots(&sandbox), ["711 0 0", "755 0 0", "701 0 0", "1777 12 34"], "{driver}, loaded");
    sandbox.check();
}

#[test]
fn a_stack_shows_the_root_that_its_layers_say_and_no_other_stacks() {
    let (layers, archive, _keeps) = built("overlay2");
    for driver in ["overlay", "vfs"] {
        assert_eq!(built(driver).0, layers, "{driver}");
    }
    for driver in ["overlay2", "vfs"] {
        loaded(&archive, driver);
    }
}

/// What hides all that lies below hides the root there, too, on every driver: the next layer says nothing of it.
#[test]
fn a_layer_that_hides_all_below_hides_the_root_below() {
    let layers = ["overlay2", "overlay", "vfs"].map(|driver| {
        let sandbox = Sandbox::new().driver(driver).variable("SOURCE_DATE_EPOCH", "1");
        fs::create_dir(sandbox.context().join("tree")).unwrap();
        tool(
            &sandbox,
            &[
                "tar",
                "-cf",
                "tree.tar",
                "--owner=12",
                "--group=34",
                "--mode=711",
                "--mtime=@1",
                "-C",
                "tree",
                ".",
            ],
        );
        let below = fs::read(sandbox.context().join("tree.tar")).unwrap();
        let image = Image::made(
            &[below, tar_of_files(&[(".wh..wh..opq", 0), ("a", 10)])],
            config_for(&"linux/amd64".parse().unwrap()),
        );
        let dir = sandbox.dir().join("image");
        Layout::single(&dir, &image);
        sandbox.outcrop(&["load", "-i", dir.to_str().unwrap()]).ok();
        sandbox.outcrop(&["tag", &Digest::of(&image.config).to_string(), "image"]).ok();
        fs::set_permissions(sandbox.file("a", "a"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
        build(&sandbox, "it", "FROM image\nCOPY a /b\n");
        sandbox.check();
        sandbox.outcrop(&["create", "--name", "box", "it", "x"]).ok();
        sandbox.outcrop(&["export", "-o", "out.tar", "box"]).ok();
        let seen = tool(&sandbox, &["tar", "-tvf", "out.tar"]);
        let names: Vec<_> = seen.lines().filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(names, ["a", "b"], "{driver}: the root is everybody's");
        sandbox.outcrop(&["inspect", "--format", "{{json .RootFS.Layers}}", "it"]).ok().line()
    });
    assert_eq!(layers[0], layers[1]);
    assert_eq!(layers[0], layers[2]);
}
